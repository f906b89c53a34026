"""Replacing a file in one step: whoever reads it finds the old one or the new one, whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file for its owner alone, which takes the place of `path` when the block ends.

    It is on disk then.  Where the block or the disk fails, `path` is what it was.
    """
    made = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)
    flush(path.parent)


def replace(path: Path, content: bytes) -> None:
    """Have `path` hold `content`, for its owner alone, and on disk when this returns."""
    with replacing(path) as file:
        file.write(content)


def flush(path: Path) -> None:
    """Have a file, or which names a directory has, written to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
