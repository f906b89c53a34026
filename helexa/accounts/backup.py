"""A backup: one private archive of everything that is not fetched or computed again."""

import hashlib
import io
import json
import shutil
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from helexa import __version__
from helexa.accounts.database import Database, check_file
from helexa.errors import ConfigError
from helexa.replacing import replace

MANIFEST = "manifest.json"
FORMAT = 1
LEDGER, KEYS, DESIRED, CONFIG, CATALOGUE = (
    "ledger.sqlite",
    "keys.json",
    "desired.json",
    "helexa.toml",
    "models.toml",
)
NAMES = (LEDGER, KEYS, DESIRED, CONFIG, CATALOGUE)


@contextmanager
def archived(database: Database, files: Mapping[str, Path], directory: Path) -> Iterator[Path]:
    """An archive of the ledger and of `files` by their names, those that are there.

    It lies in `directory` while the block lasts.  Waits for the disk.
    """
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=directory) as made:
        folder = Path(made)
        database.copy_to(folder / LEDGER)
        for name, path in files.items():
            if path.exists():
                shutil.copyfile(path, folder / name)
        there = [name for name in NAMES if (folder / name).exists()]
        manifest = {
            "format": FORMAT,
            "helexa": __version__,
            "time": time.time(),
            "places": {name: str(path) for name, path in files.items()},
            "sha256": {name: digest(folder / name) for name in there},
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
        with tarfile.open(folder / "backup.tar", "w") as archive:
            for name in (MANIFEST, *there):
                archive.add(folder / name, name, filter=without_owner)
        yield folder / "backup.tar"


def without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- and back ----------------------------------------------------------------------------------------


@frozen
class Restored:
    """`kept` are files that were there already; what the backup has of them lies at `beside`."""

    made_at: float
    written: tuple[Path, ...]
    kept: tuple[Path, ...]
    beside: Path


def restore(
    archive: Path, state_dir: Path, ledger: Path, configuration: Mapping[str, Path]
) -> Restored:
    """Put keys, desired state and ledger in the place of those that are there, which are kept aside.

    Configuration and catalogue go where `configuration` says if nothing is there, else beside.  The
    caller holds the state directory.  ConfigError for what is no backup, or is damaged.
    """
    with tempfile.TemporaryDirectory(prefix=".restore-", dir=state_dir) as made:
        folder = Path(made)
        manifest = unpacked(archive, folder)
        check_file(folder / LEDGER)
        note_restored(folder / LEDGER, float(manifest["time"]))
        places = {LEDGER: ledger, KEYS: state_dir / KEYS, DESIRED: state_dir / DESIRED}
        written = [path for name, path in places.items() if put(folder / name, path)]
        beside, kept = state_dir / "restored", []
        for name, path in configuration.items():
            if not (folder / name).exists():
                continue
            if path.exists():
                if path.read_bytes() == (folder / name).read_bytes():
                    continue
                kept.append(path)
                beside.mkdir(mode=0o700, exist_ok=True)
                replace(beside / name, (folder / name).read_bytes())
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                replace(path, (folder / name).read_bytes())
                written.append(path)
        return Restored(float(manifest["time"]), tuple(written), tuple(kept), beside)


def unpacked(archive: Path, folder: Path) -> dict[str, Any]:
    """The files that we know, each as it was written; the manifest."""
    try:
        with tarfile.open(archive, "r:") as opened:
            read = opened.extractfile(MANIFEST)
            manifest: dict[str, Any] = json.load(read or io.BytesIO())
            check_format(manifest)
            for name in manifest["sha256"]:
                if name in NAMES:
                    unpack(opened, name, folder / name)
        wrong = [name for name, sum in manifest["sha256"].items() if digest(folder / name) != sum]
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError([f"{archive} is no backup of helexa, or is damaged: {error}"]) from None
    if wrong or LEDGER not in manifest["sha256"]:
        raise ConfigError([f"{archive} is damaged: {', '.join(wrong) or LEDGER}"])
    return manifest


def check_format(manifest: Mapping[str, Any]) -> None:
    if manifest["format"] != FORMAT:
        raise ValueError(f"it has format {manifest['format']}, and this helexa reads {FORMAT}")


def unpack(opened: tarfile.TarFile, name: str, path: Path) -> None:
    source = opened.extractfile(name)
    if source is None:
        raise ValueError(f"{name} is no file")
    with path.open("xb") as target:
        path.chmod(0o600)
        shutil.copyfileobj(source, target)


def put(source: Path, place: Path) -> bool:
    """Move `source` to `place`; what is there, and what SQLite keeps beside it, gets another name."""
    if not source.exists():
        return False
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = f"{place.name}.before-restore-{time.time_ns()}"
    for end in ("-wal", "-shm", ""):
        beside = place.with_name(place.name + end)
        if beside.exists():
            beside.rename(place.with_name(aside + end))
    shutil.move(source, place)
    return True


def note_restored(ledger: Path, made_at: float) -> None:
    """What was spent after the backup is not in it, and the audit says so."""
    text = f"from a backup of {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(made_at))} UTC"
    connection = sqlite3.connect(ledger)
    with connection:
        connection.execute(
            "INSERT INTO events (time, kind, account_id, key_id, request_id, text, count) "
            "VALUES (?, 'restored', '', '', '', ?, 1)",
            (time.time(), text),
        )
    connection.close()
