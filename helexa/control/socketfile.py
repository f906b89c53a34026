"""The socket's file: made for its owner and one group, taken over only from the dead."""

import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from helexa import logs
from helexa.control.paths import within_limit
from helexa.errors import CannotBind

log = logs.get("helexa.control")

BACKLOG = 16


@asynccontextmanager
async def listening(path: Path, group: int | None) -> AsyncIterator[trio.SocketListener]:
    """A listener at `path`, mode 0660, that `group` may use; the file goes when it closes.

    Raises CannotBind in words, also where another process answers at `path`.
    """
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as sock:
        try:
            made = await bind(sock, path, group)
        except OSError as error:
            reason = error.strerror or str(error)
            raise CannotBind(
                f"the control socket {path} cannot be made: {reason}; "
                "[control] socket names another place"
            ) from None
        try:
            yield trio.SocketListener(sock)
        finally:
            remove(path, made)


async def bind(sock: trio.socket.SocketType, path: Path, group: int | None) -> os.stat_result:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    clear(path)
    # Linux takes the mode of a new socket file from the socket, so that it is never open wider.
    os.fchmod(sock.fileno(), 0o600)
    with within_limit(path) as address:
        await sock.bind(address)
    made = admit(path, group)
    sock.listen(BACKLOG)
    return made


def clear(path: Path) -> None:
    """Remove what a process that is gone left at `path`; CannotBind if it is anything else."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise CannotBind(f"{path} is there and is no socket: move it, or set [control] socket")
    if is_answered(path):
        raise CannotBind(f"another helexa answers at {path}: stop it, or set [control] socket")
    path.unlink()


def is_answered(path: Path) -> bool:
    """Whether somebody listens at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, within_limit(path) as address:
        probe.setblocking(False)
        try:
            probe.connect(address)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:
            return True  # its backlog is full
    return True


def admit(path: Path, group: int | None) -> os.stat_result:
    """Open the file to its owner and `group`; tells which file it is."""
    if group is not None:
        try:
            os.chown(path, -1, group)
        except PermissionError:
            log.warning("the control socket stays with its owner's group", group=group)
    path.chmod(0o660)
    return path.stat()


def remove(path: Path, made: os.stat_result) -> None:
    """Remove our own file, and not that of a process that came after us."""
    try:
        found = path.lstat()
        if (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino):
            path.unlink()
    except OSError:
        pass
