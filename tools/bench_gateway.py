#!/usr/bin/env python3
"""Our gateway beside nginx and LiteLLM, all before the same fake upstream.  Nothing else should run.

    tools/bench_gateway.py [--quick] [--litellm DIRECTORY]

nginx takes part where it is installed, LiteLLM where a directory is given for it: an environment of
its own is made there with pip.  One table: requests per second, the time to the first chunk and the
latency of a chunk beyond those of the upstream asked directly, chunks per second in a burst, CPU per
chunk and per request, memory.  The last column is how many times better helexa is than LiteLLM.
All of them run from the start and are asked in turns, so that an hour in which the machine is slow
is slow for each.

On a machine that does other work, too, only the rows of CPU and memory mean something.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from attrs import define, field
from bench_gateway_sides import Side, body, has_nginx, helexa, litellm, nginx, upstream

AT_ONCE = (1, 16, 64)
ROUNDS = 5
STREAMS = 16
PACE_MICROSECONDS = 10_000
STAMP = b'"content":"'


@define
class Spent:
    """On so many requests or chunks: the gateway's CPU and the time that went by, in seconds."""

    count: int = 0
    cpu: float = 0.0
    seconds: float = 0.0

    def add(self, count: int, cpu: float, seconds: float) -> None:
        self.count += count
        self.cpu += cpu
        self.seconds += seconds

    @property
    def per_second(self) -> float:
        return self.count / self.seconds

    @property
    def cpu_each(self) -> float:
        return self.cpu / self.count


@define
class Row:
    """What one gateway did in all rounds; seconds unless said otherwise."""

    side: Side
    requests: dict[int, Spent] = field(factory=lambda: {at_once: Spent() for at_once in AT_ONCE})
    first: list[float] = field(factory=list)
    chunk: list[float] = field(factory=list)
    burst: Spent = field(factory=Spent)
    paced: Spent = field(factory=Spent)
    memory_mb: float = 0.0


