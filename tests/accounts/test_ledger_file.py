"""The ledger's file: who may open it, what is not one, and how its clock goes on."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.accounts.clock import resumed, since_boot, this_boot
from helexa.accounts.database import open_ledger
from helexa.accounts.rows import Batch, Event, Stamp
from helexa.accounts.tables import VERSIONS
from helexa.errors import ConfigError, StateInUse

STAMP = Stamp("boot", 100.0, 5000.0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A ledger with something in it, that nobody has open."""
    file = tmp_path / "ledger.sqlite"
    with open_ledger(file) as database:
        database.commit(Batch(events=(Event(1.0, "something"),), stamp=STAMP))
    return file


def test_a_second_process_does_not_get_the_ledger(file: Path) -> None:
    with open_ledger(file), pytest.raises(StateInUse, match="in use"), open_ledger(file):
        pass
    with open_ledger(file) as database:
        assert database.found.stamp == STAMP


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_ledger_that_others_may_open_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(ConfigError, match=f"mode {mode:04o}.*chmod 600"), open_ledger(file):
        pass


def test_everything_that_sqlite_keeps_is_private(file: Path) -> None:
    with open_ledger(file) as database:
        database.commit(Batch(stamp=STAMP))
        beside = sorted(file.parent.glob("ledger.sqlite*"))
        assert {path.name for path in beside} >= {"ledger.sqlite", "ledger.sqlite-wal"}
        assert all(path.stat().st_mode & 0o077 == 0 for path in beside)


def test_a_ledger_of_a_newer_helexa_is_left_alone(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"PRAGMA user_version = {len(VERSIONS) + 1}")
    before = file.read_bytes()
    with pytest.raises(ConfigError, match="newer helexa"), open_ledger(file):
        pass
    assert file.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 400])
def test_what_is_no_ledger_is_set_aside_and_never_taken_for_an_empty_one(
    file: Path, content: bytes
) -> None:
    file.write_bytes(content)
    with open_ledger(file) as database:
        aside = Path(database.found.set_aside)
    assert aside.read_bytes() == content
    assert aside.parent == file.parent


def test_a_directory_that_is_not_there_is_made_and_one_that_cannot_be_is_told(
    tmp_path: Path,
) -> None:
    with open_ledger(tmp_path / "a" / "b" / "ledger.sqlite"):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"), open_ledger(tmp_path / "file" / "x"):
        pass


def test_a_commit_is_all_or_nothing(file: Path) -> None:
    with open_ledger(file) as database:
        bad = Event(2.0, None)  # type: ignore[arg-type]
        with pytest.raises(sqlite3.IntegrityError):
            database.commit(Batch(events=(Event(2.0, "good"), bad), stamp=STAMP))
        assert database.read("SELECT kind FROM events") == [("something",)]


# -- the clock -----------------------------------------------------------------------------------------


def test_the_first_clock_goes_by_the_wall() -> None:
    assert resumed(None, "boot", lambda: 7.0, unix_time=1e9).seconds() == 1e9


@given(st.floats(0, 4e9), st.floats(0, 1e6))
def test_within_a_boot_no_jump_of_the_wall_clock_is_seen(unix_time: float, later: float) -> None:
    clock = resumed(STAMP, "boot", lambda: 100.0 + later, unix_time)
    assert clock.seconds() == pytest.approx(5000.0 + later)


@given(st.floats(0, 4e9))
def test_a_new_boot_never_goes_back(unix_time: float) -> None:
    clock = resumed(STAMP, "another", lambda: 3.0, unix_time)
    assert clock.seconds() == pytest.approx(max(5000.0, unix_time))
    assert clock.stamp() == Stamp("another", 3.0, clock.seconds())


def test_this_machine_tells_its_boot_and_how_long_ago_it_was() -> None:
    assert this_boot()
    assert since_boot() <= since_boot()
