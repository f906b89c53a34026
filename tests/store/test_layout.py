"""The store's directory: made private, versioned, migrated after a copy, locked."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from helexa.errors import StoreError
from helexa.replacing import replace
from helexa.store.layout import (
    FORMAT,
    check_owner,
    locked,
    locked_if_free,
    open_layout,
    user_name,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_store_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        layout = open_layout(tmp_path / "a" / "store")
    finally:
        os.umask(previous)
    directories = [layout.root, layout.models, layout.partials, layout.root / "locks"]
    assert {mode(path) for path in directories} == {0o700}
    assert {mode(path) for path in layout.root.rglob("*") if path.is_file()} == {0o600}
    assert (layout.root / "version").read_text() == f"{FORMAT}\n"


def test_an_existing_store_is_opened_as_it_is(tmp_path: Path) -> None:
    open_layout(tmp_path)
    (tmp_path / "models" / "m").mkdir()
    assert open_layout(tmp_path).model("m").is_dir()


def test_a_newer_store_is_refused_in_words(tmp_path: Path) -> None:
    open_layout(tmp_path)
    (tmp_path / "version").write_text(f"{FORMAT + 1}\n")
    with pytest.raises(StoreError, match="upgrade helexa"):
        open_layout(tmp_path)


def test_an_unreadable_version_is_refused_in_words(tmp_path: Path) -> None:
    open_layout(tmp_path)
    (tmp_path / "version").write_text("two")
    with pytest.raises(StoreError, match="no format version"):
        open_layout(tmp_path)


def test_an_older_store_is_migrated_step_by_step_after_a_copy(tmp_path: Path) -> None:
    open_layout(tmp_path)
    model = tmp_path / "models" / "m"
    model.mkdir()
    (model / "helexa.json").write_text('{"old": 1}')
    (model / "model.safetensors").write_bytes(b"weights")

    def first(root: Path) -> None:
        (root / "models" / "m" / "helexa.json").write_text('{"new": 1}')

    def second(root: Path) -> None:
        assert json.loads((root / "models" / "m" / "helexa.json").read_text()) == {"new": 1}
        replace(root / "pins.json", b"{}")

    open_layout(tmp_path, wanted=FORMAT + 2, migrations={FORMAT: first, FORMAT + 1: second})
    assert (tmp_path / "version").read_text() == f"{FORMAT + 2}\n"
    backup = tmp_path / "backup" / f"format-{FORMAT}"
    assert (backup / "models" / "m" / "helexa.json").read_text() == '{"old": 1}'
    assert (backup / "version").read_text() == f"{FORMAT}\n"
    assert not list(backup.rglob("*.safetensors"))


def test_a_migration_that_fails_leaves_the_old_version_and_the_copy(tmp_path: Path) -> None:
    open_layout(tmp_path)

    def broken(root: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="No space left"):
        open_layout(tmp_path, wanted=FORMAT + 1, migrations={FORMAT: broken})
    assert (tmp_path / "version").read_text() == f"{FORMAT}\n"


def test_a_store_too_old_to_migrate_is_refused_in_words(tmp_path: Path) -> None:
    open_layout(tmp_path)
    (tmp_path / "version").write_text("0\n")
    with pytest.raises(StoreError, match="too old"):
        open_layout(tmp_path)


def test_a_root_that_cannot_be_made_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be opened: Not a directory"):
        open_layout(tmp_path / "file" / "store")


def test_another_users_store_is_not_spoilt_by_root(tmp_path: Path) -> None:
    check_owner(tmp_path, os.geteuid() + 1)  # no store yet
    open_layout(tmp_path)
    check_owner(tmp_path, os.geteuid())
    with pytest.raises(StoreError, match=r"belongs to the user .*: run this as that user"):
        check_owner(tmp_path, os.geteuid() + 1)


def test_a_user_without_a_name_is_told_by_number() -> None:
    assert user_name(0) == "root"
    assert user_name(4_000_000_000) == "#4000000000"


HOLD = """
import sys
from pathlib import Path
from helexa.store.layout import locked
with locked(Path(sys.argv[1]), "m"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_holds_against_another_process_until_that_ends(tmp_path: Path) -> None:
    open_layout(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with locked_if_free(tmp_path, "m") as free:
            assert not free
        with locked_if_free(tmp_path, "another") as free:
            assert free
        told = []

        def waiting() -> None:
            told.append("waiting")
            other.kill()

        with locked(tmp_path, "m", waiting):
            assert told == ["waiting"]
