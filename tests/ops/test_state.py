"""The state directory: one holder, private files, a format that moves forward only."""

import stat
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from helexa.desired import Desired
from helexa.errors import ConfigError, StateInUse
from helexa.state import DesiredModels, StateDir, open_state

HOLD = """
import sys
from collections.abc import Callable
from pathlib import Path
from helexa.state import open_state
with open_state(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "state"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_directory_is_made_for_its_owner_alone(path: Path) -> None:
    with open_state(path):
        assert mode(path) == 0o700
        assert (path / "format").read_text() == "1\n"
        assert {mode(file) for file in path.iterdir()} == {0o600}


def test_an_empty_directory_or_one_of_ours_is_closed_to_others(path: Path) -> None:
    path.mkdir(parents=True, mode=0o755)
    with open_state(path):
        assert mode(path) == 0o700
    path.chmod(0o755)
    with open_state(path):
        assert mode(path) == 0o700


def test_a_directory_that_holds_other_things_keeps_its_mode(path: Path) -> None:
    path.mkdir(parents=True)
    path.chmod(0o755)
    (path / "thesis.tex").touch()
    with open_state(path):
        assert mode(path) == 0o755


def test_a_second_process_is_refused_with_the_pid_of_the_first(path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StateInUse, match=f"in use by process {holder.pid}"), open_state(path):
            pass
        holder.kill()
    with open_state(path):
        pass  # the lock went with its holder


def test_a_directory_that_cannot_be_made_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "state"
    with pytest.raises(ConfigError, match="cannot be used: File exists"), open_state(path):
        pass


# -- format ------------------------------------------------------------------------------------------


def test_a_newer_format_is_refused_in_words_and_left_alone(path: Path) -> None:
    with open_state(path, wanted=3):
        pass
    with pytest.raises(ConfigError, match="written by a newer helexa"), open_state(path, wanted=2):
        pass
    assert (path / "format").read_text() == "3\n"


@pytest.mark.parametrize("text", ["", "x", "-1", "²", "\x00"])
def test_a_format_that_is_no_number_is_refused(path: Path, text: str) -> None:
    path.mkdir(parents=True)
    (path / "format").write_text(text)
    with pytest.raises(ConfigError, match="has no format version"), open_state(path):
        pass


def test_an_older_format_is_migrated_step_by_step_after_a_copy(path: Path) -> None:
    with open_state(path, wanted=1):
        (path / "desired.json").write_text("one")

    def migrate_to(text: str) -> None:
        def migrate(directory: Path) -> None:
            (directory / "desired.json").write_text(text)

        migrations[len(migrations) + 1] = migrate

    migrations: dict[int, Callable[[Path], None]] = {}
    migrate_to("two")
    migrate_to("three")
    with open_state(path, 3, migrations):
        assert (path / "desired.json").read_text() == "three"
        assert (path / "format").read_text() == "3\n"
        copies = [(path / f"backup/format-{n}/desired.json").read_text() for n in (1, 2)]
        assert copies == ["one", "two"]


def test_an_interrupted_migration_begins_again_from_the_copy(path: Path) -> None:
    with open_state(path, wanted=1):
        (path / "desired.json").write_text("one")
    tries: list[str] = []

    def migrate(directory: Path) -> None:
        file = directory / "desired.json"
        tries.append(file.read_text())
        file.write_text("half")
        if len(tries) == 1:
            raise InterruptedError(4, "power cut")
        file.write_text("two")

    with pytest.raises(ConfigError, match="power cut"), open_state(path, 2, {1: migrate}):
        pass
    with open_state(path, 2, {1: migrate}):
        assert (path / "desired.json").read_text() == "two"
    assert tries == ["one", "one"]


def test_a_format_without_a_way_forward_is_refused(path: Path) -> None:
    with open_state(path, wanted=1):
        pass
    with pytest.raises(ConfigError, match="too old to read"), open_state(path, 2, {}):
        pass


# -- desired state -----------------------------------------------------------------------------------


def test_what_is_written_is_read_back(path: Path) -> None:
    with open_state(path) as state:
        assert state.read_desired() is None
        desired = Desired().loading("a", "hf:o/a", ("GPU-1",)).loaded("a").loading("b")
        state.write_desired(desired)
        assert state.read_desired() == desired
        assert mode(path / "desired.json") == 0o600


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"models": 5}', '{"models": [{"id": 5}]}', "[" * 100_000, "\xff"]
)
def test_an_unreadable_file_is_put_aside_and_the_start_goes_on(path: Path, text: str) -> None:
    with open_state(path) as state:
        (path / "desired.json").write_text(text, encoding="latin-1")
        assert state.read_desired() is None
        assert (path / "desired.unreadable").read_text(encoding="latin-1") == text


NOTHING = Desired()


@asynccontextmanager
async def writing(
    path: Path, found: Desired | None = None, value: Desired = NOTHING
) -> AsyncGenerator[DesiredModels, None]:
    """The desired state with its writer, on a directory that is held."""
    with open_state(path) as state:
        models = DesiredModels(state, found, value)
        async with trio.open_nursery() as nursery:
            await nursery.start(models.run)
            yield models
            nursery.cancel_scope.cancel()


def on_disk(path: Path) -> Desired | None:
    return StateDir(path).read_desired()


async def test_every_change_is_on_disk_once_it_is_saved(path: Path) -> None:
    async with writing(path) as models:
        models.loading("a")
        await models.saved()
        assert on_disk(path) == Desired().loading("a")
        models.loaded("a")
        await models.saved()
        assert on_disk(path) == Desired().loading("a").loaded("a")
        models.failed("a")
        models.gone("a")
        await models.saved()
        assert on_disk(path) == Desired()


async def test_changes_that_nobody_waits_for_reach_the_disk_in_order(path: Path) -> None:
    async with writing(path) as models:
        for number in range(20):
            models.loaded(f"model-{number}")
        models.gone("model-7")
    saved = on_disk(path)
    assert saved == models.value
    assert saved is not None
    assert len(saved.models) == 19


async def test_a_process_that_stops_in_order_leaves_no_mark(path: Path) -> None:
    async with writing(path) as models:
        models.loaded("a")
        models.loading("b")
        models.stopped()
        assert on_disk(path) == Desired().loaded("a").loaded("b")


async def test_what_a_dead_process_left_loading_is_counted_on_disk_at_the_start(
    path: Path,
) -> None:
    found = Desired().loading("a")
    async with writing(path, found, found.started()) as models:
        await models.saved()
        assert on_disk(path) == found.started()


async def test_a_process_that_never_had_a_model_leaves_nothing_behind(path: Path) -> None:
    async with writing(path) as models:
        models.stopped()
        assert on_disk(path) is None
        models.loaded("a")
        await models.saved()
        models.gone("a")
        models.stopped()
        assert on_disk(path) == Desired()


async def test_a_disk_that_fails_stops_nobody(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(StateDir, "write_desired", full)
    async with writing(path) as models:
        models.loading("a")
        await models.saved()
    assert "desired state not saved" in caplog.text


async def test_a_change_there_and_back_during_a_write_reaches_the_disk(path: Path) -> None:
    async with writing(path) as models:
        models.loading("a")
        await trio.lowlevel.checkpoint()
        models.loaded("a")
        models.gone("a")
        models.loading("a")
        await models.saved()
        assert on_disk(path) == models.value
