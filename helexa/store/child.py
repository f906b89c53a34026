"""Running `python -m helexa.store.prepare` apart from the daemon, so that its death is one sentence.

The child holds no hub token, sees no GPU, is the first that the kernel kills when memory runs out,
and cannot take more of it than it was allowed.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from helexa.errors import StoreError

TIMEOUT_SECONDS = 3600.0
PR_SET_PDEATHSIG = 1  # prctl(2)
# Becomes the command that follows it, of which the kernel makes an end when the starting thread ends.
LEASH = (
    "import ctypes, os, sys; "
    f"ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, {int(signal.SIGKILL)}); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)
ANSWER_BYTES = 1 << 16
BASE_MEMORY = 6 << 30  # torch and transformers imported, with a large vocabulary read


def run_child(order: dict[str, object], memory: int = 0) -> None:
    """Carry out `order` (see `helexa.store.prepare`) in a child; StoreError tells why it failed.

    `memory` is in bytes: what the child may allocate besides what its libraries and a vocabulary need.
    """
    limited = {**order, "memory": BASE_MEMORY + memory}
    command = [sys.executable, "-P", "-m", "helexa.store.prepare", json.dumps(limited)]
    with subprocess.Popen(
        command,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        umask=0o077,
        start_new_session=True,
    ) as child:
        try:
            answer, _ = child.communicate(timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            raise StoreError("Preparing the model took over an hour and was stopped.") from None
        except BaseException:
            child.kill()
            raise
    read_answer(answer[-ANSWER_BYTES:], child.returncode)


def leashed(command: list[str]) -> list[str]:
    """The same `command`, which does not outlive the thread that runs it.  Linux only; else unchanged.

    A program that cannot be told to see to that itself needs this: an abandoned add ends with its
    process, and its download must too.
    """
    if sys.platform != "linux":
        return command
    return [sys.executable, "-I", "-S", "-c", LEASH, *command]


def environment() -> dict[str, str]:
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "TMPDIR")
    package_parent = str(Path(__file__).resolve().parents[2])
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "PYTHONPATH": os.pathsep.join([package_parent, os.environ.get("PYTHONPATH", "")]).strip(
            ":"
        ),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "4",
    }


def read_answer(answer: bytes, returncode: int) -> None:
    lines = answer.decode(errors="replace").strip().splitlines()
    try:
        told = json.loads(lines[-1]) if lines else {}
    except json.JSONDecodeError:
        told = {}
    if returncode == 0 and told.get("ok") is True:
        return
    if isinstance(told.get("error"), str):
        raise StoreError(told["error"])
    if returncode == -signal.SIGKILL:
        raise StoreError("Preparing the model was killed, most likely because memory ran out.")
    raise StoreError(f"Preparing the model failed: the child process ended with code {returncode}.")
