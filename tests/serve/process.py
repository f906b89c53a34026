"""A real helexa process on free ports, for tests from the outside."""

import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from helexa.control.client import Ended, NoDaemon, Refused, ask

START_SECONDS = 60.0
SERVE = ("-m", "helexa", "serve")
READY_DEVICE = (
    str(Path(__file__).parents[2] / "tools" / "bench_server.py"),
)  # tokens without a model
NOTHING_MORE: Mapping[str, str] = MappingProxyType({})
AT_REST = {"sequences": 0, "slots": 0, "reservations": 0}


class Helexa:
    """A running `helexa serve`; `state_dir` outlives it."""

    def __init__(
        self,
        state_dir: Path,
        store_dir: Path,
        options: Mapping[str, str],
        command: Sequence[str] = SERVE,
    ) -> None:
        self.state_dir = state_dir
        self._command = command
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HELEXA_")},
            "HELEXA_SERVER__STATE_DIR": str(state_dir),
            "HELEXA_CONTROL__SOCKET": str(state_dir / "s"),
            "HELEXA_STORE__DIR": str(store_dir),
            "HELEXA_STORE__MIN_FREE_GB": "0",
            "HELEXA_GATEWAY__LISTEN": "127.0.0.1:0",
            "HELEXA_NODE__LISTEN": "127.0.0.1:0",
            "HELEXA_METRICS__LISTEN": "127.0.0.1:0",
            "HELEXA_SERVER__LOG_FORMAT": "json",
            **options,
        }
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        self.log = self.state_dir.with_suffix(".log")
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-W", "error", *self._command],
                env=self.environ,
                stderr=log,
                stdout=log,
            )

    def restart(self) -> None:
        assert self.process.poll() is not None
        self.process = self._start()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Until its control socket answers, every listener is bound and the start's models are up."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            if (status := self.try_status()) and "metrics" in status:
                activation = status.get("activation", {"state": "ready"})
                if activation["state"] == "ready":
                    self._addresses = status
                    return
            select_nothing(0.05)
        raise AssertionError(f"not ready after {START_SECONDS} s:\n{self.log.read_text()}")

    def try_status(self) -> dict[str, Any] | None:
        try:
            status: dict[str, Any] = self.control("status")[0]
            return status
        except (NoDaemon, Ended, Refused, IndexError):
            return None

    def control(self, verb: str, **args: Any) -> list[Any]:
        """What the control socket tells of `verb`."""
        return list(ask([self.state_dir / "s"], verb, args, 60.0))

    def ctl(self, *args: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "helexa.ctl", "--socket", str(self.state_dir / "s"), *args],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def helexa(
        self, *args: str, environ: Mapping[str, str] = NOTHING_MORE
    ) -> "subprocess.CompletedProcess[str]":
        """Another command of `helexa`, in the same surroundings but for `environ`."""
        return subprocess.run(
            [sys.executable, "-m", "helexa", *args],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**self.environ, **environ},
        )

    @property
    def status(self) -> dict[str, Any]:
        status = self.try_status()
        assert status is not None
        return status

    def wait_for_rest(self) -> None:
        """Until nothing is open: a client that left is noticed a moment later."""
        for _ in range(500):
            if self.status["open"] == AT_REST:
                return
            select_nothing(0.02)
        assert self.status["open"] == AT_REST

    def url(self, role: str = "gateway") -> str:
        """The real address of a role, as the status told it when the process was ready."""
        found: str = self._addresses[role]["url"]
        return found

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def events(self, event: str) -> list[dict[str, Any]]:
        """The log lines of one kind."""
        lines = (json.loads(line) for line in self.log.read_text().splitlines() if line[:1] == "{")
        return [line for line in lines if line["event"] == event]


def select_nothing(seconds: float) -> None:
    """Wait for another process, which no clock of ours can hurry."""

    select.select([], [], [], seconds)


@contextmanager
def helexa(
    state_dir: Path,
    store_dir: Path,
    options: Mapping[str, str] | None = None,
    command: Sequence[str] = SERVE,
) -> Iterator[Helexa]:
    process = Helexa(state_dir, store_dir, options or {}, command)
    try:
        process.wait_ready()
        yield process
    finally:
        if process.process.poll() is None:
            process.kill()


def call(
    method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str], Any]:
    """One HTTP request; status, headers (lower case) and the JSON of the answer, or its text."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    wanted = {"content-type": "application/json"} if data is not None else {}
    request = urllib.request.Request(
        url, data=data, method=method, headers={**wanted, **(headers or {})}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            status, got, text = response.status, response.headers, response.read()
    except urllib.error.HTTPError as refused:
        with refused:
            status, got, text = refused.code, refused.headers, refused.read()
    found = {name.lower(): value for name, value in got.items()}
    is_json = found.get("content-type", "").startswith("application/json")
    return status, found, json.loads(text) if is_json else text.decode()


MODEL = "smollm2-135m-instruct"
PARIS = [{"role": "user", "content": "What is the capital of France?"}]


def chat(text: str = "What is the capital of France?", **options: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 16, **options}
