#!/usr/bin/env python3
"""What accounts cost: the ledger alone, and what it adds to a request under many clients.

`alone` is one client after the other; `burst` is every client at once without a pause, which shows how
many operations the ledger gets done; `paced` is clients that stream answers, as requests do: each
reserves, tells its progress once a batch, and settles.  `written` is what an answer that is ready waits
for the file, at once where there is no pause; only keys that are `bounded`, by a budget, wait at all.  `sum`
is what a request pays in all.  CPU is of the whole process, the clients included.

    tools/bench_accounts.py [--clients 64] [--requests 2000] [--directory DIR]
"""

import argparse
import math
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import trio
from attrs import define, field
from prometheus_client import CollectorRegistry

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helexa.accounts import clock
from helexa.accounts.amount import Used
from helexa.accounts.budget import Budget
from helexa.accounts.database import open_ledger
from helexa.accounts.keys import Key, Keys
from helexa.accounts.provider import Wanted
from helexa.accounts.spending import Spending
from helexa.accounts.windows import Scope, Window
from helexa.actors.ledger import Ledger
from helexa.conversation import Principal

PROMPT, OUTPUT, BATCHES = 500, 200, 20
ANSWER_SECONDS = 0.5  # of a paced answer
WINDOW = Window("sliding", 3600)
PARTS = ("reserve", "written", "settle", "sum")


HEAD = ["case", "requests/s", "operations/s", "CPU µs/request"]
HEAD += [f"{what} {part} ms" for what in PARTS for part in ("p50", "p99")]


@define
class Taken:
    """Seconds of each request's reserve, written and settle; of the whole run, and of the processor."""

    requests: list[tuple[float, float, float]] = field(factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0


def principals(number: int) -> list[Principal]:
    return [Principal("account", f"key-{index}") for index in range(number)]


def with_caps(who: list[Principal]) -> Keys:
    budget = Budget(hard_cap=2**50, window=WINDOW)
    return Keys(
        b"bench",
        {one.key_id: Key(one, budget.caps(Scope(one.account_id, one.key_id))) for one in who},
    )


async def serve_one(ledger: Ledger, who: Principal, taken: Taken, pause: float) -> None:
    began_at = time.perf_counter()
    held = await ledger.reserve(Wanted(who, "req_bench", "model", PROMPT, OUTPUT))
    reserve = time.perf_counter() - began_at
    await trio.sleep(pause)
    began_at = time.perf_counter()
    await held.written()
    written = time.perf_counter() - began_at
    for batch in range(1, BATCHES + 1):
        held.used(Used(PROMPT, batch * OUTPUT // BATCHES))
        await trio.sleep(pause)
    began_at = time.perf_counter()
    held.settle(Used(PROMPT, OUTPUT))
    taken.requests.append((reserve, written, time.perf_counter() - began_at))


async def client(
    ledger: Ledger, who: Principal, number: int, taken: Taken, answer_seconds: float
) -> None:
    await trio.sleep(random.uniform(0, answer_seconds))  # they do not all begin at once
    for _ in range(number):
        await serve_one(ledger, who, taken, answer_seconds / BATCHES)


async def run(ledger: Ledger, who: list[Principal], requests: int, answer_seconds: float) -> Taken:
    taken = Taken()
    began_at, cpu_before = time.perf_counter(), time.process_time()
    async with trio.open_nursery() as nursery:
        for one in who:
            each = math.ceil(requests / len(who))
            nursery.start_soon(client, ledger, one, each, taken, answer_seconds)
    taken.seconds = time.perf_counter() - began_at
    taken.cpu_seconds = time.process_time() - cpu_before
    return taken


def percentile(values: list[float], part: float) -> float:
    """In milliseconds."""
    return 1000 * sorted(values)[min(len(values) - 1, int(part * len(values)))]


def row(name: str, taken: Taken) -> list[str]:
    """Latencies in milliseconds."""
    number = len(taken.requests)
    parts = [*map(list, zip(*taken.requests, strict=True)), list(map(sum, taken.requests))]
    latencies = [percentile(values, part) for values in parts for part in (0.5, 0.99)]
    return [
        name,
        f"{number / taken.seconds:.0f}",
        f"{number * (BATCHES + 2) / taken.seconds:.0f}",
        f"{1e6 * taken.cpu_seconds / number:.0f}",
        *(f"{value:.3f}" for value in latencies),
    ]


async def measured(clients: int, requests: int, directory: Path, kind: str) -> dict[str, Taken]:
    """The cases of one ledger, whose keys are `bounded` or `unbounded`."""
    who = principals(clients)
    keys = with_caps(who) if kind == "bounded" else Keys()
    with open_ledger(directory / f"{kind}.sqlite") as database:
        running = clock.resumed(None, clock.this_boot(), clock.since_boot, time.time())
        spending = Spending(CollectorRegistry())
        ledger = Ledger(database, lambda: keys, {}, running, 90.0, spending)
        async with trio.open_nursery() as nursery:
            await nursery.start(ledger.run)
            found = {
                f"alone, {kind}": await run(ledger, who[:1], requests // 4, 0.0),
                f"burst of {clients}, {kind}": await run(ledger, who, requests, 0.0),
                f"paced {clients}, {kind}": await run(ledger, who, requests, ANSWER_SECONDS),
            }
            nursery.cancel_scope.cancel()
    return found


def rows(directory: Path, *, quick: bool = False) -> Iterator[tuple[str, str]]:
    """For `tools/bench`: what reserve and settle add to a request, and what a ledger gets done."""
    directory.mkdir(parents=True)
    for kind in ("bounded", "unbounded"):
        for name, taken in trio.run(measured, 64, 400 if quick else 2000, directory, kind).items():
            told = dict(zip(HEAD, row(name, taken), strict=True))
            sums = f"{told['sum p50 ms']}, {told['sum p99 ms']} ms"
            yield f"reserve and settle, {name}: median, 99 %", sums
            yield f"ledger operations, {name}", f"{told['operations/s']}/s"


def show(cells: list[str]) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


async def main(clients: int, requests: int, directory: Path) -> None:
    show(HEAD)
    show(["---"] * len(HEAD))
    for kind in ("bounded", "unbounded"):
        for name, taken in (await measured(clients, requests, directory, kind)).items():
            show(row(name, taken))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--directory", type=Path, help="on the disk to be measured")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.directory) as made:
        trio.run(main, args.clients, args.requests, Path(made))
