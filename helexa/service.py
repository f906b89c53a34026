"""What a service owes to systemd: how it ended, and that it is ready, reloading, alive, stopping."""

import os
import resource
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from enum import IntEnum

import trio
from attrs import frozen

from helexa.errors import CannotBind, ConfigError, DevicePoisoned, GaveUp, StateInUse


class Exit(IntEnum):
    """The exit codes of `helexa`; units and scripts rely on them."""

    STOPPED = 0
    CRASHED = 1
    CONFIG = 2
    CANNOT_BIND = 3
    GAVE_UP = 4
    DEVICE_POISONED = 5
    STATE_IN_USE = 6


# In order: where several went wrong at once, the first of these says why the process ends.
CAUSES: tuple[tuple[type[BaseException], Exit], ...] = (
    (DevicePoisoned, Exit.DEVICE_POISONED),
    (StateInUse, Exit.STATE_IN_USE),
    (ConfigError, Exit.CONFIG),
    (CannotBind, Exit.CANNOT_BIND),
    (GaveUp, Exit.GAVE_UP),
)


# Beside connections: models that load, the state directory, the control socket, pipes to children.
OTHER_FILES = 64
NUM_LISTENERS = 3


def ending(error: BaseException) -> tuple[Exit, BaseException]:
    """The code for what left the root, and which error decides it: groups and causes are searched."""
    found = list(unwrap(error))
    for kind, code in CAUSES:
        for one in found:
            if isinstance(one, kind):
                return code, one
    is_stop = all(isinstance(one, KeyboardInterrupt) for one in found)
    return (Exit.STOPPED if is_stop else Exit.CRASHED), error


def unwrap(error: BaseException) -> Iterator[BaseException]:
    """The leaves of `error` and what they were raised from, each once: causes can run in a circle."""
    seen: set[int] = set()
    rest = [error]
    while rest:
        one = rest.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, BaseExceptionGroup):
            rest = [*one.exceptions, *rest]
            continue
        yield one
        if one.__cause__ is not None:
            rest.insert(0, one.__cause__)


def raise_file_limit() -> int:
    """Let this process open as many files as it is allowed to; how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # a kernel may allow less than the limit says
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft


def file_limit_warning(max_connections: int, max_files: int) -> str | None:
    """Why that many connections per listener cannot be had, if they cannot."""
    needed = NUM_LISTENERS * max_connections + OTHER_FILES
    if max_files == resource.RLIM_INFINITY or max_files >= needed:
        return None
    return (
        f"[limits] max_connections = {max_connections} may need {needed} open files, but this process "
        f"may open {max_files}: lower it, or raise the limit (ulimit -n, LimitNOFILE=)"
    )


@frozen
class Notifier:
    """sd_notify(3) to the socket that NOTIFY_SOCKET names; without one, and on errors, nothing."""

    address: str = ""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Notifier":
        return cls(environ.get("NOTIFY_SOCKET", ""))

    def ready(self, status: str = "") -> bool:
        """The listeners accept.  Also ends a reload.  `status` is shown by `systemctl status`."""
        return self.send("READY=1", *([f"STATUS={status}"] if status else []))

    def reloading(self) -> bool:
        return self.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, seconds: float) -> bool:
        """The drain has begun; ask for `seconds` before systemd kills us."""
        return self.send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def alive(self) -> bool:
        return self.send("WATCHDOG=1")

    def send(self, *lines: str) -> bool:
        """Send one datagram.  False if nobody listens or it did not go out; never waits."""
        if not self.address.startswith(("/", "@")):
            return False
        # A leading @ stands for the NUL byte of an abstract socket.
        address = "\0" + self.address[1:] if self.address[0] == "@" else self.address
        message = "\n".join(line.replace("\n", " ") for line in lines).encode()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                return sock.sendto(message, address) == len(message)
        except OSError:
            return False


def watchdog_seconds(environ: Mapping[str, str], pid: int | None = None) -> float | None:
    """How often to say that we are alive: half of what systemd allows; None if it does not ask us."""
    usec, for_pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not usec.isascii() or not usec.isdecimal() or int(usec) == 0:
        return None
    if for_pid and for_pid != str(pid or os.getpid()):
        return None
    return int(usec) / 2_000_000


async def keep_alive(
    notifier: Notifier,
    seconds: float,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Tell the watchdog every `seconds` for as long as Trio's loop turns."""
    notifier.alive()
    task_status.started()
    while True:
        await trio.sleep(seconds)
        notifier.alive()
