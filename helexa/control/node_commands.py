"""The verbs of `helexa-ctl` about nodes: a list of them, and one tried step by step."""

import argparse
import json
from typing import Any

from helexa.control.asking import Json, reading, show
from helexa.control.fleet_screen import state
from helexa.control.layout import duration, table
from helexa.escape import escape

MARKS = {True: "ok", False: "WRONG", None: "-"}


def nodes(args: argparse.Namespace) -> int:
    if args.what == "test":
        return test(args)
    found = list(reading(args, "nodes", {}))
    return show(args, found, node_lines(found) or ["no nodes"])


def test(args: argparse.Namespace) -> int:
    """1 where something is wrong, and each finding as it comes."""
    is_well = True
    for finding in reading(args, "nodes-test", {"node": args.name}):
        is_well = is_well and finding.get("ok") is not False
        print(json.dumps(finding) if args.json else finding_line(finding), flush=True)
    return 0 if is_well else 1


def node_lines(found: list[Json]) -> list[str]:
    rows = [
        (
            node.get("name"),
            node.get("kind"),
            state(node),
            node.get("breaker"),
            node.get("version") or None,
            node.get("devices"),
            ", ".join(map(str, node.get("loaded") or [])) or None,
            seen(node.get("seen_secs_ago")),
            node.get("why_down") or "",
        )
        for node in found
    ]
    headers = ("NODE", "KIND", "STATE", "BREAKER", "VERSION", ">DEVICES", "LOADED", ">SEEN", "")
    return table(headers, rows) if rows else []


def seen(ago: float | None) -> str:
    return "never" if ago is None else f"{duration(ago)} ago"


def finding_line(finding: Json) -> str:
    mark = MARKS.get(finding.get("ok"), "-")
    what, text = str(finding.get("what", "")), str(finding.get("text", ""))
    return f"{mark:<5}  {escape(what):<8} {escape(text)}"


def register(verbs: Any, common: argparse.ArgumentParser) -> None:
    help = "a gateway's nodes as they were seen last; `nodes test NAME` tries one now"
    made = verbs.add_parser("nodes", parents=[common], help=help, description=help)
    made.set_defaults(run=nodes)
    what = made.add_subparsers(dest="what", metavar="[test NAME]")
    one = what.add_parser("test", parents=[common], help="try a node step by step")
    one.add_argument("name", metavar="NAME")