class Client:
    """One connection, kept open."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def __aenter__(self) -> "Client":
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self.port, limit=2**22
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        self._writer.close()

    async def _ask(self, data: bytes) -> bytes:
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:{self.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        self._writer.write(head.encode() + data)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in answer.partition(b"\r\n")[0]:
            raise SystemExit(f"refused: {answer + await self._reader.read(1000)!r}")
        return answer.lower()

    async def whole(self) -> None:
        head = await self._ask(body())
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        if length:
            await self._reader.readexactly(int(length))
        else:
            await self._reader.readuntil(b"\r\n0\r\n\r\n")

    async def stream(self, chunks: int, microseconds: int) -> tuple[float, list[float]]:
        """When the first chunk came, and how old each was."""
        asked_at, ages, first = time.monotonic(), list[float](), 0.0
        await self._ask(body(chunks, microseconds))
        rest = b""
        while not rest.endswith(b"\r\n0\r\n\r\n"):
            data = await self._reader.read(2**20)
            now = time.monotonic_ns()
            *frames, rest = (rest + data).split(b"\n\n")
            for frame in frames:
                digits = frame.partition(STAMP)[2].partition(b" ")[0]
                if digits.isdigit():
                    ages.append((now - int(digits)) / 1e9)
            first = first or time.monotonic() - asked_at
            if not data:
                raise SystemExit("the stream broke off")
        if len(ages) != chunks:
            raise SystemExit(f"{len(ages)} of {chunks} chunks came")
        return first, ages


# -- what is measured ----------------------------------------------------------------------------------


async def measure(row: Row, scale: float) -> None:
    """One round."""
    side = row.side
    await requests(side, 4, 40)  # warm
    for at_once, spent in row.requests.items():
        count = max(at_once, int((1000 + 20 * at_once) * scale))
        spent.add(count, *await requests(side, at_once, count))
    await paced(row, max(1, int(200 * scale)))
    await burst(row, int(5000 * scale))
    row.memory_mb = side.memory_mb()


async def requests(side: Side, at_once: int, count: int) -> tuple[float, float]:
    """CPU of the gateway, and how long it took."""
    left = iter(range(count))

    async def work() -> None:
        async with Client(side.port) as client:
            for _ in left:
                await client.whole()

    with timed(side) as took:
        await asyncio.gather(*(work() for _ in range(at_once)))
    return took()


async def paced(row: Row, chunks: int) -> None:
    async def work() -> None:
        async with Client(row.side.port) as client:
            first, ages = await client.stream(chunks, PACE_MICROSECONDS)
            row.first.append(first)
            row.chunk += ages

    with timed(row.side) as took:
        for _ in range(3):
            await asyncio.gather(*(work() for _ in range(STREAMS)))
    row.paced.add(3 * STREAMS * chunks, *took())


async def burst(row: Row, chunks: int) -> None:
    async def work() -> None:
        async with Client(row.side.port) as client:
            await client.stream(chunks, 0)

    with timed(row.side) as took:
        await asyncio.gather(*(work() for _ in range(STREAMS)))
    row.burst.add(STREAMS * chunks, *took())


@contextmanager
def timed(side: Side) -> Iterator[Callable[[], tuple[float, float]]]:
    """CPU of the gateway and wall time of the block, in seconds."""
    cpu, began_at = side.cpu_seconds(), time.monotonic()
    found: list[tuple[float, float]] = []
    yield lambda: found[0]
    found.append((side.cpu_seconds() - cpu, time.monotonic() - began_at))


# -- the table -----------------------------------------------------------------------------------------


def print_table(rows: list[Row]) -> None:
    direct = rows[0]
    print(f"{'':34}" + "".join(f"{row.side.name:>12}" for row in rows) + "      better")
    for at_once in AT_ONCE:
        numbers = [row.requests[at_once].per_second for row in rows]
        line(f"requests/s, {at_once} at once", numbers, rows)
    for what, part in (("first chunk, added ms", "first"), ("chunk latency, added ms", "chunk")):
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            base = quantile(getattr(direct, part), share)
            added = [1e3 * (quantile(getattr(row, part), share) - base) for row in rows]
            line(f"{what}, {name}", added, rows, less_is_better=True)
    line("burst, chunks/s", [row.burst.per_second for row in rows], rows)
    for at_once in AT_ONCE:
        costs = [1e3 * row.requests[at_once].cpu_each for row in rows]
        line(f"CPU per request, {at_once} at once, ms", costs, rows, less_is_better=True)
    costs = [1e6 * row.burst.cpu_each for row in rows]
    line("CPU per chunk of a burst, µs", costs, rows, less_is_better=True)
    costs = [1e6 * row.paced.cpu_each for row in rows]
    line("CPU per chunk every 10 ms, µs", costs, rows, less_is_better=True)
    line("memory, MB", [row.memory_mb for row in rows], rows, less_is_better=True)


def line(what: str, numbers: list[float], rows: list[Row], *, less_is_better: bool = False) -> None:
    named = {row.side.name: number for row, number in zip(rows, numbers, strict=True)}
    ratio = ""
    if min(named["helexa"], named.get("litellm", 0.0)) > 0:
        times = named["helexa"] / named["litellm"]
        ratio = f"{1 / times if less_is_better else times:12.2f}"
    print(f"{what:34}" + "".join(f"{number:12.2f}" for number in numbers) + ratio)


def quantile(values: list[float], share: float) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests")
    parser.add_argument("--litellm", type=Path, help="where its environment is, or shall be")
    options = parser.parse_args()
    scale = 0.1 if options.quick else 1.0
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        direct = stack.enter_context(upstream(directory))
        sides = [direct, stack.enter_context(helexa(directory, direct.port))]
        if has_nginx():
            sides.append(stack.enter_context(nginx(directory, direct.port)))
        if options.litellm:
            peer = litellm(directory, direct.port, options.litellm.resolve())
            sides.append(stack.enter_context(peer))
        rows = [Row(side) for side in sides]
        for _ in range(ROUNDS):
            for row in rows:
                asyncio.run(measure(row, scale / ROUNDS))
    print_table(rows)


if __name__ == "__main__":
    main()
