"""A real ledger on a file of its own, on Trio's clock, and what the tests of this room agree on."""

import sqlite3
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import trio
from ledgers import OpenLedger, Rows, keys_with
from prometheus_client import CollectorRegistry
from trio.testing import MockClock

from helexa.accounts import clock
from helexa.accounts.budget import Budget
from helexa.accounts.database import open_ledger
from helexa.accounts.spending import Spending
from helexa.accounts.windows import Cap
from helexa.actors.ledger import Ledger
from helexa.conversation import Principal


@pytest.fixture
def virtual_time() -> MockClock:
    """Time leaps when nothing moves for a while: threads are given the time to write."""
    return MockClock(autojump_threshold=0.05)


@pytest.fixture
def open_at(tmp_path: Path) -> OpenLedger:
    """A running ledger with the keys of `budgets` and the caps of `limits`."""

    @asynccontextmanager
    async def opened(
        budgets: Mapping[Principal, Budget] | None = None,
        limits: Mapping[str, tuple[Cap, ...]] | None = None,
        path: Path = tmp_path / "ledger.sqlite",
        retention_days: float = 90.0,
        registry: CollectorRegistry | None = None,
    ) -> AsyncGenerator[Ledger, None]:
        keys = keys_with(budgets or {})
        with open_ledger(path) as database:
            stamp = database.found.stamp
            running = clock.resumed(stamp, "boot", trio.current_time, time.time())
            ledger = Ledger(
                database,
                lambda: keys,
                limits or {},
                running,
                retention_days,
                Spending(registry or CollectorRegistry()),
            )
            async with trio.open_nursery() as nursery:
                await nursery.start(ledger.run)
                yield ledger
                nursery.cancel_scope.cancel()

    return opened


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    """What stands in the file, seen from outside."""

    def rows(query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as connection:
            return connection.execute(query).fetchall()

    return rows
