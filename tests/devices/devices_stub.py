"""The stub driver: compiling it, telling it what to answer, and processes that run against it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

HERE = Path(__file__).parent
LIBRARIES = (("cuda.c", "libcuda.so.1"), ("nvml.c", "libnvidia-ml.so.1"))


@frozen
class Stub:
    """A folder of fake driver libraries and the file that says what they answer."""

    libraries: Path
    scratch: Path

    @property
    def state(self) -> Path:
        return self.scratch / "state"

    def set(self, state: dict[str, Any]) -> None:
        self.state.write_text("".join(f"{key} {value}\n" for key, value in state.items()))

    def without(self, *libraries: str) -> "Stub":
        """The same driver on a machine that lacks some of its libraries."""
        folder = self.scratch / "libraries"
        shutil.copytree(self.libraries, folder)
        for library in libraries:
            (folder / library).unlink()
        return Stub(folder, self.scratch)

    def with_library(self, file: Path) -> "Stub":
        """The same machine with one library of another driver."""
        stub = self.without(file.name)
        shutil.copy(file, stub.libraries)
        return stub

    def run(self, function: str, **arguments: Any) -> Any:
        """What a function of devices_child.py returns in a process of its own."""
        return run_child(
            function,
            arguments,
            {"LD_LIBRARY_PATH": str(self.libraries), "HELEXA_STUB": str(self.state)},
        )

    def calls(self) -> list[str]:
        """The calls counted so far, of all processes."""
        path = self.scratch / "state.calls"
        return path.read_text().split() if path.exists() else []


def run_child(function: str, arguments: dict[str, Any], environment: dict[str, str]) -> Any:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CUDA", "NVIDIA", "LD_LIBRARY_PATH"))
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", HERE / "devices_child.py", function, json.dumps(arguments)],
        env=inherited | {"PYTHONPATH": str(HERE.parents[1])} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def compiler() -> list[str]:
    found = shutil.which("cc") or shutil.which("gcc")
    return [found] if found else [sys.executable, "-m", "ziglang", "cc"]


def build(folder: Path, flags: Sequence[str] = ()) -> Path:
    folder.mkdir()
    for source, library in LIBRARIES:
        subprocess.run(
            [
                *compiler(),
                *("-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"),
                *(f"-Wl,-soname,{library}", *flags),
                *("-o", str(folder / library), str(HERE / "stub" / source)),
            ],
            check=True,
        )
    return folder
