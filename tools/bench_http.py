#!/usr/bin/env python3
"""CPU of the HTTP server per streamed chunk and per small request, beside a stock hypercorn.

Both serve the same Quart-Trio application, each in a process of its own, by turns in one run; the
CPU time is the serving process's, and the best round of each counts.  Two sources of chunks: `ready`
always has the next one, `stepped` gets one per stream from a fake device every few milliseconds, as
a model would give them.

    tools/bench_http.py [--streams 16] [--chunks 500] [--requests 500] [--rounds 3]
"""

import argparse
import math
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio
from attrs import define, field, frozen

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

STEP_SECONDS = 0.005
CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":" token"}}],"model":"fake"}\n\n'
SOURCES = ("ready", "stepped")
SERVERS = ("stock", "helexa")
MORE = 2**20


# -- the serving process ---------------------------------------------------------------------------


@define
class FakeDevice:
    """Posts one chunk to every open stream, step after step."""

    _streams: set[trio.MemorySendChannel[bytes]] = field(factory=set)

    async def run(self) -> None:
        while True:
            await trio.sleep(STEP_SECONDS)
            for stream in self._streams:
                stream.send_nowait(CHUNK)

    async def chunks(self, number: int) -> AsyncGenerator[bytes, None]:
        send, receive = trio.open_memory_channel[bytes](math.inf)
        self._streams.add(send)
        try:
            async for first in receive:
                batch = [first]
                with suppress(trio.WouldBlock):
                    while True:
                        batch.append(receive.receive_nowait())
                yield b"".join(batch[:number])
                number -= len(batch)
                if number <= 0:
                    return
        finally:
            self._streams.discard(send)


async def ready(number: int) -> AsyncGenerator[bytes, None]:
    for _ in range(number):
        yield CHUNK


def make_app(device: FakeDevice, server: str) -> Any:
    from quart import Response, request
    from quart_trio import QuartTrio

    from helexa.http.application import configure
    from helexa.http.call import call_of
    from helexa.http.stream import sse_response

    app = QuartTrio("bench")
    if server == "helexa":
        configure(app)

    @app.get("/<source>/<int:number>")
    async def stream(source: str, number: int) -> Response:
        events = ready(number) if source == "ready" else device.chunks(number)
        if server == "helexa":
            return sse_response(events, call_of(request), lambda error: b"")
        return Response(events, content_type="text/event-stream")

    @app.get("/cpu")
    async def cpu() -> dict[str, float]:
        return {"seconds": time.process_time()}

    return app


async def serve_one(server: str) -> None:
    device = FakeDevice()
    app = make_app(device, server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(device.run)
        if server == "stock":
            url = await start_stock(nursery, app)
        else:
            url = await start_helexa(nursery, app)
        print(url.rpartition(":")[2], flush=True)


async def start_stock(nursery: trio.Nursery, app: Any) -> str:
    from hypercorn.config import Config
    from hypercorn.trio import serve

    config = Config()
    config.bind, config.errorlog = "127.0.0.1:0", None
    urls: list[str] = await nursery.start(serve, app, config)
    return urls[0]


async def start_helexa(nursery: trio.Nursery, app: Any) -> str:
    from functools import partial

    from helexa.config.schema import Limits
    from helexa.http.server import Listener, serve

    listener = Listener(app, "127.0.0.1:0", "bench")
    serving = partial(serve, listener, Limits(), drain=trio.Event(), drain_seconds=0)
    url: str = await nursery.start(serving)
    return url


# -- the measuring process -------------------------------------------------------------------------


@frozen
class Row:
    what: str
    server: str
    cpu_us: float  # of the serving process, per unit
    per_second: float


@define
class Client:
    port: int

    async def cpu_seconds(self) -> float:
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            got = await ask(stream, "/cpu", b"}\n")
        return float(got.rpartition(b":")[2].rstrip(b"}\n"))

    async def stream(self, path: str, number: int) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            got = (await ask(stream, path, b"\r\n0\r\n\r\n")).count(b"data: ")
        if got != number:
            raise SystemExit(f"{path} gave {got} chunks")

    async def small_requests(self, number: int) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            for _ in range(number):
                await ask(stream, "/cpu", b"}\n")


async def ask(stream: trio.SocketStream, path: str, end: bytes) -> bytes:
    """One response as it came, head and chunk sizes included, up to the bytes it ends with."""
    await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    got = bytearray()
    while not got.endswith(end):
        data = await stream.receive_some(MORE)
        if not data:
            raise SystemExit(f"{path} was cut: {bytes(got[-100:])!r}")
        got += data
    return bytes(got)


async def measure(server: str, port: int, options: argparse.Namespace) -> list[Row]:
    client = Client(port)
    rows = []
    await client.small_requests(100)  # warm
    for source in SOURCES:
        path = f"/{source}/{options.chunks}"

        async def streams(path: str = path) -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(options.streams):
                    nursery.start_soon(client.stream, path, options.chunks)

        units = options.streams * options.chunks
        rows.append(await timed(client, f"chunk, {source} source", server, units, streams))

    async def requests() -> None:
        await client.small_requests(options.requests)

    rows.append(await timed(client, "small request", server, options.requests, requests))
    return rows


async def timed(client: Client, what: str, server: str, units: int, run: Any) -> Row:
    cpu, began_at = await client.cpu_seconds(), time.perf_counter()
    await run()
    seconds = time.perf_counter() - began_at
    return Row(what, server, (await client.cpu_seconds() - cpu) / units * 1e6, units / seconds)


def print_table(rows: list[Row], streams: int) -> None:
    print(f"{streams} streams; CPU of the serving process")
    print(f"{'':28}{'stock µs':>10}{'helexa µs':>11}{'ratio':>7}{'stock /s':>11}{'helexa /s':>11}")
    for what in dict.fromkeys(row.what for row in rows):
        stock, ours = (best(rows, what, server) for server in SERVERS)
        print(
            f"{what:28}{stock.cpu_us:10.1f}{ours.cpu_us:11.1f}{stock.cpu_us / ours.cpu_us:7.2f}"
            f"{stock.per_second:11.0f}{ours.per_second:11.0f}"
        )


def best(rows: list[Row], what: str, server: str) -> Row:
    mine = [row for row in rows if (row.what, row.server) == (what, server)]
    return min(mine, key=lambda row: row.cpu_us)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--chunks", type=int, default=500, help="per stream")
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        trio.run(serve_one, options.serve)
        return
    rows: list[Row] = []
    for server in SERVERS * options.rounds:
        command = [sys.executable, __file__, "--serve", server]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                rows += trio.run(measure, server, int(process.stdout.readline()), options)
            finally:
                process.kill()
    print_table(rows, options.streams)


if __name__ == "__main__":
    main()
