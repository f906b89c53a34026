"""The store's failures that differ in what happens next, and text from outside made showable."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helexa.errors import StoreError


class Unreachable(StoreError):
    """The network or its far end failed: what was already downloaded is kept for the next try."""


def plain(text: str) -> str:
    """`text` in one printable line of at most 400 characters, without a final full stop."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else "?" for c in line)[:400].rstrip(".")


@contextmanager
def told_in_words(subject: str, root: Path) -> Iterator[None]:
    """Turn an operating system's error over `subject` into a StoreError; `root` is the store's."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"The disk of {root} is full: {subject} needs more space.") from None
        where = f" ({error.filename})" if error.filename else ""
        reason = plain(error.strerror or str(error))
        raise StoreError(f"The store could not handle {subject}: {reason}{where}.") from None
