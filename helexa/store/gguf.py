"""A strict, bounded reader of GGUF headers: a hostile file is refused before anything believes it.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian).
Only metadata is read.  Every count and length is checked against a bound and against the file's
size before it is used, so memory stays below a small multiple of the header's own bytes.
"""

import struct
from math import prod
from typing import Any, BinaryIO

from attrs import frozen

from helexa.errors import StoreError
from helexa.store.ggml import TYPES

MAX_HEADER_BYTES = 256 << 20
MAX_STRING_BYTES = 16 << 20
MAX_ENTRIES = 65_536  # metadata keys, and tensors
MAX_ARRAY = 4 << 20  # elements; vocabularies have up to about 300 000 tokens and as many merges
MAX_DIMENSIONS = 4

SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
STRING, ARRAY = 8, 9


@frozen
class GgufTensor:
    """One row of the tensor table; `offset` counts bytes from the start of the data section."""

    name: str
    shape: tuple[int, ...]  # fastest-moving dimension first, as in the file
    type: str  # "Q4_1", ... or "type 99" for an id that is not known
    offset: int
    bytes: int

    @property
    def elements(self) -> int:
        return prod(self.shape)


@frozen
class GgufHeader:
    """What a GGUF file says about itself.

    `metadata` holds every scalar and string, and numeric arrays; an array of strings is kept only
    as its length, except for the keys that `read_header` was asked to keep.
    """

    metadata: dict[str, Any]
    tensors: tuple[GgufTensor, ...]
    data_start: int

    @property
    def architecture(self) -> str:
        return str(self.metadata["general.architecture"])

    @property
    def elements(self) -> int:
        return sum(tensor.elements for tensor in self.tensors)


class Malformed(Exception):
    """The file breaks the format, or a bound."""


class Cursor:
    """Reads forward through `file`, never past `size` nor past the header's bound."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.position = file, 0
        self.end = min(size, MAX_HEADER_BYTES)

    def take(self, count: int) -> bytes:
        if count > self.end - self.position:
            raise Malformed("its header runs past the end of the file")
        data = self.file.read(count)
        if len(data) != count:
            raise Malformed("it ends inside its header")
        self.position += count
        return data

    def unpack(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0]

    def text(self, limit: int = MAX_STRING_BYTES) -> str:
        length = self.unpack("Q")
        if length > limit:
            raise Malformed(f"it holds a string of {length} bytes")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise Malformed("it holds a string that is not UTF-8") from None

    def skip_text(self) -> None:
        length = self.unpack("Q")
        if length > MAX_STRING_BYTES:
            raise Malformed(f"it holds a string of {length} bytes")
        self.take(length)


def read_header(file: BinaryIO, size: int, name: str, keep: tuple[str, ...] = ()) -> GgufHeader:
    """The header of a GGUF of `size` bytes; StoreError, naming it `name`, if it is not a sound one.

    `file` is read forward only, so it may be a stream over the network.
    """
    try:
        return parse(Cursor(file, size), size, keep)
    except Malformed as error:
        raise StoreError(f"{name} is not a sound GGUF file: {error}.") from None


def parse(cursor: Cursor, size: int, keep: tuple[str, ...]) -> GgufHeader:
    if size < 24 or cursor.take(4) != b"GGUF":
        raise Malformed("it does not start with the GGUF magic")
    version = cursor.unpack("I")
    if version not in (2, 3):
        raise Malformed(f"its format version is {version}, and only 2 and 3 are read")
    tensor_count = bounded(cursor.unpack("Q"), MAX_ENTRIES, "tensors")
    key_count = bounded(cursor.unpack("Q"), MAX_ENTRIES, "metadata keys")
    metadata = read_metadata(cursor, key_count, keep)
    if not isinstance(metadata.get("general.architecture"), str):
        raise Malformed("its metadata names no architecture")
    tensors = tuple(read_tensor(cursor) for _ in range(tensor_count))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment not in {1 << n for n in range(3, 21)}:
        raise Malformed("its alignment is not a power of two")
    data_start = -(-cursor.position // alignment) * alignment
    check_layout(tensors, alignment, size - data_start)
    return GgufHeader(metadata, tensors, data_start)


def bounded(count: int, limit: int, what: str) -> int:
    if count > limit:
        raise Malformed(f"it claims {count} {what}")
    return count


def read_metadata(cursor: Cursor, count: int, keep: tuple[str, ...]) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(count):
        key = cursor.text(limit=65_535)
        if key in metadata:
            raise Malformed(f"it holds the key {key[:100]!r} twice")
        metadata[key] = read_value(cursor, cursor.unpack("I"), key in keep)
    return metadata


def read_value(cursor: Cursor, kind: int, keep_strings: bool) -> Any:
    if kind in SCALARS:
        return cursor.unpack(SCALARS[kind])
    if kind == STRING:
        return cursor.text()
    if kind != ARRAY:
        raise Malformed(f"it holds a value of unknown type {kind}")
    element = cursor.unpack("I")
    count = bounded(cursor.unpack("Q"), MAX_ARRAY, "elements in one array")
    if element in SCALARS:
        form = SCALARS[element]
        data = cursor.take(count * struct.calcsize(f"<{form}"))
        return list(struct.unpack(f"<{count}{form}", data))
    if element != STRING:
        raise Malformed(f"it holds an array of type {element}")
    if keep_strings:
        return [cursor.text() for _ in range(count)]
    for _ in range(count):
        cursor.skip_text()
    return count


def read_tensor(cursor: Cursor) -> GgufTensor:
    name = cursor.text(limit=1024)
    dimensions = bounded(cursor.unpack("I"), MAX_DIMENSIONS, "dimensions of one tensor")
    shape = tuple(cursor.unpack("Q") for _ in range(dimensions))
    kind, offset = cursor.unpack("I"), cursor.unpack("Q")
    if not shape or any(not 0 < n < 1 << 40 for n in shape):
        raise Malformed(f"the tensor {name[:100]!r} has an impossible shape")
    if kind not in TYPES:
        return GgufTensor(name, shape, f"type {kind}", offset, 0)
    label, elements, block = TYPES[kind]
    if shape[0] % elements:
        raise Malformed(f"a row of the tensor {name[:100]!r} is not a whole number of blocks")
    return GgufTensor(name, shape, label, offset, prod(shape) // elements * block)


def check_layout(tensors: tuple[GgufTensor, ...], alignment: int, available: int) -> None:
    """Every tensor lies inside the file, on the alignment, and overlaps no other.

    That no two overlap bounds what a small file can grow to when it is dequantised.
    """
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise Malformed("it holds two tensors of one name")
    end = 0
    for tensor in sorted(tensors, key=lambda t: t.offset):
        if tensor.offset % alignment or tensor.offset < end:
            raise Malformed(f"the tensor {tensor.name[:100]!r} overlaps another or is misaligned")
        end = tensor.offset + tensor.bytes
    if end > available:
        raise Malformed("its tensors run past the end of the file; it may be cut short")
