"""A thread that does what must wait for a disk, one thing after the other, and is always there."""

import queue
import sqlite3
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import trio
from attrs import define, field, frozen

from helexa.actors.mailbox import Reply

T = TypeVar("T")


@frozen(eq=False)
class Work(Generic[T]):
    do: Callable[[], T]
    done: Callable[[T | sqlite3.Error], None]


@define(eq=False)
class Scribe:
    _work: "queue.SimpleQueue[Work[Any] | None]" = field(factory=queue.SimpleQueue, init=False)

    def post(self, do: Callable[[], T], done: Callable[[T | sqlite3.Error], None]) -> None:
        """Never waits.  `done` is called in Trio's thread with what `do` returned or failed with."""
        self._work.put(Work(do, done))

    async def do(self, do: Callable[[], T]) -> T:
        """What `do` returns, in its turn.  Raises sqlite3.Error if it does."""
        reply: Reply[T | sqlite3.Error] = Reply()
        self.post(do, reply.set)
        found = await reply.wait()
        if isinstance(found, sqlite3.Error):
            raise found
        return found

    def close(self) -> None:
        """What was posted is done, and then the thread ends; post nothing more."""
        self._work.put(None)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until it is closed, also when cancelled: nothing is cut short."""
        token = trio.lowlevel.current_trio_token()
        task_status.started()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(
                self._loop,
                token,
                thread_name="helexa ledger",
                limiter=trio.CapacityLimiter(1),  # kept out of Trio's pool of threads
            )

    def _loop(self, token: trio.lowlevel.TrioToken) -> None:
        while (work := self._work.get()) is not None:
            try:
                found = work.do()
            except sqlite3.Error as error:
                found = error
            token.run_sync_soon(work.done, found)
