"""The `helexa` command: serve, init, check, doctor, models, client-config, restore."""

import argparse
import gc
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import trio

from helexa import __version__, logs
from helexa.config import command as check
from helexa.config.places import places
from helexa.config.read import config_file, config_warnings, read_all
from helexa.errors import ConfigError, HelexaError, StateInUse
from helexa.service import Exit, ending, file_limit_warning, raise_file_limit

log = logs.get("helexa.main")

# A request makes thousands of objects and hardly a cycle: with Python's own 700, collections were a tenth
# of a gateway's work.
COLLECT_AFTER = (10_000, 20, 20)


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        code: int = args.run(args)
    except ConfigError as error:
        check.print_mistakes(error)
        return Exit.CONFIG
    except StateInUse as error:
        print(error, file=sys.stderr)
        return Exit.STATE_IN_USE
    except HelexaError as error:
        print(error.message, file=sys.stderr)
        return Exit.CRASHED
    return code


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="helexa", description=__doc__)
    top.add_argument("--version", action="version", version=f"helexa {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config",
        type=Path,
        metavar="F",
        default=argparse.SUPPRESS,  # so that a verb without it leaves what stands before the verb
        help="the configuration file",
    )
    top.set_defaults(config=None)
    verbs = top.add_subparsers(metavar="COMMAND", required=True)
    made = verbs.add_parser("serve", parents=[common], help="serve in the foreground")
    made.add_argument("--greet", action="store_true", help="print a command to try once ready")
    made.set_defaults(run=serve)
    made = verbs.add_parser("check", parents=[common], help="check the configuration")
    made.set_defaults(run=check.run)
    made = verbs.add_parser("doctor", parents=[common], help="what each device can do, and why not")
    made.set_defaults(run=doctor)
    from helexa.config import init

    init.register(verbs)
    from helexa.store import command as models

    models.register(verbs, [common]).set_defaults(run=store)
    from helexa.clients import command as clients

    clients.register(verbs, [common]).set_defaults(run=client_config)
    from helexa.accounts import command as accounts

    accounts.register(verbs, [common])
    return top


def serve(args: argparse.Namespace) -> NoReturn:
    """Until it is told to stop."""
    from helexa.serve import serve as serve_all

    config, catalogue = read_all(args.config, os.environ)
    ring = logs.configure(config.server.log_level, config.server.log_format, os.environ)
    for warning in config_warnings(args.config, config):
        log.warning("configuration warning", reason=warning)
    too_few = file_limit_warning(config.limits.max_connections, raise_file_limit())
    if too_few:
        log.warning("too few open files", reason=too_few)
    where = places(config, os.environ)
    file = config_file(args.config)
    run_to_end(
        partial(serve_all, config, catalogue, where, ring, os.environ, file, greet=args.greet)
    )


def run_to_end(serving: Callable[[], Awaitable[Exit]]) -> NoReturn:
    """Run it and end the process with its code: a device thread may be stuck in a kernel."""
    gc.freeze()  # modules stay: a collection, which stops everything, need not walk through them
    gc.set_threshold(*COLLECT_AFTER)
    try:
        code = trio.run(serving)
    except BaseException as error:
        code, cause = ending(error)
        tell_end(cause, code)
    sys.stdout.flush()
    os._exit(code)


def tell_end(cause: BaseException, code: Exit) -> None:
    """Expected ends in a sentence; a crash with its traceback."""
    if code is Exit.CRASHED:
        log.exception("helexa crashed", cause)
    elif code is not Exit.STOPPED:
        log.error("helexa ends", reason=str(cause), exit_code=int(code))


def doctor(args: argparse.Namespace) -> int:
    from helexa.devices.doctor import run

    config, _ = read_all(args.config, os.environ)
    return run(args, config, places(config, os.environ))


def store(args: argparse.Namespace) -> int:
    from helexa.store.command import run

    config, catalogue = read_all(args.config, os.environ)
    return run(args, config, places(config, os.environ), catalogue)


def client_config(args: argparse.Namespace) -> int:
    from helexa.clients.command import run

    config, _ = read_all(args.config, os.environ)
    return run(args, config)


if __name__ == "__main__":
    sys.exit(main())
