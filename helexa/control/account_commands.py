"""The verbs of `helexa-ctl` about accounts: keys, spend, audit, backup."""

import argparse
import base64
import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helexa.control import account_screen as screen
from helexa.control import times
from helexa.control.asking import Json, change, reading, show, sockets
from helexa.control.client import ask
from helexa.escape import escape
from helexa.replacing import replacing


def keys_create(args: argparse.Namespace) -> int:
    asked = {
        "account": args.account,
        "key": args.key_id,
        "expires_at": args.expires,
        "models": args.models,
        "weight": args.weight,
        "priority": args.priority,
        "note": args.note,
        **budget(args),
    }
    return created(args, "keys-create", asked)


def keys_rotate(args: argparse.Namespace) -> int:
    return created(args, "keys-rotate", {"key": args.key, "overlap": args.overlap})


def created(args: argparse.Namespace, verb: str, asked: dict[str, Json]) -> int:
    """The secret alone on standard output, so that a script can take it."""
    for item in ask(sockets(args), verb, asked, None):
        if args.json:
            print(json.dumps(item))
        else:
            print(escape(item["message"]), file=sys.stderr)
            print(item["secret"], flush=True)
    return 0


def keys_list(args: argparse.Namespace) -> int:
    found = list(reading(args, "keys", {}))
    return show(args, found, screen.keys(found) or ["no keys"])


def keys_show(args: argparse.Namespace) -> int:
    found = list(reading(args, "keys", {"key": args.key}))
    lines = ["\n".join(screen.key(one)) for one in found]
    return show(args, found, ["\n\n".join(lines)])


def keys_revoke(args: argparse.Namespace) -> int:
    return change(args, "keys-revoke", {"key": args.key})


def keys_set_budget(args: argparse.Namespace) -> int:
    return change(args, "keys-set-budget", {"key": args.key, **budget(args)})


def budget(args: argparse.Namespace) -> dict[str, Json]:
    """What was said of it; what was not stays as it is."""
    said = {"hard_cap": args.cap, "hard_cap_usd": args.cap_usd, "window": args.window}
    return {name: value for name, value in said.items() if value is not UNSAID}


def spend(args: argparse.Namespace) -> int:
    found = list(reading(args, "spend", {"by": args.by, "since": args.since}))
    if args.csv:
        write_csv(found)
        return 0
    return show(args, found, screen.spend(found) or ["nothing was spent"])


def write_csv(found: list[Json]) -> None:
    if found:
        writer = csv.DictWriter(sys.stdout, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "usd": f"{row['usd']:.9f}"} for row in found)  # never 8e-05


def audit(args: argparse.Namespace) -> int:
    asked = {"since": args.since, "key": args.key, "limit": args.number}
    found = list(reading(args, "audit", asked))
    return show(args, found, screen.audit(found) or ["nothing happened"])


def backup(args: argparse.Namespace) -> int:
    """The archive comes over the socket, so that it belongs to whoever asked."""
    with replacing(args.file) as file:
        for item in ask(sockets(args), "backup", {}, None):
            file.write(base64.b64decode(item["data"]))
    print(f"{args.file} holds keys and spending: keep it as private as they are", file=sys.stderr)
    return 0


def accept_loss(args: argparse.Namespace) -> int:
    return change(args, "accept-loss", {})


# -- the command line --------------------------------------------------------------------------------

UNSAID: Any = object()  # None says that there is to be no bound
Run = Callable[[argparse.Namespace], int]


def register(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verbs to those of `helexa-ctl`."""

    def verb(into: Any, name: str, run: Run, help: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = into.add_parser(
            name, parents=[common], help=help, description=help
        )
        made.set_defaults(run=run)
        return made

    text = "the keys that let requests in"
    keys = verbs.add_parser("keys", parents=[common], help=text, description=text).add_subparsers(
        metavar="WHAT", required=True
    )
    made = verb(keys, "create", keys_create, "make a key; it is shown this once")
    made.add_argument("--account", required=True, metavar="A", help="whose it is")
    made.add_argument("--key-id", metavar="K", help="what it is called; else as its account")
    made.add_argument("--expires", type=times.until, metavar="TIME", help="30d, or 2027-01-31")
    made.add_argument(
        "--models", nargs="+", default=[], metavar="M", help="the only ones it may use"
    )
    made.add_argument(
        "--weight", type=int, default=1, metavar="N", help="its share of a busy model"
    )
    made.add_argument("--priority", choices=("interactive", "batch"), default="interactive")
    made.add_argument("--note", default="", metavar="TEXT", help="for people")
    add_budget(made)
    verb(keys, "list", keys_list, "every key, and what is left of its budget")
    named(verb(keys, "show", keys_show, "one key"))
    named(verb(keys, "revoke", keys_revoke, "let a key in no more, from now on"))
    made = named(
        verb(keys, "rotate", keys_rotate, "give a key a new secret; it is shown this once")
    )
    made.add_argument(
        "--overlap",
        type=times.seconds,
        default=0.0,
        metavar="TIME",
        help="how long the old one is good too",
    )
    add_budget(named(verb(keys, "set-budget", keys_set_budget, "change what a key may spend")))

    made = verb(verbs, "spend", spend, "what was spent")
    made.add_argument("--by", choices=("key", "account", "model"), default="key")
    made.add_argument(
        "--since", type=times.since, default=0.0, metavar="TIME", help="7d, or a date"
    )
    made.add_argument("--csv", action="store_true", help="for a spreadsheet")
    made = verb(verbs, "audit", audit, "changes of keys, and refusals, newest first")
    made.add_argument(
        "--since", type=times.since, default=0.0, metavar="TIME", help="7d, or a date"
    )
    made.add_argument("--key", default="", metavar="K", help="only those of one key or account")
    made.add_argument("-n", "--number", type=int, default=100, metavar="N")
    made = verb(verbs, "backup", backup, "write configuration, keys, ledger and state to a file")
    made.add_argument("file", type=Path, metavar="FILE")
    verb(verbs, "accept-loss", accept_loss, "go on without the ledger that was damaged")


def named(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
    made.add_argument("key", metavar="KEY", help="its id, or ACCOUNT/ID")
    return made


def add_budget(made: argparse.ArgumentParser) -> None:
    number: dict[str, Any] = {"type": times.bound, "default": UNSAID}
    made.add_argument("--cap", **number, metavar="TOKENS", help="within the window, or none")
    made.add_argument(
        "--cap-usd", **number, metavar="USD", help="at the catalogue's prices, or none"
    )
    made.add_argument(
        "--window",
        type=times.window,
        default=UNSAID,
        metavar="W",
        help="balance, rolling:1h or sliding:7d",
    )
