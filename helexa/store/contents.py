"""What tells a model's files from others with the same names, without reading all of them."""

import hashlib
from pathlib import Path

from helexa.store.checkpoint import CONFIG, INDEX
from helexa.store.record import RECORD, read_object

PIECE = 64 << 10  # bytes that are looked at in one place
PLACES = 64  # in all files of a model together, beside the head and the tail of each


def contents(directory: Path) -> dict[str, str]:
    """By the name of each file that says how the model computes, what it holds.

    That is the SHA-256 that the store recorded, if it has one, and a hash over the size and over pieces of
    the file as it is now: one that was written anew is noticed though its time of change be set back.
    """
    files = [path for path in sorted(directory.iterdir()) if counts(path)]
    recorded = recorded_hashes(directory)
    total = sum(path.stat().st_size for path in files)
    return {path.name: f"{recorded.get(path.name, '')} {sampled(path, total)}" for path in files}


def counts(path: Path) -> bool:
    is_weights = path.suffix in (".safetensors", ".gguf")
    return (is_weights or path.name in (CONFIG, INDEX)) and path.is_file()


def recorded_hashes(directory: Path) -> dict[str, str]:
    """By the name of each file; none in a directory that is no model of the store."""
    if not (directory / RECORD).is_file():
        return {}
    files = read_object(directory / RECORD)["files"]
    return {name: file["sha256"] for name, file in files.items()}


def sampled(path: Path, total: int) -> str:
    """A hash over a file of a model of `total` bytes: over all of a small one."""
    with path.open("rb") as file:
        size = path.stat().st_size
        digest = hashlib.sha256(str(size).encode())
        for start in places(size, PLACES * size // max(total, 1)):
            file.seek(start)
            digest.update(file.read(PIECE))
    return digest.hexdigest()


def places(size: int, count: int) -> list[int]:
    """Where pieces begin: head and tail, and `count` at even distances between; without gaps if small."""
    if size <= (count + 2) * PIECE:
        return list(range(0, size, PIECE))
    return [i * (size - PIECE) // (count + 1) for i in range(count + 2)]
