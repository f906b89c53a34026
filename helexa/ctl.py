"""`helexa-ctl`: ask a running helexa, or tell it what to do, through its control socket.

Exit codes: 0 done, 1 refused or cut short, 2 wrong arguments, 3 no helexa answers.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from helexa import __version__
from helexa.control import account_commands, node_commands, screen
from helexa.control.asking import ANSWER_SECONDS, change, reading, show, sockets
from helexa.control.client import Ended, NoDaemon, Refused, ask
from helexa.control.times import seconds
from helexa.escape import escape

WATCH_SECONDS = 2.0
CLEAR = "\x1b[H\x1b[J"

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
    found = list(reading(args, "models", named(args)))
    return show(args, found, screen.models(found) or ["no models"])


def requests(args: argparse.Namespace) -> int:
    asked = {"slow": args.slow, "failed": args.failed, "key": args.key, "limit": args.number}
    found = list(reading(args, "requests", asked))
    return show(args, found, screen.requests(found))


def why(args: argparse.Namespace) -> int:
    found = list(reading(args, "why", {"request_id": args.request_id}))
    return show(args, found, [line for record in found for line in screen.why(record)])


def why_limit(args: argparse.Namespace) -> int:
    found = list(reading(args, "why-limit", {"model": args.model, **named(args)}))
    return show(args, found, [line for told in found for line in screen.why_limit(told)])


def logs(args: argparse.Namespace) -> int:
    from helexa.log_lines import human

    asked = {"follow": args.follow, "lines": args.number, **named(args)}
    for item in ask(sockets(args), "logs", asked, None if args.follow else ANSWER_SECONDS):
        if args.json:
            print(json.dumps(item), flush=True)
        elif "lost" in item:
            print(f"... lines that came faster than they were read, and are lost: {item['lost']}")
        else:
            print(human(item["event"]), flush=True)
    return 0


def load(args: argparse.Namespace) -> int:
    return change(args, "load", {"model": args.model, **named(args)})


def unload(args: argparse.Namespace) -> int:
    return change(args, "unload", {"model": args.model, **named(args)})


def reload(args: argparse.Namespace) -> int:
    return change(args, "reload", {})


def plan(args: argparse.Namespace) -> int:
    found = list(reading(args, "plan", {"model": args.model}))
    return show(args, found, [line for told in found for line in screen.plan(told)])


def pin(args: argparse.Namespace) -> int:
    return change(args, "pin", {"model": args.model, **named(args)})


def unpin(args: argparse.Namespace) -> int:
    return change(args, "unpin", {"model": args.model, **named(args)})


def named(args: argparse.Namespace) -> dict[str, Json]:
    """The node that is meant, if one is named."""
    return {"node": args.node} if args.node else {}


def drain(args: argparse.Namespace) -> int:
    if args.node:
        return change(args, "drain", {"node": args.node, "off": args.off})
    try:
        return change(args, "drain", {})
    except Ended:
        print("helexa has stopped")
        return 0


def capture(args: argparse.Namespace) -> int:
    return change(args, "capture", {"key": args.key, "seconds": args.seconds})


def speaks_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


# -- the command line --------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--socket", type=Path, metavar="PATH", default=argparse.SUPPRESS)
    as_json: dict[str, Any] = {"action": "store_true", "help": "one line of JSON per thing"}
    common.add_argument("--json", default=argparse.SUPPRESS, **as_json)
    top = argparse.ArgumentParser(prog="helexa-ctl", description="Look into a running helexa.")
    top.add_argument("--version", action="version", version=f"helexa-ctl {__version__}")
    top.add_argument("--socket", type=Path, metavar="PATH", help="the control socket to ask")
    top.add_argument("--json", **as_json)
    verbs = top.add_subparsers(metavar="VERB", required=True)

    def verb(run: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        name = run.__name__.replace("_", "-")
        made = verbs.add_parser(name, parents=[common], help=help, description=help)
        made.set_defaults(run=run)
        return made

    made = verb(status, "roles, devices, models, last errors")
    made.add_argument("--watch", action="store_true", help="again every two seconds")
    on_node: dict[str, Any] = {"metavar": "NAME", "help": "that of this name, of a gateway's nodes"}
    verb(models, "the models and what they do").add_argument("--node", **on_node)
    made = verb(why_limit, "what bounds a model's context")
    made.add_argument("model")
    made.add_argument("--node", **on_node)
    for run, help in (
        (load, "load a model, also one that failed before"),
        (unload, "finish a model's requests and free its memory"),
        (pin, "never evict a model to make room for another"),
        (unpin, "let a model be evicted again, until helexa restarts"),
    ):
        made = verb(run, help)
        made.add_argument("model")
        made.add_argument("--node", **on_node)
    verb(plan, "where a model would be loaded, and what would leave for it").add_argument("model")
    made = verb(drain, "take no more requests, finish those in hand, and stop; or only one node")
    made.add_argument("node", nargs="?", metavar="NODE", help="send this node no more requests")
    made.add_argument("--off", action="store_true", help="send it requests again")
    verb(reload, "read catalogue, keys, limits and certificates again")
    made = verb(logs, "the last log lines")
    made.add_argument("-f", "--follow", action="store_true", help="and every new one")
    made.add_argument("-n", "--number", type=int, default=100, metavar="N")
    made.add_argument("--node", **on_node)
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
    account_commands.register(verbs, common)
    node_commands.register(verbs, common)
    return top


if __name__ == "__main__":
    sys.exit(main())
