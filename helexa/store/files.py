"""Files on this machine: opened safely, linked instead of copied, hashed with progress."""

import hashlib
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from helexa.errors import StoreError
from helexa.replacing import flush
from helexa.store.progress import Progress

CHUNK = 4 << 20


def regular_file(path: Path, within: Path | None = None) -> Path:
    """`path` with symbolic links followed; StoreError if it is no regular file or leaves `within`.

    The one way out that is allowed is a hub cache's own: from `snapshots/X` into `blobs`.
    """
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError):
        raise StoreError(f"{path} cannot be read: it is missing or not accessible.") from None
    if not stat.S_ISREG(mode):
        raise StoreError(f"{path} is not a regular file.")
    if within is not None and not any(real.is_relative_to(home) for home in homes(within)):
        raise StoreError(f"{path} is a link that leads out of its directory; it is refused.")
    return real


def homes(directory: Path) -> list[Path]:
    real = directory.resolve()
    cache = [real.parent.parent / "blobs"] if real.parent.name == "snapshots" else []
    return [real, *cache]


def link(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`: by hard link, or by symbolic link across disks."""
    try:
        os.link(source, target)
    except OSError:
        target.symlink_to(source)


def private(path: str, flags: int) -> int:
    """An opener that makes files which their owner alone can read."""
    return os.open(path, flags, 0o600)


def stamp(path: Path) -> tuple[int, int]:
    """Size in bytes and time of change in ns: what tells cheaply whether a file is still the same."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def hash_files(files: Mapping[str, Path], progress: Progress) -> dict[str, str]:
    """The SHA-256 of each file, in hexadecimal."""
    total, done = sum(path.stat().st_size for path in files.values()), 0
    hashes = {}
    for name, path in files.items():
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                done += len(chunk)
                progress("verify", done, total)
        hashes[name] = digest.hexdigest()
    return hashes


def empty(directory: Path) -> Path:
    """`directory`, made anew with nothing in it, for its owner alone."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700, parents=True)
    return directory


def flush_tree(directory: Path) -> None:
    """Have everything below `directory`, and it, written to the disk."""
    for path in [*(p for p in directory.iterdir() if p.is_file()), directory]:
        flush(path)
