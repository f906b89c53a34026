"""The store's directory: where things lie in it, its format version, its locks.

```
version               the format of everything below, a whole number
pins.json             source -> the commit and hashes of its first add
models/NAME/          one finished model, put there by a single rename
partial/NAME/         a model in the making; `download` in it survives an interruption
locks/NAME.lock       held (flock) by whoever adds or removes NAME
backup/format-N/      the small files as they were before a migration from version N
```
"""

import fcntl
import os
import pwd
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from helexa.errors import StoreError
from helexa.formats import Migrations, WrongFormat, bring_to_format

FORMAT = 1
MIGRATIONS: Migrations = {}


@frozen
class Layout:
    """The paths of one store."""

    root: Path

    @property
    def pins(self) -> Path:
        return self.root / "pins.json"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def partials(self) -> Path:
        return self.root / "partial"

    def model(self, name: str) -> Path:
        return self.models / name

    def partial(self, name: str) -> Path:
        return self.partials / name


def open_layout(
    root: Path,
    wanted: int = FORMAT,
    migrations: Migrations = MIGRATIONS,
) -> Layout:
    """The store at `root`, made if absent and migrated if older; StoreError if it is newer."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_owner(root, os.geteuid())
        for directory in (root / "locks", root / "models", root / "partial"):
            directory.mkdir(mode=0o700, exist_ok=True)
        with locked(root, "format"):
            bring_to_format(root / "version", wanted, migrations, small_files)
    except OSError as error:
        raise StoreError(f"The model store {root} cannot be opened: {error.strerror}.") from None
    except WrongFormat as wrong:
        raise StoreError(f"The model store {root} {wrong}.") from None
    return Layout(root)


def small_files(root: Path) -> list[Path]:
    """Weights never change."""
    return [
        file for file in (*root.glob("*"), *root.glob("models/*/helexa.json")) if file.is_file()
    ]


def check_owner(root: Path, user: int) -> None:
    """StoreError if another user's store is opened, as by sudo: that user could not use it any more."""
    owner = root.stat().st_uid
    if (root / "version").exists() and owner != user:
        raise StoreError(
            f"The model store {root} belongs to the user {user_name(owner)}: "
            f"run this as that user (sudo -u {user_name(owner)} ...)."
        )


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


@contextmanager
def locked(root: Path, name: str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock `name` against every other thread and process; `waiting` is called if it is held."""
    with lock_file(root, name) as descriptor:
        if not taken(descriptor):
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def locked_if_free(root: Path, name: str) -> Iterator[bool]:
    """Hold the lock `name` if nobody does; yields whether it is held."""
    with lock_file(root, name) as descriptor:
        yield taken(descriptor)


@contextmanager
def lock_file(root: Path, name: str) -> Iterator[int]:
    """A descriptor of its own, so that the lock also holds between threads; closing it unlocks."""
    path = root / "locks" / f"{name}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
