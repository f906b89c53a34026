#!/usr/bin/env python3
"""What accounts cost: the ledger alone, and what it adds to a request under many clients.

`alone` is one client after the other; `burst` is every client at once without a pause, which shows how
many operations the ledger gets done; `paced` is clients that stream answers, as requests do: each
reserves, tells its progress once a batch, and settles.  Latencies are those of `reserve`, which waits
for the file, and of `settle`, which waits for nothing.

    tools/bench_accounts.py [--clients 64] [--requests 2000] [--directory DIR]
"""

import argparse
import math
import random
import sys
import tempfile
import time
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


@define
class Taken:
    """Seconds of each operation of one run, and of the whole run."""

    reserve: list[float] = field(factory=list)
    settle: list[float] = field(factory=list)
    seconds: float = 0.0


def principals(number: int) -> list[Principal]:
    return [Principal("account", f"key-{index}") for index in range(number)]


def capped(who: list[Principal]) -> Keys:
    budget = Budget(hard_cap=2**50, window=WINDOW)
    return Keys(
        b"bench",
        {one.key_id: Key(one, budget.caps(Scope(one.account_id, one.key_id))) for one in who},
    )


async def serve_one(ledger: Ledger, who: Principal, taken: Taken, pause: float) -> None:
    began_at = time.perf_counter()
    held = await ledger.reserve(Wanted(who, "req_bench", "model", PROMPT, OUTPUT))
    taken.reserve.append(time.perf_counter() - began_at)
    for batch in range(1, BATCHES + 1):
        await trio.sleep(pause)
        held.used(Used(PROMPT, batch * OUTPUT // BATCHES))
    began_at = time.perf_counter()
    held.settle(Used(PROMPT, OUTPUT))
    taken.settle.append(time.perf_counter() - began_at)


async def client(
    ledger: Ledger, who: Principal, number: int, taken: Taken, answer_seconds: float
) -> None:
    await trio.sleep(random.uniform(0, answer_seconds))  # they do not all begin at once
    for _ in range(number):
        await serve_one(ledger, who, taken, answer_seconds / BATCHES)


async def run(ledger: Ledger, who: list[Principal], requests: int, answer_seconds: float) -> Taken:
    taken = Taken()
    began_at = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for one in who:
            each = math.ceil(requests / len(who))
            nursery.start_soon(client, ledger, one, each, taken, answer_seconds)
    taken.seconds = time.perf_counter() - began_at
    return taken


def percentile(values: list[float], part: float) -> float:
    """In milliseconds."""
    return 1000 * sorted(values)[min(len(values) - 1, int(part * len(values)))]


def row(name: str, taken: Taken) -> str:
    reserves = [percentile(taken.reserve, part) for part in (0.5, 0.99)]
    settles = [percentile(taken.settle, part) for part in (0.5, 0.99)]
    operations = len(taken.reserve) * (BATCHES + 2) / taken.seconds
    told = " | ".join(f"{value:.3f}" for value in (*reserves, *settles))
    return f"| {name} | {len(taken.reserve) / taken.seconds:.0f} | {operations:.0f} | {told} |"


async def main(clients: int, requests: int, directory: Path) -> None:
    who = principals(clients)
    keys = capped(who)
    with open_ledger(directory / "ledger.sqlite") as database:
        running = clock.resumed(None, clock.this_boot(), clock.since_boot, time.time())
        spending = Spending(CollectorRegistry())
        ledger = Ledger(database, lambda: keys, {}, running, 90.0, spending)
        async with trio.open_nursery() as nursery:
            await nursery.start(ledger.run)
            print("| | requests/s | operations/s | reserve p50 ms | p99 | settle p50 ms | p99 |")
            print("|---|---|---|---|---|---|---|")
            print(row("alone", await run(ledger, who[:1], requests // 4, 0.0)))
            print(row(f"burst of {clients}", await run(ledger, who, requests, 0.0)))
            paced = await run(ledger, who, requests, ANSWER_SECONDS)
            print(row(f"paced {clients}", paced))
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--directory", type=Path, help="on the disk to be measured")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.directory) as made:
        trio.run(main, args.clients, args.requests, Path(made))
