"""A process that streams tokens to its standard output and counts them in a ledger, until it is killed.

Every token is a line `REQUEST_NUMBER TOKENS SECONDS`, written before it is counted; the clock is the
machine's, so that the parent can tell what was written when.  Requests with an even number are Ann's,
who has a budget, the others Bob's, who has none.
"""

import os
import random
import sys
import time
from pathlib import Path

import trio
from ledgers import ANN, BOB, keys_with
from prometheus_client import CollectorRegistry

from helexa.accounts import clock
from helexa.accounts.amount import Used
from helexa.accounts.budget import Budget
from helexa.accounts.database import open_ledger
from helexa.accounts.provider import Wanted
from helexa.accounts.spending import Spending
from helexa.actors.ledger import Ledger

CAP = 10_000_000
NUM_STREAMS, PROMPT, LONGEST = 8, 7, 60


async def stream(ledger: Ledger, number: int) -> None:
    for turn in range(100_000):
        name = f"{number}.{turn}"
        who = BOB if number % 2 else ANN
        with await ledger.reserve(Wanted(who, name, "demo", PROMPT, LONGEST)) as held:
            await held.written()
            told = 0
            for _ in range(random.randint(1, LONGEST)):
                await trio.sleep(random.uniform(0, 0.01))
                told += 1
                os.write(1, f"{name} {told} {time.monotonic()}\n".encode())
                held.used(Used(PROMPT, told))
            if random.random() < 0.8:
                held.settle(Used(PROMPT, told))


async def main(path: Path) -> None:
    keys = keys_with({ANN: Budget(hard_cap=CAP)})
    with open_ledger(path) as database:
        running = clock.resumed(
            database.found.stamp, clock.this_boot(), clock.since_boot, time.time()
        )
        spending = Spending(CollectorRegistry())
        ledger = Ledger(database, lambda: keys, {}, running, 90.0, spending)
        async with trio.open_nursery() as nursery:
            await nursery.start(ledger.run)
            for number in range(NUM_STREAMS):
                nursery.start_soon(stream, ledger, number)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
