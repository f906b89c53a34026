"""The format of a directory that outlives the process: a version in a file of it, and the way to ours."""

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from helexa import logs
from helexa.replacing import replace

log = logs.get("helexa.formats")

# version N -> what turns a directory of version N into one of version N + 1
Migrations = Mapping[int, Callable[[Path], None]]


class WrongFormat(Exception):
    """What is wrong, to be said after the directory's name."""


def bring_to_format(
    file: Path, wanted: int, migrations: Migrations, small: Callable[[Path], Iterable[Path]]
) -> None:
    """Migrate the directory of `file`, in which its version stands, to the format `wanted`.

    Before each step the files that `small` names are copied to `backup/format-N`.  Raises WrongFormat,
    also for a directory of a newer helexa; OSError.
    """
    if not file.exists():
        replace(file, f"{wanted}\n".encode())
        return
    found, directory = version_in(file), file.parent
    if found > wanted:
        raise WrongFormat(
            f"was written by a newer helexa (format {found}, and this one reads up to {wanted}): "
            "upgrade helexa"
        )
    for version in range(found, wanted):
        if version not in migrations:
            raise WrongFormat(f"has format {version}, which is too old to read")
        copy_or_restore(directory, version, small)
        migrations[version](directory)
        replace(file, f"{version + 1}\n".encode())
        log.info("migrated", directory=str(directory), format=version + 1)


def version_in(file: Path) -> int:
    text = file.read_text(errors="replace")[:20].strip()
    if not (text.isascii() and text.isdecimal()):
        raise WrongFormat(f"has no format version in {file.name}, but {text!r}")
    return int(text)


def copy_or_restore(directory: Path, version: int, small: Callable[[Path], Iterable[Path]]) -> None:
    """Copy what a migration may rewrite; if one was interrupted, begin again from the copy."""
    backup = directory / "backup" / f"format-{version}"
    if backup.exists():
        shutil.copytree(backup, directory, dirs_exist_ok=True)
        return
    unfinished = backup.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700, parents=True)
    for file in small(directory):
        copy = unfinished / file.relative_to(directory)
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy2(file, copy)
    unfinished.rename(backup)
