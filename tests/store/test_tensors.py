"""Safetensors headers: sound ones pass, others are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from helexa.errors import StoreError
from helexa.store.tensors import check_safetensors


def write(path: Path, header: Any, data: int = 0, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + text + b"\0" * data)
    return path


def one(**changes: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]} | changes}


def test_a_real_file_passes_and_names_its_tensors(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tensors = {
        "a": torch.zeros(2, 3),
        "b": torch.zeros(5, dtype=torch.bfloat16),
        "c": torch.zeros(()),
    }
    save_file(tensors, path, {"format": "pt"})
    assert check_safetensors(path) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        (one(), 23, None),
        (one(), 25, None),
        (one(dtype="F99"), 24, None),
        (one(shape=[2, 2]), 24, None),
        (one(shape=[-2, -3]), 24, None),
        (one(shape=[2, 3, True]), 24, None),
        (one(shape=[2**50, 0]), 0, None),
        (one(data_offsets=[0, 2**70]), 24, None),
        (one(data_offsets=[-24, 0]), 0, None),
        (one(data_offsets=[4, 28]), 28, None),
        (one() | {"b": {"dtype": "U8", "shape": [4], "data_offsets": [20, 24]}}, 24, None),
        ({"a": 7}, 0, None),
        ([], 0, None),
        (b"{", 0, None),
        (b"[" * 100_000, 0, None),
        (one(), 24, 2**62),
        (one(), 24, 1),
    ],
)
def test_a_header_that_does_not_describe_its_file_is_refused(
    tmp_path: Path, header: Any, data: int, length: int | None
) -> None:
    path = write(tmp_path / "x.safetensors", header, data, length)
    with pytest.raises(StoreError, match=r"x\.safetensors is not a sound safetensors file"):
        check_safetensors(path)


def test_a_file_shorter_than_its_first_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"\1\2")
    with pytest.raises(StoreError, match="sound"):
        check_safetensors(path)
