"""GGUF headers: sound ones are read, hostile ones are refused before they cost anything."""

import struct
import tracemalloc
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest
from gguf import GGUFReader
from hypothesis import given, settings
from hypothesis import strategies as st

from helexa.errors import StoreError
from helexa.store.gguf import GgufHeader, read_header

HUGE = 2**63


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


ARCHITECTURE = key("general.architecture", 8, text("llama"))


def tensor(name: str, shape: list[int], kind: int = 0, offset: int = 0) -> bytes:
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + dimensions + struct.pack("<IQ", kind, offset)


def file(
    keys: list[bytes],
    tensors: list[bytes] | None = None,
    data: int = 0,
    *,
    version: int = 3,
    key_count: int | None = None,
    tensor_count: int | None = None,
) -> bytes:
    tensors = tensors or []
    counts = (
        len(tensors) if tensor_count is None else tensor_count,
        len(keys) if key_count is None else key_count,
    )
    head = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(keys) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32 + data)


def read(data: bytes, keep: tuple[str, ...] = ()) -> GgufHeader:
    return read_header(BytesIO(data), len(data), "x.gguf", keep)


def test_a_real_writers_file_is_read_as_its_own_reader_reads_it(small_gguf: Path) -> None:
    tokens = "tokenizer.ggml.tokens"
    with small_gguf.open("rb") as stream:
        header = read_header(stream, small_gguf.stat().st_size, "toy", (tokens,))
    reader = GGUFReader(small_gguf)
    assert header.data_start == reader.data_offset
    assert [(t.name, t.shape, t.type, t.bytes) for t in header.tensors] == [
        (t.name, tuple(t.shape), t.tensor_type.name, t.n_bytes) for t in reader.tensors
    ]
    assert header.metadata[tokens] == reader.fields[tokens].contents()
    assert header.metadata["tokenizer.ggml.merges"] == 4
    assert header.architecture == "llama"
    del reader  # closes its memory map


def test_tensors_without_data_are_measured_and_counted() -> None:
    q4_1 = tensor("a", [64, 3], kind=3)
    header = read(file([ARCHITECTURE], [q4_1, tensor("b", [2], offset=128)], 136))
    assert [(t.name, t.type, t.bytes) for t in header.tensors] == [
        ("a", "Q4_1", 120),
        ("b", "F32", 8),
    ]
    assert header.elements == 194


HOSTILE = {
    "empty": b"",
    "another format": b"PK\3\4" + b"\0" * 60,
    "an unknown version": file([ARCHITECTURE], version=1),
    "a big-endian file": file([ARCHITECTURE], version=3 << 24),
    "too many keys": file([ARCHITECTURE], key_count=HUGE),
    "too many tensors": file([ARCHITECTURE], tensor_count=HUGE),
    "keys that are not there": file([ARCHITECTURE], key_count=60_000),
    "a key twice": file([ARCHITECTURE, ARCHITECTURE]),
    "a string beyond the file": file([text("k") + struct.pack("<IQ", 8, 1000)]),
    "a giant string": file([text("k") + struct.pack("<IQ", 8, HUGE)]),
    "a giant array": file([text("k") + struct.pack("<IIQ", 9, 10, HUGE)]),
    "a giant array of empty strings": file([text("k") + struct.pack("<IIQ", 9, 8, HUGE)]),
    "an array within an array": file([text("k") + struct.pack("<IIQ", 9, 9, 1)]),
    "an unknown type of value": file([key("k", 77, b"")]),
    "text that is not UTF-8": file([ARCHITECTURE, key("k", 8, text(b"\xff\xfe"))]),
    "no architecture": file([key("k", 4, b"\0\0\0\0")]),
    "an architecture that is a number": file([key("general.architecture", 4, b"\0\0\0\0")]),
    "an alignment that is none": file(
        [ARCHITECTURE, key("general.alignment", 4, struct.pack("<I", 7))]
    ),
    "an alignment that is a list": file(
        [ARCHITECTURE, key("general.alignment", 9, struct.pack("<IQI", 4, 1, 32))]
    ),
    "a tensor of no size": file([ARCHITECTURE], [tensor("a", [0])]),
    "a tensor without dimensions": file([ARCHITECTURE], [tensor("a", [])]),
    "a tensor of many dimensions": file([ARCHITECTURE], [tensor("a", [1] * 9)], 64),
    "a giant tensor": file([ARCHITECTURE], [tensor("a", [2**39, 2**39])], 64),
    "a row that is no whole block": file([ARCHITECTURE], [tensor("a", [33], kind=3)], 64),
    "a tensor beyond the end": file([ARCHITECTURE], [tensor("a", [64])], 64),
    "an offset beyond the end": file([ARCHITECTURE], [tensor("a", [1], offset=HUGE)], 64),
    "an unaligned offset": file([ARCHITECTURE], [tensor("a", [1], offset=4)], 64),
    "overlapping tensors": file(
        [ARCHITECTURE], [tensor("a", [16]), tensor("b", [16], offset=32)], 99
    ),
    "one tensor twice": file([ARCHITECTURE], [tensor("a", [1]), tensor("a", [1], offset=32)], 99),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_is_refused_in_words_and_in_little_memory(data: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(StoreError, match=r"^x\.gguf is not a sound GGUF file: it|its|the|there"):
        read(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 << 20


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_file_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    sound = file([ARCHITECTURE, key("a", 9, struct.pack("<IQ", 8, 2) + text("x") + text("y"))],
                 [tensor("t", [32], kind=3)], 64)  # fmt: skip
    broken = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(4, len(broken) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(broken)))
    with suppress(StoreError):
        read(bytes(broken[:cut]))
