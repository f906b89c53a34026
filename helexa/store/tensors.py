"""Checking safetensors files by their headers, without reading a weight.

Format: https://huggingface.co/docs/safetensors/index#format
"""

import json
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from helexa.errors import StoreError

MAX_HEADER_BYTES = 100_000_000  # the format's own bound
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL"), 8),
    "F4": 4,
}


class Malformed(Exception):
    """The file breaks the format."""


def check_safetensors(path: Path) -> set[str]:
    """The names of its tensors; StoreError if the header does not describe exactly this file."""
    try:
        return check_header(read_header(path), path.stat().st_size)
    except Malformed as error:
        raise StoreError(f"{path.name} is not a sound safetensors file: {error}.") from None


def read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """The header's length in bytes, and its JSON."""
    with path.open("rb") as file:
        return parse_header(file, path.stat().st_size)


def parse_header(file: BinaryIO, size: int) -> tuple[int, dict[str, Any]]:
    """The same of a file of `size` bytes that is read forward only."""
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
        raise Malformed("its header is longer than the file, or than the format allows")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError):
        raise Malformed("its header is not JSON") from None
    if not isinstance(header, dict):
        raise Malformed("its header is not an object")
    return length, header


def check_header(read: tuple[int, dict[str, Any]], size: int) -> set[str]:
    length, header = read
    header.pop("__metadata__", None)
    spans = sorted((span(name, entry), name) for name, entry in header.items())
    end = 0
    for (start, stop), name in spans:
        if start != end:
            raise Malformed(f"there is a gap or an overlap before the tensor {name[:100]!r}")
        end = stop
    if 8 + length + end != size:
        raise Malformed("its tensors do not end where the file ends; it may be cut short")
    return set(header)


def span(name: str, entry: Any) -> tuple[int, int]:
    """Where a tensor's bytes start and end in the data section."""
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(stop)]}:
            whole = all(type(n) is int and 0 <= n < 1 << 48 for n in shape) and len(shape) <= 8
            known = whole and dtype in BITS and 0 <= start <= stop
            if known and prod(shape) * BITS[dtype] == (stop - start) * 8:
                return start, stop
    raise Malformed(f"the tensor {name[:100]!r} is not what its header says")
