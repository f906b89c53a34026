"""The compiled kernels of `native.cpp`, made once for a machine and kept in the user's cache.

They need a C++ compiler and a CPU with AVX2.  No compiled file of another machine is used: its name tells
the source, the compiler's options and the CPU.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from helexa import logs
from helexa.devices.host import ROOT, cpu_flags

SOURCE = Path(__file__).with_name("native.cpp")
OPTIONS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
COMPILE_SECONDS = 120

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
    "scratch_bytes": (POINTER,),
    "pack": (POINTER, POINTER, POINTER, NUMBER, NUMBER, POINTER),
    "before": (POINTER, POINTER, NUMBER, POINTER, POINTER, POINTER, POINTER),
    "attend": (
        *(POINTER, POINTER, NUMBER, POINTER, POINTER),
        *(NUMBER, POINTER, POINTER, POINTER, POINTER),
    ),
    "after": (POINTER, POINTER, POINTER, NUMBER, POINTER),
    "logits": (POINTER, POINTER, ctypes.c_float, POINTER, NUMBER, POINTER, POINTER),
}


def library() -> ctypes.CDLL | None:
    """The kernels, compiled if they are not yet; None, with a line in the log, where that cannot be."""
    flags = cpu_flags(ROOT)
    if platform.machine() != "x86_64" or not {"avx2", "fma"} <= set(flags):
        return None
    try:
        return bound(ctypes.CDLL(str(compiled(cache_directory(), flags))))
    except (OSError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", None) or str(error)
        log.warning("packed layers run uncompiled", reason=told.strip().splitlines()[0])
        return None


def bound(loaded: ctypes.CDLL) -> ctypes.CDLL:
    for name, arguments in ARGUMENTS.items():
        function = getattr(loaded, name)
        function.argtypes = arguments
        function.restype = NUMBER if name == "scratch_bytes" else None
    return loaded


def cache_directory() -> Path:
    kept = os.environ.get("XDG_CACHE_HOME")
    return (Path(kept) if kept else Path.home() / ".cache") / "helexa"


def compiled(directory: Path, flags: frozenset[str]) -> Path:
    """The file in `directory`, which only its owner may write.  OSError, SubprocessError."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    told = repr((SOURCE.read_bytes(), OPTIONS, sorted(flags), torch.__version__))
    path = directory / f"lean-{hashlib.sha256(told.encode()).hexdigest()[:16]}.so"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.stat().st_uid != os.getuid() or directory.stat().st_mode & 0o022:
        raise PermissionError(f"others may write {directory}")
    if path.exists():
        return path
    if compiler is None:
        raise FileNotFoundError("there is no C++ compiler (g++ or clang++)")
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        made = Path(scratch) / path.name
        subprocess.run(
            [compiler, *OPTIONS, "-o", str(made), str(SOURCE)],
            check=True,
            capture_output=True,
            text=True,
            timeout=COMPILE_SECONDS,
        )
        made.replace(path)
    return path
