"""Measure one helexa on this machine and print one table.  Nothing else should be running.

    tools/bench [--quick]

Rows: start-up to ready, first token and tokens per second at 1, 4 and 16 streams through HTTP with the
real demo model; then, with a device that has every token ready, CPU per streamed chunk, small requests
per second, and memory after 10 and after 1 000 requests; then the dialects (`bench_dialects.py`),
the ledger (`bench_accounts.py`) and the line before a model (`bench_admission.py`).
"""

import argparse
import os
import platform
import shutil
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import bench_accounts
import bench_admission
import bench_dialects
from bench_process import MODEL, Row, asked, server, spent, stream, together

from helexa.control.client import ask

TOKENS = 64
SENDS = 3000
WIDE = {"HELEXA_ADMISSION__MAX_QUEUE_DEPTH": "64", "HELEXA_ENGINE__BATCH_WIDTH": "64"}


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
        rows += bench_dialects.rows(directory / "d", quick=quick)
        rows += bench_accounts.rows(directory / "e", quick=quick)
        rows += bench_admission.rows(seconds=0.5 if quick else 2.0)
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
