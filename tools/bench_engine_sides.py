"""The sides of the bench as the bench sees them: child processes that are asked in turn."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from attrs import define
from bench_engine_cases import Kind
from bench_engine_wire import Answer, Request, Setup, read_answer

PROGRAMS: dict[Kind, str] = {
    "helexa": "bench_engine_helexa.py",
    "transformers": "bench_engine_stock.py",
    "llama.cpp": "bench_engine_llama.py",
}


class SideFailed(Exception):
    """The side ended; says why."""


@define(eq=False)
class Side:
    """`kind` is helexa, transformers or llama.cpp; `about` is what it says of itself."""

    kind: Kind
    quant: str
    process: subprocess.Popen[str]
    about: str = ""

    def start(self, setup: Setup) -> None:
        self.about = str(self._exchange(asdict(setup))["about"])

    def ask(self, request: Request) -> Answer:
        return read_answer(self._exchange(asdict(request)))

    def peak_mb(self) -> float:
        """Of resident memory since its start."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def _exchange(self, line: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(line) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise SideFailed(f"{self.kind} ended")
        told: dict[str, Any] = json.loads(answer)
        if "error" in told:
            raise SideFailed(f"{self.kind}: {told['error']}")
        return told


@contextmanager
def opened(commands: list[tuple[Kind, str, Setup]]) -> Iterator[tuple[list[Side], list[str]]]:
    """The sides of (kind, python, setup) that start, and why others do not; ends them all."""
    sides, problems = [], []
    with ExitStack() as stack:
        for kind, python, setup in commands:
            command = [python, str(Path(__file__).with_name(PROGRAMS[kind]))]
            try:
                process = stack.enter_context(child(command))
                side = Side(kind, setup.quant, process)
                side.start(setup)
                sides.append(side)
            except (OSError, SideFailed) as error:
                problems.append(f"{error} ({kind}, quant {setup.quant})")
        yield sides, problems


@contextmanager
def child(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Ends it by the end of its input, as it asks for, and by force if it does not listen."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    except BaseException:
        process.kill()
        raise
    finally:
        process.communicate()
