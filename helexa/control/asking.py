"""How `helexa-ctl` asks the running helexa and shows what it tells."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helexa.control.client import ask
from helexa.control.paths import candidates
from helexa.escape import escape

ANSWER_SECONDS = 15.0  # for what only reads; a load may take its time
CLEAR_LINE = "\r\x1b[K"

Json = Any


def reading(args: argparse.Namespace, verb: str, asked: dict[str, Json]) -> Iterator[Json]:
    return ask(sockets(args), verb, asked, ANSWER_SECONDS)


def sockets(args: argparse.Namespace) -> list[Path]:
    return [args.socket] if args.socket else candidates(os.environ)


def show(args: argparse.Namespace, found: list[Json], lines: list[str]) -> int:
    print("\n".join(json.dumps(item) for item in found) if args.json else "\n".join(lines))
    return 0


def change(args: argparse.Namespace, verb: str, asked: dict[str, Json]) -> int:
    """Ask for a change and tell what comes of it, however long it takes."""
    moving = sys.stderr.isatty() and not args.json
    for item in ask(sockets(args), verb, asked, None):
        if args.json:
            print(json.dumps(item), flush=True)
        elif "message" in item:
            if moving:
                print(CLEAR_LINE, end="", file=sys.stderr, flush=True)
            print(escape(item["message"]), flush=True)
        elif moving:
            print(f"{CLEAR_LINE}{progress(item)}", end="", file=sys.stderr, flush=True)
    return 0


def progress(item: Json) -> str:
    """`loading 45 %` of {"phase", "done", "total"}."""
    part = f" {100 * item.get('done', 0) / item['total']:.0f} %" if item.get("total") else ""
    return escape(str(item.get("phase", ""))) + part
