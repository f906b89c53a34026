"""The client side of the control socket: plain sockets, no Trio, quick to start."""

import json
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from helexa.control.paths import within_limit

CONNECT_SECONDS = 5.0


class NoDaemon(Exception):
    """Nobody answers; the message says where we looked and what to do."""


class Refused(Exception):
    """The daemon says no, in its own words."""


class Ended(Exception):
    """The daemon closed the connection before it was done."""


def ask(
    candidates: Sequence[Path], verb: str, args: dict[str, Any], seconds: float | None
) -> Iterator[Any]:
    """What the daemon tells, item by item; `seconds` bounds each wait, None waits for ever.

    Raises NoDaemon, Refused or Ended, and TimeoutError.
    """
    with connect(candidates) as sock:
        sock.settimeout(seconds)
        try:
            sock.sendall(json.dumps({"verb": verb, "args": args}).encode() + b"\n")
            with sock.makefile("rb") as lines:
                yield from items(lines)
        except (BrokenPipeError, ConnectionResetError):
            raise Ended("helexa closed the connection") from None


def items(lines: Any) -> Iterator[Any]:
    for line in lines:
        told = json.loads(line)
        if "error" in told:
            raise Refused(told["error"]["message"])
        if "end" in told:
            return
        yield told["item"]
    raise Ended("helexa ended before it had answered")


def connect(candidates: Sequence[Path]) -> socket.socket:
    """A connection to the first candidate that answers."""
    reasons = []
    for path in candidates:
        try:
            return connect_one(path)
        except PermissionError:
            reasons.append(f"{path}: permission denied; use sudo, or join the group helexa-admin")
        except FileNotFoundError:
            reasons.append(f"{path}: not there")
        except ConnectionRefusedError:
            reasons.append(f"{path}: nobody listens")
        except OSError as error:
            reasons.append(f"{path}: {error.strerror or error}")
    looked = "\n".join(f"  {reason}" for reason in reasons)
    raise NoDaemon(
        f"no helexa answers here:\n{looked}\n"
        "Start one (`helexa serve`, or `systemctl start helexa`), or name its socket with --socket."
    )


def connect_one(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(CONNECT_SECONDS)
        with within_limit(path) as address:
            sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock
