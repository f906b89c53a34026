"""The journal: brings to the ledger's file what the ledger decides, many things to a commit.

What begins, what ends, and the first that is told of an answer is written SOON; everything else, progress
above all, is LAZY.  Whoever has to wait for a commit has it begun at once; for others it keeps its PACE, as
a commit costs the same for one request as for many.  However much there is, one is under way at a time.
"""

import math
import sqlite3
import time
from collections.abc import Callable
from functools import partial

import trio
from attrs import define, field

from helexa import logs
from helexa.accounts.book import Book
from helexa.accounts.clock import Clock
from helexa.accounts.database import Database
from helexa.accounts.pending import Pending
from helexa.accounts.rows import Batch, Event, Row
from helexa.actors.mailbox import Reply
from helexa.actors.scribe import Scribe
from helexa.errors import LedgerUnavailable

log = logs.get("helexa.ledger")

SOON_SECONDS = 0.01
PACE_SECONDS = 0.05  # from the beginning of one commit to the next
LAZY_SECONDS = 0.5
MOST_BEHIND_SECONDS = 1.0  # that the file may be, before everybody waits for it
RETRY_SECONDS = 1.0  # after a commit that failed
PATIENCE_SECONDS = 5.0  # with a commit, before who waits for it is told that it does not come
CHECKPOINT_SECONDS = 5.0
PRUNE_SECONDS = 3600.0
DAY_SECONDS = 86400.0


@define(eq=False)
class Journal:
    """`tell_progress` puts what gathered of running answers.  With 0 `retention_days` all is kept."""

    _database: Database
    _book: Book
    _clock: Clock
    _retention_days: float
    _tell_progress: Callable[[], None]
    failure: str = field(default="", init=False)  # why the last commit failed
    _pending: Pending = field(factory=Pending, init=False)
    _scribe: Scribe = field(factory=Scribe, init=False)
    _written: Reply[None] = field(factory=Reply, init=False)  # when what is pending is on disk
    _is_free: bool = field(default=False, init=False)  # the thread, for the next commit
    _is_closed: bool = field(default=False, init=False)
    _soon_at: float = field(default=math.inf, init=False)
    _lazy_at: float = field(default=math.inf, init=False)
    _retry_at: float = field(default=-math.inf, init=False)
    _alarm: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    _pending_since: float = field(default=math.inf, init=False)
    _writing_since: float = field(default=math.inf, init=False)
    _began_at: float = field(default=-math.inf, init=False)  # the last commit
    _stamps: bool = field(default=True, init=False)  # the clock is due to be written
    _retention_changed: trio.Event = field(factory=trio.Event, init=False)

    # -- what the ledger tells -------------------------------------------------------------------

    def put(self, row: Row, *, soon: bool = False) -> Reply[None]:
        """What tells when `row` is on disk, for `wait`."""
        self._pending.put(row)
        self.gather(soon=soon)
        return self._written

    def add(self, event: Event) -> None:
        self._pending.add(event)
        self.gather()

    def gather(self, *, soon: bool = False) -> None:
        """There is something for a commit, or there will be once `tell_progress` is called."""
        now = trio.current_time()
        if now < self._pending_since:
            self._pending_since = now
        if soon and self._soon_at == math.inf:
            self._soon_at = max(now + SOON_SECONDS, self._began_at + PACE_SECONDS)
            self._set_alarm()
        elif not soon and now + LAZY_SECONDS < self._lazy_at:
            self._lazy_at = now + LAZY_SECONDS
            self._set_alarm()

    async def flush(self) -> None:
        """Wait until everything so far is on disk.  LedgerUnavailable if it cannot be."""
        await self.wait(self._written)

    async def accept_loss(self) -> None:
        self._pending.accepts_loss = True
        await self.flush()

    async def wait(self, written: Reply[None]) -> None:
        """LedgerUnavailable if it cannot be written, or not in time."""
        if written is self._written:  # its commit has not begun
            self._soon_at = -math.inf
            self._go_on()
            self._set_alarm()
        try:
            with trio.fail_after(PATIENCE_SECONDS):
                await written.wait()
        except LedgerUnavailable as error:
            raise error.again() from None
        except trio.TooSlowError:
            raise self.unavailable("its disk does not answer") from None

    @property
    def is_behind(self) -> bool:
        """Whether anything waits for its commit for longer than may be lost."""
        since = min(self._pending_since, self._writing_since)
        return trio.current_time() - since > MOST_BEHIND_SECONDS

    def keep(self, retention_days: float) -> None:
        """What is older is folded into the sums of its day, now and from now on."""
        if retention_days != self._retention_days:
            self._retention_days = retention_days
            self._retention_changed.set()

    def unavailable(self, why: str = "") -> LedgerUnavailable:
        return LedgerUnavailable(
            f"what is spent cannot be written down ({why or self.failure}), so nothing is served",
            retry_after=5,
        )

    # -- commits ---------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what changes until cancelled; then what changed last."""
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._scribe.run)
                nursery.start_soon(self._checkpoint_for_ever)
                nursery.start_soon(self._prune_for_ever)
                self._is_free = True
                task_status.started()
                try:
                    await self._keep_time()
                finally:
                    self._is_closed = True
                    self._scribe.close()
        finally:
            self._write_last()

    async def _keep_time(self) -> None:
        while True:
            with trio.CancelScope() as self._alarm:
                self._set_alarm()
                await trio.sleep_forever()
            self._go_on()

    def _set_alarm(self) -> None:
        """For when the next commit may begin that nobody begins before."""
        due = min(self._soon_at, self._lazy_at)
        self._alarm.deadline = max(due, self._retry_at) if self._is_free else math.inf

    def _go_on(self) -> None:
        """Begin the next commit, if one is due and none is under way."""
        now = trio.current_time()
        if not self._is_free or self._is_closed or now < self._retry_at:
            return
        if now >= min(self._soon_at, self._lazy_at):
            if now >= self._lazy_at:
                self._tell_progress()
                self._lazy_at = math.inf
            self._begin(*self._take())

    def _take(self) -> tuple[Batch, Reply[None]]:
        """All that is pending."""
        self._soon_at = math.inf
        self._writing_since, self._pending_since = self._pending_since, math.inf
        stamp = self._clock.stamp() if self._stamps else None
        batch, self._stamps = self._pending.take(self._book.take_changed(), stamp), False
        written, self._written = self._written, Reply()
        return batch, written

    def _begin(self, batch: Batch, written: Reply[None]) -> None:
        self._is_free, self._began_at = False, trio.current_time()
        commit = partial(self._database.commit, batch)
        self._scribe.post(commit, partial(self._ended, batch, written))

    def _ended(self, batch: Batch, written: Reply[None], error: sqlite3.Error | None) -> None:
        self._is_free = True
        if error is None:
            self._has_written(written)
        else:
            self._put_back(batch, written, str(error))
        self._go_on()
        self._set_alarm()

    def _has_written(self, written: Reply[None]) -> None:
        self._writing_since = math.inf
        if self.failure:
            log.info("the ledger can be written again")
        self.failure = ""
        written.set(None)

    def _put_back(self, batch: Batch, written: Reply[None], reason: str) -> None:
        if reason != self.failure:
            log.error("the ledger cannot be written; nothing is served until it can", reason=reason)
        self.failure = reason
        self._pending.put_back(batch)
        self._pending_since = min(self._pending_since, self._writing_since)
        self._book.changed |= batch.meters.keys()
        self._stamps |= batch.stamp is not None
        self._soon_at = self._retry_at = trio.current_time() + RETRY_SECONDS
        written.fail(self.unavailable())

    def _write_last(self) -> None:
        self._stamps = True
        self._tell_progress()
        batch, written = self._take()
        try:
            self._database.commit(batch)
        except sqlite3.Error as error:
            log.error("the last of the ledger is not written", reason=str(error))
        self.failure = "helexa is stopping"
        written.fail(self.unavailable())
        self._written.fail(self.unavailable())  # of whoever still asks

    # -- upkeep ----------------------------------------------------------------------------------

    async def _checkpoint_for_ever(self) -> None:
        while True:
            await trio.sleep(CHECKPOINT_SECONDS)
            self._stamps = True  # with the next commit
            try:
                await trio.to_thread.run_sync(self._database.checkpoint)
            except sqlite3.Error as error:
                log.warning("the ledger was not brought to the disk", reason=str(error))

    async def _prune_for_ever(self) -> None:
        while True:
            self._retention_changed = trio.Event()
            if self._retention_days:
                await self._prune(self._retention_days * DAY_SECONDS)
            with trio.move_on_after(PRUNE_SECONDS):
                await self._retention_changed.wait()

    async def _prune(self, keep_seconds: float) -> None:
        """A few rows at a time: commits have their turns in between."""
        now = min(time.time(), self._clock.seconds())  # nothing is old because a clock was set
        try:
            while await self._scribe.do(partial(self._database.prune, now - keep_seconds)):
                pass
        except sqlite3.Error as error:
            log.warning("old rows of the ledger were not pruned", reason=str(error))
