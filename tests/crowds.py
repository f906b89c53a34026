"""Requests that come one after the other."""

from collections.abc import Awaitable, Callable
from functools import partial

import trio
from trio.testing import wait_all_tasks_blocked


async def crowd(
    ask: Callable[..., Awaitable[None]], clients: trio.Nursery, *names: str, **options: object
) -> None:
    """Each asks once the one before stands where it will."""
    for name in names:
        clients.start_soon(partial(ask, name, **options))
        await wait_all_tasks_blocked()
