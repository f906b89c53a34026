"""`helexa-ctl`: ask a running helexa, or tell it what to do, through its control socket.

Exit codes: 0 done, 1 refused or cut short, 2 wrong arguments, 3 no helexa answers.
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from helexa import __version__
from helexa.control import screen
from helexa.control.client import Ended, NoDaemon, Refused, ask
from helexa.control.paths import candidates
from helexa.escape import escape

ANSWER_SECONDS = 15.0  # for what only reads; a load may take its time
WATCH_SECONDS = 2.0
CLEAR, CLEAR_LINE = "\x1b[H\x1b[J", "\r\x1b[K"
UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

Json = Any


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        run: Callable[[argparse.Namespace], int] = args.run
        return run(args)
    except NoDaemon as error:
        return failed(str(error), 3)
    except (Refused, Ended) as error:
        return failed("\n".join(map(escape, str(error).split("\n"))), 1)
    except TimeoutError:
        return failed(f"helexa has not answered for {ANSWER_SECONDS:.0f} s", 1)
    except BrokenPipeError:  # a pager or `head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def failed(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


# -- the verbs ---------------------------------------------------------------------------------------


def status(args: argparse.Namespace) -> int:
    while True:
        told: Json = next(reading(args, "status", {}), {})
        if args.watch and not args.json and sys.stdout.isatty():
            print(CLEAR, end="")
        print(json.dumps(told) if args.json else screen.status(told, plain=not speaks_unicode()))
        if not args.watch:
            return 0
        sys.stdout.flush()
        time.sleep(WATCH_SECONDS)


def models(args: argparse.Namespace) -> int:
    found = list(reading(args, "models", {}))
    return show(args, found, screen.models(found) or ["no models"])


def requests(args: argparse.Namespace) -> int:
    asked = {"slow": args.slow, "failed": args.failed, "key": args.key, "limit": args.number}
    found = list(reading(args, "requests", asked))
    return show(args, found, screen.requests(found))


def why(args: argparse.Namespace) -> int:
    found = list(reading(args, "why", {"request_id": args.request_id}))
    return show(args, found, [line for record in found for line in screen.why(record)])


def why_limit(args: argparse.Namespace) -> int:
    found = list(reading(args, "why-limit", {"model": args.model}))
    return show(args, found, [line for told in found for line in screen.why_limit(told)])


def logs(args: argparse.Namespace) -> int:
    from helexa.log_lines import human

    asked = {"follow": args.follow, "lines": args.number}
    for item in ask(sockets(args), "logs", asked, None if args.follow else ANSWER_SECONDS):
        if args.json:
            print(json.dumps(item), flush=True)
        elif "lost" in item:
            print(f"... {item['lost']} lines are lost: they came faster than they were read")
        else:
            print(human(item["event"]), flush=True)
    return 0


def load(args: argparse.Namespace) -> int:
    return change(args, "load", {"model": args.model})


def unload(args: argparse.Namespace) -> int:
    return change(args, "unload", {"model": args.model})


def reload(args: argparse.Namespace) -> int:
    return change(args, "reload", {})


def drain(args: argparse.Namespace) -> int:
    try:
        return change(args, "drain", {})
    except Ended:
        print("helexa has stopped")
        return 0


def capture(args: argparse.Namespace) -> int:
    return change(args, "capture", {"key": args.key, "seconds": args.seconds})


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


# -- asking and showing ------------------------------------------------------------------------------


def reading(args: argparse.Namespace, verb: str, asked: dict[str, Json]) -> Iterator[Json]:
    return ask(sockets(args), verb, asked, ANSWER_SECONDS)


def sockets(args: argparse.Namespace) -> list[Path]:
    return [args.socket] if args.socket else candidates(os.environ)


def show(args: argparse.Namespace, found: list[Json], lines: list[str]) -> int:
    print("\n".join(json.dumps(item) for item in found) if args.json else "\n".join(lines))
    return 0


def speaks_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


# -- the command line --------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--socket", type=Path, metavar="PATH", default=argparse.SUPPRESS)
    common.add_argument("--json", action="store_true", help="one line of JSON per thing")
    top = argparse.ArgumentParser(prog="helexa-ctl", description="Look into a running helexa.")
    top.add_argument("--version", action="version", version=f"helexa-ctl {__version__}")
    top.add_argument("--socket", type=Path, metavar="PATH", help="the control socket to ask")
    verbs = top.add_subparsers(metavar="VERB", required=True)

    def verb(run: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        name = run.__name__.replace("_", "-")
        made = verbs.add_parser(name, parents=[common], help=help, description=help)
        made.set_defaults(run=run)
        return made

    made = verb(status, "roles, devices, models, last errors")
    made.add_argument("--watch", action="store_true", help="again every two seconds")
    verb(models, "the models and what they do")
    verb(why_limit, "what bounds a model's context").add_argument("model")
    verb(load, "load a model, also one that failed before").add_argument("model")
    verb(unload, "finish a model's requests and free its memory").add_argument("model")
    verb(drain, "take no more requests, finish those in hand, and stop")
    verb(reload, "read the catalogue again")
    made = verb(logs, "the last log lines")
    made.add_argument("-f", "--follow", action="store_true", help="and every new one")
    made.add_argument("-n", "--number", type=int, default=100, metavar="N")
    made = verb(requests, "the last requests, newest first")
    made.add_argument("--slow", action="store_true", help="the slowest, slowest first")
    made.add_argument("--failed", action="store_true", help="only those that failed")
    made.add_argument("--key", metavar="K", help="only those of one key or account")
    made.add_argument("-n", "--number", type=int, default=20, metavar="N")
    made = verb(why, "what was decided about one request, and when")
    made.add_argument("request_id", metavar="REQUEST_ID")
    made = verb(capture, "write one key's prompts and answers to a private file")
    made.add_argument("key", metavar="KEY")
    made.add_argument(
        "--for",
        dest="seconds",
        type=seconds,
        default=600.0,
        metavar="TIME",
        help="such as 90s, 10m (the default) or 2h; 0 ends it",
    )
    return top


def seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90s, 10m or 2h")
    return float(found[1]) * UNITS[found[2]]


if __name__ == "__main__":
    sys.exit(main())
