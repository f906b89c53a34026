"""The store's directory: where things lie in it, its format version, its locks.

```
version               the format of everything below, a whole number
pins.json             source -> the commit and hashes of its first add
models/NAME/          one finished model, put there by a single rename
partial/NAME/         a model in the making; `download` in it survives an interruption
locks/NAME.lock       held (flock) by whoever adds or removes NAME
backup/vN/            the small files as they were before a migration from version N
```
"""

import fcntl
import os
import pwd
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from helexa.errors import StoreError

FORMAT = 1
# version N -> what turns a store of version N into one of version N + 1
MIGRATIONS: Mapping[int, Callable[[Path], None]] = {}


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
    migrations: Mapping[int, Callable[[Path], None]] = MIGRATIONS,
) -> Layout:
    """The store at `root`, made if absent and migrated if older; StoreError if it is newer."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_owner(root, os.geteuid())
        for directory in (root / "locks", root / "models", root / "partial"):
            directory.mkdir(mode=0o700, exist_ok=True)
        with locked(root, "format"):
            bring_to_version(root, wanted, migrations)
    except OSError as error:
        raise StoreError(f"The model store {root} cannot be opened: {error.strerror}.") from None
    return Layout(root)


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


def bring_to_version(
    root: Path, wanted: int, migrations: Mapping[int, Callable[[Path], None]]
) -> None:
    file = root / "version"
    if not file.exists():
        write_private(file, f"{wanted}\n")
        return
    text = file.read_text()[:20].strip()
    if not text.isdecimal():
        raise StoreError(f"The model store {root} has an unreadable format version ({text!r}).")
    found = int(text)
    if found > wanted:
        raise StoreError(
            f"The model store {root} has format {found}, and this helexa reads up to {wanted}: "
            "upgrade helexa or name another [store] dir."
        )
    for version in range(found, wanted):
        if version not in migrations:
            raise StoreError(f"The model store {root} has format {version}, which is too old.")
        back_up(root, version)
        migrations[version](root)
        write_private(file, f"{version + 1}\n")


def back_up(root: Path, version: int) -> None:
    """Copy what a migration may rewrite: everything small.  Weights never change."""
    backup = root / "backup" / f"v{version}"
    shutil.rmtree(backup, ignore_errors=True)
    backup.mkdir(mode=0o700, parents=True)
    for file in [*root.glob("*"), *root.glob("models/*/helexa.json")]:
        if file.is_file():
            target = backup / file.relative_to(root)
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.copy2(file, target)


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


def write_private(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step, readable by its owner alone, and on disk when done."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
