"""A control server in the test's own process, and the real client asking it from a thread."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from control_fakes import FakeDaemon

from helexa.control.client import ask
from helexa.control.server import serve

Ask = Callable[..., Awaitable[list[Any]]]


@pytest.fixture
async def daemon() -> FakeDaemon:
    return FakeDaemon()


@pytest.fixture
async def socket_path(nursery: trio.Nursery, daemon: FakeDaemon, tmp_path: Path) -> Path:
    """The socket of a server that runs during the test."""
    path = tmp_path / "helexa.sock"
    await nursery.start(serve, path, "", daemon.verbs())
    return path


@pytest.fixture
async def asked(socket_path: Path) -> Ask:
    """All items that the client gets for a verb."""

    async def asked(verb: str, **args: Any) -> list[Any]:
        question = partial(ask, [socket_path], verb, args, 10.0)
        return await trio.to_thread.run_sync(lambda: list(question()))

    return asked
