"""The state directory: held by one process at a time, versioned, and home of the desired state.

```
lock            held (flock) by the process that uses the directory, whose id is in it
format          the version of everything below, a whole number
desired.json    which models come back after a restart
learned.json    how fast models read, and what bounded their contexts last
requests.jsonl  the last requests (`helexa.records`)
captures/       what `helexa-ctl capture` wrote (`helexa.capture`)
backup/         the small files as they were before a migration
```
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import attrs
import trio
from attrs import define, field

from helexa import logs
from helexa.config.structure import Mistakes, structure
from helexa.desired import Desired
from helexa.errors import ConfigError, StateInUse
from helexa.fleet.lessons import Lessons
from helexa.formats import Migrations, WrongFormat, bring_to_format
from helexa.replacing import replace

T = TypeVar("T")

log = logs.get("helexa.state")

FORMAT = 1
MIGRATIONS: Migrations = {}


@define(eq=False)
class StateDir:
    """The directory while this process holds it."""

    path: Path

    def read_desired(self) -> Desired | None:
        """What the last process left; None if none did.  An unreadable file is put aside."""
        return self._read("desired.json", Desired)

    def write_desired(self, desired: Desired) -> None:
        """On disk when this returns; waits for the disk."""
        text = json.dumps(attrs.asdict(desired), indent=1)
        replace(self.path / "desired.json", text.encode())

    def read_lessons(self) -> Lessons:
        """What the last process learned of its models."""
        return self._read("learned.json", Lessons) or Lessons()

    def write_lessons(self, lessons: Lessons) -> None:
        """On disk when this returns; waits for the disk."""
        known = attrs.asdict(lessons, filter=lambda _, value: value is not None)
        text = json.dumps(known, indent=1)
        replace(self.path / "learned.json", text.encode())

    def _read(self, name: str, kind: type[T]) -> T | None:
        """None if the file is not there; one that cannot be read is put aside."""
        file = self.path / name
        try:
            return structure(json.loads(file.read_bytes()), kind)
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError, Mistakes):
            aside = file.with_suffix(".unreadable")
            file.replace(aside)
            log.error("state is unreadable, starting without", file=name, kept_as=str(aside))
            return None


@define(eq=False)
class DesiredModels:
    """The desired state of this process and its only writer.

    A transition is made at once and in order; `run` writes the newest value in a thread, and `saved`
    waits until what is true now was written.  A disk that fails is logged and stops nobody.
    """

    state: StateDir
    found: Desired | None  # what the last process left on disk
    value: Desired
    _tried: Desired | None = field(init=False)  # written last, or not needed; None during a write
    _changed: trio.Event = field(factory=trio.Event, init=False)
    _wrote: trio.Event = field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self._tried = self.value if self.found is None else self.found
        self._change(self.value)

    def loading(
        self, model: str, source: str = "", devices: tuple[str, ...] = (), *, asked: bool = False
    ) -> None:
        self._change(self.value.loading(model, source, devices, asked=asked))

    def loaded(self, model: str) -> None:
        self._change(self.value.loaded(model))

    def failed(self, model: str) -> None:
        self._change(self.value.failed(model))

    def gone(self, model: str) -> None:
        self._change(self.value.gone(model))

    async def saved(self) -> None:
        while self._tried != self.value:
            await self._wrote.wait()

    def stopped(self) -> None:
        """The process ends in order: loads in hand are not held against their models."""
        self._change(self.value.stopped())
        self._write_last()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what changes until cancelled; then what changed last."""
        task_status.started()
        try:
            while True:
                await self._changed.wait()
                self._changed = trio.Event()
                value, self._tried = self.value, None
                with trio.CancelScope(shield=True):  # two writers would mix up their order
                    await trio.to_thread.run_sync(self._write, value)
                self._tried = value
                self._wrote.set()
                self._wrote = trio.Event()
        finally:
            self._write_last()

    def _change(self, value: Desired) -> None:
        self.value = value
        if value != self._tried:
            self._changed.set()

    def _write_last(self) -> None:
        if self.value != self._tried:
            self._tried = self.value
            self._write(self.value)

    def _write(self, value: Desired) -> None:
        try:
            self.state.write_desired(value)
        except OSError as error:
            log.error("desired state not saved", reason=error.strerror)


# -- the directory itself ----------------------------------------------------------------------------


@contextmanager
def open_state(
    path: Path,
    wanted: int = FORMAT,
    migrations: Migrations = MIGRATIONS,
) -> Iterator[StateDir]:
    """Hold the state directory at `path`, made if absent and migrated if older.

    Raises StateInUse if another process holds it, ConfigError if it cannot be used.
    """
    with told_in_words(path):
        make_private(path)
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with told_in_words(path):
            hold(descriptor, path)
            bring_to_format(path / "format", wanted, migrations, small_files)
        yield StateDir(path)
    finally:
        os.close(descriptor)


@contextmanager
def told_in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, WrongFormat) as error:
        reason = f"cannot be used: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise ConfigError([f"server.state_dir: the state directory {path} {reason}"]) from None


def make_private(path: Path) -> None:
    """Make `path` for its owner alone.  One that others filled keeps its mode; our files have theirs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    is_ours = (path / "format").exists() or not any(path.iterdir())
    if is_ours and path.stat().st_mode & 0o077:
        path.chmod(0o700)


def hold(descriptor: int, path: Path) -> None:
    """Take the lock until the descriptor is closed, which the end of the process does too."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
        holder = f"process {pid}" if pid.isdecimal() else "another process"
        raise StateInUse(
            f"the state directory {path} is in use by {holder}: stop it, or set server.state_dir"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def small_files(path: Path) -> list[Path]:
    return [file for file in path.iterdir() if file.is_file() and file.name != "lock"]
