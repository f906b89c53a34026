"""A file that is replaced is the old one or the new one, whole, and its owner's alone."""

import stat
from pathlib import Path

import pytest

from helexa.replacing import replace, replacing


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file"


def alone(file: Path) -> bool:
    return [file] == list(file.parent.iterdir())


def test_a_file_is_made_and_replaced_for_its_owner_alone(file: Path) -> None:
    replace(file, b"one")
    replace(file, b"two")
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"two", 0o600)
    assert alone(file)


def test_what_breaks_off_leaves_the_old_file_and_nothing_beside_it(file: Path) -> None:
    replace(file, b"one")
    with pytest.raises(TypeError):
        replace(file, "not bytes")  # type: ignore[arg-type]
    assert file.read_bytes() == b"one"
    assert alone(file)


def test_nobody_sees_the_new_file_before_it_is_whole(file: Path) -> None:
    replace(file, b"one")
    with replacing(file) as new:
        new.write(b"two")
        assert file.read_bytes() == b"one"
    assert file.read_bytes() == b"two"
