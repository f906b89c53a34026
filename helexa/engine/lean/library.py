"""The compiled kernels of `native.cpp`, made once for a machine and kept in the user's cache.

They need a C++ compiler and a CPU with AVX2.  No compiled file of another machine is used: its name tells
the source, the compiler's options and the CPU.
"""

import ctypes
import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Collection, Generator, Sequence
from pathlib import Path

import torch

from helexa import logs
from helexa.devices.host import ROOT, cpu_flags, cxx_compiler, multiplies_packed

SOURCE = Path(__file__).with_name("native.cpp")
OPTIONS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
COMPILE_SECONDS = 120
LOOK_SECONDS = 0.01  # between two looks at the compiler

log = logs.get("helexa.engine")


class Weight(ctypes.Structure):
    """As `native.cpp` has it."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("rows", ctypes.c_long),
        ("columns", ctypes.c_long),
        ("planes", ctypes.c_long),
    )


class Layer(ctypes.Structure):
    """As `native.cpp` has it."""

    _fields_ = (
        ("before_attention", ctypes.c_void_p),
        ("before_mlp", ctypes.c_void_p),
        ("query_norm", ctypes.c_void_p),
        ("key_norm", ctypes.c_void_p),
        ("input", Weight),
        ("output", Weight),
        ("gate", Weight),
        ("down", Weight),
        ("heads", ctypes.c_long),
        ("groups", ctypes.c_long),
        ("dim", ctypes.c_long),
        ("epsilon", ctypes.c_float),
        ("head_epsilon", ctypes.c_float),
        ("scaling", ctypes.c_float),
    )


POINTER, NUMBER = ctypes.c_void_p, ctypes.c_long
ARGUMENTS = {
    "pack": (POINTER, POINTER, POINTER, NUMBER, NUMBER, POINTER),
    "before": (POINTER, POINTER, NUMBER, POINTER, POINTER, POINTER),
    "attend": (POINTER, POINTER, POINTER, POINTER, NUMBER, POINTER, NUMBER, POINTER),
    "after": (POINTER, POINTER, POINTER, NUMBER),
    "logits": (POINTER, POINTER, ctypes.c_float, POINTER, NUMBER, POINTER),
}


def library() -> ctypes.CDLL | None:
    """The kernels, if they are compiled here (`compiling`)."""
    flags, directory = cpu_flags(ROOT), cache_directory()
    path = path_in(directory, flags)
    if not (multiplies_packed() and path.is_file() and is_own(directory)):
        return None
    try:
        return bound(ctypes.CDLL(str(path)))
    except OSError as error:
        log.warning("packed layers run uncompiled", reason=str(error))
        return None


def compiling() -> Generator[None, None, None]:
    """Make the kernels unless they are there; yields as long as the compiler, a process, works.

    Where that cannot be, a line in the log says why.  Closing it ends the compiler.
    """
    if not multiplies_packed():
        return
    try:
        yield from compiled(cache_directory(), cpu_flags(ROOT))
    except OSError as error:
        log.warning("packed layers run uncompiled", reason=str(error))


def bound(loaded: ctypes.CDLL) -> ctypes.CDLL:
    for name, arguments in ARGUMENTS.items():
        function = getattr(loaded, name)
        function.argtypes = arguments
        function.restype = None
    return loaded


def cache_directory() -> Path:
    kept = os.environ.get("XDG_CACHE_HOME")
    return (Path(kept) if kept else Path.home() / ".cache") / "helexa"


def kernels_name() -> str:
    """Tells these kernels on this machine from all others."""
    return path_in(cache_directory(), cpu_flags(ROOT)).stem


def path_in(directory: Path, flags: Collection[str]) -> Path:
    told = repr((SOURCE.read_bytes(), OPTIONS, sorted(flags), torch.__version__))
    return directory / f"lean-{hashlib.sha256(told.encode()).hexdigest()[:16]}.so"


def is_own(directory: Path) -> bool:
    """Whether nobody else may write there."""
    status = directory.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def compiled(directory: Path, flags: Collection[str]) -> Generator[None, None, None]:
    """Compile into `directory`, which only its owner may write.  OSError."""
    path = path_in(directory, flags)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_own(directory):
        raise PermissionError(f"others may write {directory}")
    if path.exists():
        return
    compiler = cxx_compiler()
    if compiler is None:
        raise FileNotFoundError("there is no C++ compiler (g++ or clang++)")
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        made, errors = Path(scratch) / path.name, Path(scratch) / "errors"
        yield from run([compiler, *OPTIONS, "-o", str(made), str(SOURCE)], errors)
        made.replace(path)


def run(command: Sequence[str], errors: Path) -> Generator[None, None, None]:
    """Yields while the command works, which writes what it complains of to `errors`.  OSError."""
    deadline = time.monotonic() + COMPILE_SECONDS
    with errors.open("wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        while is_running(process):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{command[0]} took more than {COMPILE_SECONDS} s")
            yield
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        told = errors.read_text(errors="replace").strip() or f"status {process.returncode}"
        raise OSError(f"{command[0]}: {told.splitlines()[0]}")


def is_running(process: "subprocess.Popen[bytes]") -> bool:
    """Looks a moment later, so that who waits for the end does not spin."""
    try:
        process.wait(LOOK_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return False
