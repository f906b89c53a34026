"""Measure one helexa on this machine and print one table.  Nothing else should be running.

    tools/bench [--quick]

Rows: start-up to ready, first token and tokens per second at 1, 4 and 16 streams through HTTP with the
real demo model; then, with a device that has every token ready, CPU per streamed chunk, small requests
per second, and memory after 10 and after 1 000 requests.
"""

import argparse
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helexa.control.client import Ended, NoDaemon, Refused, ask

MODEL = "smollm2-135m-instruct"
PROMPT = "Tell me about the sea, its tides, its winds and the people who live by it. "
TOKENS = 64
SENDS = 3000
WIDE = {"HELEXA_ADMISSION__MAX_QUEUE_DEPTH": "64", "HELEXA_ENGINE__BATCH_WIDTH": "64"}
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


# -- the rows --------------------------------------------------------------------------------------


def start_up(directory: Path) -> Iterator[Row]:
    """A first start with nothing loaded, then a restart that brings the demo model back."""
    with server(["-m", "helexa", "serve"], directory) as first:
        yield "start to ready, no model", f"{first.ready_seconds:.2f} s"
        began = time.monotonic()
        list(ask([first.socket], "load", {"model": MODEL}, None))
        yield "load of the demo model", f"{time.monotonic() - began:.2f} s"
    with server(["-m", "helexa", "serve"], directory) as second:
        yield "restart to ready, demo model back", f"{second.ready_seconds:.2f} s"


def streams(directory: Path, counts: tuple[int, ...]) -> Iterator[Row]:
    options = {"HELEXA_ADMISSION__MAX_QUEUE_DEPTH": "64", "HELEXA_ENGINE__BATCH_WIDTH": "16"}
    with server(["-m", "helexa", "serve"], directory, options) as found:
        stream(found, asked(8))
        for count in counts:
            began = time.perf_counter()
            times = together(count, lambda i: stream(found, asked(TOKENS, i)))
            seconds = time.perf_counter() - began
            first = statistics.median(each[0] for each in times)
            alone = statistics.median((len(t) - 1) / (t[-1] - t[0]) for t in times)
            total = sum(len(each) for each in times) / seconds
            yield f"{count:>2} streams: first token, median", f"{1000 * first:.0f} ms"
            yield f"{count:>2} streams: tokens/s each, in all", f"{alone:.1f}, {total:.1f}"


def chunks(directory: Path, step_seconds: str, what: str) -> Iterator[Row]:
    command = [str(Path(__file__).with_name("bench_server.py")), step_seconds]
    with server(command, directory, WIDE) as found:
        stream(found, asked(4))
        before = found.cpu_seconds()
        times = together(16, lambda i: stream(found, asked(1800, i)))
        number = sum(len(each) for each in times)
        yield (
            f"CPU per streamed chunk, 16 streams, {what}",
            spent(before, found.cpu_seconds(), number),
        )


def overhead(directory: Path, requests: int) -> Iterator[Row]:
    yield from chunks(directory, "0", "tokens ready")
    yield from chunks(directory, "0.004", "a token every 4 ms")
    yield "a bare send of such a chunk every 0.3 ms, for comparison", f"{bare_send():.0f} µs"
    with server([str(Path(__file__).with_name("bench_server.py"))], directory, WIDE) as found:
        for _ in range(10):
            stream(found, asked(4))
        early = found.memory_mb()
        before, began = found.cpu_seconds(), time.perf_counter()
        together(8, lambda i: [stream(found, asked(1, i)) for _ in range(requests // 8)])
        seconds = time.perf_counter() - began
        yield "small requests, 8 clients", f"{requests / seconds:.0f}/s"
        yield "CPU per small request", spent(before, found.cpu_seconds(), requests)
        late = found.memory_mb()
        yield f"memory after 10, after {requests} requests", f"{early:.0f} MB, {late:.0f} MB"


def spent(before: tuple[float, float], after: tuple[float, float], count: int) -> str:
    user, system = (1e6 * (b - a) / count for a, b in zip(before, after, strict=True))
    return f"{user + system:.0f} µs ({user:.0f} user, {system:.0f} system)"


def bare_send() -> float:
    """CPU microseconds of this machine's own `send` of 250 bytes to a reader on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        with socket.create_connection(listening.getsockname()) as sender:
            reader, _ = listening.accept()
            thread = threading.Thread(target=read_all_of, args=(reader,))
            thread.start()
            before = time.thread_time()
            for _ in range(SENDS):
                sender.send(b"x" * 250)
                time.sleep(0.0003)  # as far apart as the chunks of 16 streams
            cost = time.thread_time() - before
        thread.join()
    return 1e6 * cost / SENDS


def read_all_of(sock: socket.socket) -> None:
    with sock:
        while sock.recv(1 << 16):
            pass


def show(rows: list[Row]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer streams and requests")
    quick = parser.parse_args().quick
    directory = Path(tempfile.mkdtemp(prefix="helexa-bench-"))
    rows: list[Row] = [("machine", f"{cpu_name()}, {os.cpu_count()} cores")]
    rows.append(("python", platform.python_version()))
    try:
        rows += start_up(directory / "a")
        rows += streams(directory / "b", (1, 4) if quick else (1, 4, 16))
        rows += overhead(directory / "c", 200 if quick else 1000)
    finally:
        shutil.rmtree(directory)
    show(rows)


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
