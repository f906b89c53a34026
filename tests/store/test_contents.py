"""Files of a model are told from others by what they hold, and little of them is read for it."""

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.store.contents import PIECE, PLACES, contents, places
from helexa.store.record import RECORD


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(bytes(range(256)) * 1000)
    return tmp_path


def rewrite(file: Path, at: int) -> None:
    """Change one byte, and leave size and time of change as they are."""
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    with file.open("r+b") as opened:
        opened.seek(at)
        (before,) = opened.read(1)
        opened.seek(at)
        opened.write(bytes([before ^ 1]))
    os.utime(file, ns=times)


@pytest.mark.parametrize("at", [0, 1, 123_456, 255_999])
def test_a_small_file_is_read_whole(model: Path, at: int) -> None:
    before = contents(model)
    rewrite(model / "model.safetensors", at)
    after = contents(model)
    assert after.keys() == before.keys() == {"config.json", "model.safetensors"}
    assert after["config.json"] == before["config.json"]
    assert after["model.safetensors"] != before["model.safetensors"]


def test_a_change_of_the_configuration_is_one_of_the_model(model: Path) -> None:
    before = contents(model)
    (model / "config.json").write_text("[]")
    assert contents(model) != before


def test_when_and_where_files_were_written_and_what_lies_beside_them_is_nothing(
    model: Path,
) -> None:
    before = contents(model)
    os.utime(model / "model.safetensors", ns=(1, 1))
    (model / "last_used").touch()
    (model / "tokenizer.json").write_text("{}")
    (model / "packed").mkdir()
    assert contents(model) == before
    assert contents(model.rename(model.with_name("moved"))) == before


def test_what_the_store_recorded_counts(model: Path) -> None:
    before = contents(model)
    for digest in ("1", "2"):
        record = {"files": {"model.safetensors": {"sha256": digest}}}
        (model / RECORD).write_text(json.dumps(record))
        found = contents(model)
        assert found["config.json"] == before["config.json"]
        assert found["model.safetensors"] != before["model.safetensors"]
        before = found


def test_of_a_large_file_head_tail_and_places_between_are_read(tmp_path: Path) -> None:
    file, size = tmp_path / "model.gguf", 1 << 30
    with file.open("wb") as made:
        made.truncate(size)  # takes no room on the disk
    before = contents(tmp_path)
    for at in (0, size - 1, places(size, PLACES)[PLACES // 2] + PIECE // 2):
        rewrite(file, at)
        after = contents(tmp_path)
        assert after != before
        before = after


@given(st.integers(0, 1 << 40), st.integers(0, PLACES))
def test_places_lie_in_the_file_and_reach_from_its_head_to_its_tail(size: int, count: int) -> None:
    found = places(size, count)
    assert len(found) <= count + 2
    assert found == sorted(set(found))
    if size:
        assert found[0] == 0
        assert found[-1] < size <= found[-1] + PIECE
    if size <= (count + 2) * PIECE:
        assert all(b - a == PIECE for a, b in pairwise(found))
