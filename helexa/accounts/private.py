"""Files that nobody but their owner may see, and that one process has at a time."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helexa.errors import ConfigError, StateInUse


def check_private(path: Path) -> None:
    """ConfigError if the group or others may do anything with `path`."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigError(
            [f"{path} is open to others than its owner (mode {mode:04o}): chmod 600 {path}"]
        )


def make_private_file(path: Path) -> None:
    """An empty file for its owner alone, if there is none yet; ConfigError if that cannot be."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise ConfigError([f"{path} cannot be used: {error.strerror}"]) from None


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Have the lock file `path` until the block ends, or the process; StateInUse if another has it."""
    make_private_file(path)
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        in_use = (
            f"{path.with_suffix('')} is in use by another process: stop it, or name another file"
        )
        raise StateInUse(in_use) from None
