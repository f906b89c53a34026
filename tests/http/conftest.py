"""A served application, and peers that talk to it."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import trio
from http_app import make_app
from http_peer import Served, Start
from trio.testing import MockClock

from helexa.accounts.provider import Budgets
from helexa.config.schema import Limits
from helexa.http.doors import Door
from helexa.http.refusals import CountRefusal, not_counted
from helexa.http.server import Listener, serve
from helexa.http.tls import Certificate


@pytest.fixture
def virtual_time() -> MockClock:
    """Time leaps when nothing moves, neither a task nor a byte on a socket of this machine."""
    return MockClock(autojump_threshold=0.05)


@pytest.fixture
async def start(nursery: trio.Nursery) -> AsyncIterator[Start]:
    """Serve an application, by default that of `http_app`; all ends with the test."""
    all_served = []

    async def start(
        app: Any = None,
        *,
        limits: Limits | None = None,
        door: Door | None = None,
        drain_seconds: float = 10.0,
        bind: str = "127.0.0.1:0",
        on_refusal: CountRefusal = not_counted,
        certificate: Certificate | None = None,
        budgets: Budgets | None = None,
    ) -> Served:
        limits = limits or Limits()
        served = Served(app or make_app())
        listener = Listener(
            served.app, bind, "test", door or Door(), on_refusal, certificate, budgets
        )
        serving = partial(serve, listener, limits, drain=served.drain, drain_seconds=drain_seconds)
        served.url = await nursery.start(served.run, serving)
        all_served.append(served)
        return served

    yield start
    for served in all_served:
        served.scope.cancel()
        await served.close_peers()
