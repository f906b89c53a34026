"""A helexa process to be measured, and requests to it over plain sockets, so that the client costs little."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helexa.control.client import Ended, NoDaemon, Refused, ask

MODEL = "smollm2-135m-instruct"
PROMPT = "Tell me about the sea, its tides, its winds and the people who live by it. "
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
Row = tuple[str, str]


class Server:
    """A helexa process on free ports, with a state directory of its own."""

    def __init__(self, command: list[str], directory: Path, options: Mapping[str, str]) -> None:
        self.socket = directory / "s"
        environ = {
            **os.environ,
            "HELEXA_SERVER__STATE_DIR": str(directory),
            "HELEXA_CONTROL__SOCKET": str(self.socket),
            "HELEXA_GATEWAY__LISTEN": "127.0.0.1:0",
            "HELEXA_NODE__LISTEN": "127.0.0.1:0",
            "HELEXA_METRICS__LISTEN": "127.0.0.1:0",
            "HELEXA_SERVER__LOG_LEVEL": "warning",
            **options,
        }
        self.began = time.monotonic()
        self.process = subprocess.Popen([sys.executable, *command], env=environ)
        self.address = self._wait()
        self.ready_seconds = time.monotonic() - self.began

    def _wait(self) -> tuple[str, int]:
        while self.process.poll() is None:
            try:
                (status,) = ask([self.socket], "status", {}, 10.0)
            except (NoDaemon, Ended, Refused, OSError):
                time.sleep(0.02)
                continue
            state = status.get("activation", {}).get("state")
            if "metrics" in status and state == "ready":
                host, _, port = status["gateway"]["url"].removeprefix("http://").partition(":")
                return host, int(port)
            time.sleep(0.02)
        raise SystemExit("the server ended while it started")

    def cpu_seconds(self) -> tuple[float, float]:
        """User and system time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) / TICKS_PER_SECOND, int(fields[12]) / TICKS_PER_SECOND

    def memory_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@contextmanager
def server(
    command: list[str], directory: Path, options: Mapping[str, str] | None = None
) -> Iterator[Server]:
    directory.mkdir(exist_ok=True)
    found = Server(command, directory, options or {})
    try:
        yield found
    finally:
        found.process.terminate()
        found.process.wait()


# -- one request over a plain socket, so that the client costs little ------------------------------


def request_bytes(body: Mapping[str, Any], path: str = "/v1/chat/completions") -> bytes:
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def asked(max_tokens: int, salt: int = 0) -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"{salt} {PROMPT}"}],
        "temperature": 0,
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "stream": True,
    }


def stream(server: Server, body: Mapping[str, Any]) -> list[float]:
    """When each piece of text came, in seconds since the request was sent."""
    times: list[float] = []
    with socket.create_connection(server.address) as sock:
        sock.sendall(request_bytes(body))
        began, rest = time.perf_counter(), b""
        while b"data: [DONE]" not in rest:
            received = sock.recv(1 << 16)
            if not received:
                raise SystemExit(f"the stream broke off: {rest[:300]!r}")
            now = time.perf_counter() - began
            *frames, rest = (rest + received).split(b"\n\n")
            times += [
                now for frame in frames if b'"content":"' in frame and b'"content":""' not in frame
            ]
            rest = rest if not frames or b"[DONE]" not in frames[-1] else b"data: [DONE]"
    return times


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    results: list[Any] = [None] * count

    def run(number: int) -> None:
        results[number] = work(number)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def request(server: Server, body: Mapping[str, Any], path: str) -> Any:
    """The JSON of an answer without a stream."""
    with socket.create_connection(server.address) as sock:
        sock.sendall(request_bytes(body, path).replace(b"\r\n", b"\r\nconnection: close\r\n", 1))
        received = b"".join(iter(lambda: sock.recv(1 << 16), b""))
    head, _, answer = received.partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise SystemExit(f"refused: {received[:500]!r}")
    return json.loads(answer)


def spent(before: tuple[float, float], after: tuple[float, float], count: int) -> str:
    user, system = (1e6 * (b - a) / count for a, b in zip(before, after, strict=True))
    return f"{user + system:.0f} µs ({user:.0f} user, {system:.0f} system)"
