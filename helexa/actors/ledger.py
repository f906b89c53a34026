"""The ledger: the one writer of who spent and holds what, in memory at once and on disk right after.

What is decided counts from that moment for everyone.  A reservation is also in the file before its
request goes on, a settlement right after, and what is used in between within half a second: many to a
commit, in a thread.  While nothing can be written nothing can be reserved.
"""

import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import trio
from attrs import define, evolve, field

from helexa import logs
from helexa.accounts.amount import NOTHING, UNUSED, Used
from helexa.accounts.book import Book, Open, Refused
from helexa.accounts.clock import Clock
from helexa.accounts.database import Database
from helexa.accounts.keys import Key, Keys
from helexa.accounts.pending import Pending
from helexa.accounts.provider import Remaining, Wanted
from helexa.accounts.refusal import refusal
from helexa.accounts.rows import Batch, Event, Outcome, Row
from helexa.accounts.spending import Spending
from helexa.accounts.windows import Cap, Meter
from helexa.actors.mailbox import Reply
from helexa.conversation import Principal
from helexa.errors import (
    BudgetExhausted,
    BudgetHeld,
    HelexaError,
    InsufficientQuota,
    LedgerUnavailable,
)

log = logs.get("helexa.ledger")

LAZY_SECONDS = 0.5  # progress and events may wait so long for their commit
RETRY_SECONDS = 1.0  # after a commit that failed
PATIENCE_SECONDS = 5.0  # with a commit, before who waits for it is told that it does not come
CHECKPOINT_SECONDS = 5.0
PRUNE_SECONDS = 3600.0
DAY_SECONDS = 86400.0
REASONS: Mapping[type[HelexaError], str] = {
    BudgetExhausted: "window",
    InsufficientQuota: "balance",
    BudgetHeld: "held",
    LedgerUnavailable: "ledger",
}


@define(eq=False)
class Held:
    """A reservation of this ledger."""

    _ledger: "Ledger"
    _open: Open
    _row: Row
    _used: Used = field(default=UNUSED, init=False)  # as it was told last
    _is_over: bool = field(default=False, init=False)

    @property
    def max_output(self) -> int:
        return self._open.wanted.max_output

    def used(self, used: Used) -> None:
        """Charged a little later, as it takes from what is reserved and so from nobody else."""
        if self._is_over:
            return
        is_first, self._used = self._used is UNUSED, used
        if is_first:
            self.charge(urgent=True)
        else:
            self._ledger.moved(self)

    def settle(self, used: Used) -> None:
        if not self._is_over:
            self._used = used
            self._end("settled")

    def release(self) -> None:
        if not self._is_over:
            self._end("released")

    def charge(self, *, urgent: bool = False) -> None:
        """For what was told since the last time."""
        opened = self._open
        if self._is_over or self._used == opened.used:
            return
        self._ledger.use(opened, self._used)
        self._row = evolve(
            self._row,
            used=self._used,
            pico_usd=opened.charged.pico_usd,
            uncharged_tokens=opened.uncharged.tokens,
        )
        self._ledger.write(self._row, urgent=urgent)

    def __enter__(self) -> "Held":
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def _end(self, outcome: Outcome) -> None:
        self.charge()
        self._is_over = True
        self._ledger.close(self._open)
        self._row = evolve(self._row, outcome=outcome, closed_at=time.time())
        self._ledger.write(self._row, urgent=True)


@define(eq=False)
class Ledger:
    """A `Budgets`.  `keys` gives those in force, `limits` the caps of each account."""

    _database: Database
    _keys: Callable[[], Keys]
    _limits: Mapping[str, tuple[Cap, ...]]
    _clock: Clock
    _retention_days: float
    _spending: Spending
    set_aside: str = field(init=False)  # where a damaged ledger went whose loss nobody accepted
    _book: Book = field(init=False)
    _next_id: int = field(init=False)
    _failure: str = field(default="", init=False)  # why the last commit failed
    _pending: Pending = field(factory=Pending, init=False)
    _moved: dict[Held, None] = field(factory=dict, init=False)  # with progress to be charged
    _written: Reply[None] = field(factory=Reply, init=False)  # when what is pending is on disk
    _due: float = field(default=math.inf, init=False)  # when what is not urgent is to be written
    _gathered: trio.Event = field(factory=trio.Event, init=False)
    _hurry: trio.Event = field(factory=trio.Event, init=False)
    _stamps: bool = field(default=True, init=False)  # the clock is due to be written
    _thread: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(1), init=False)

    def __attrs_post_init__(self) -> None:
        found = self._database.found
        self._book, self._next_id = Book(dict(found.meters)), found.next_id
        self.set_aside = found.set_aside
        self._spending.watch(self.budgets)
        if found.num_crashed:
            log.warning("requests of a process that died are settled", count=found.num_crashed)

    # -- what others call ------------------------------------------------------------------------

    async def resolve(self, secret: bytes) -> Key | None:
        return self._keys().find(secret, time.time())

    async def reserve(self, wanted: Wanted) -> Held:
        """Room for a request, on disk.  Raises the errors of `Budgets.reserve`."""
        who = wanted.principal
        try:
            held = self._reserve(wanted)
            try:
                await self.flush()
            except BaseException:
                held.release()
                raise
        except HelexaError as error:
            self._spending.refused(who, REASONS.get(type(error), "other"))
            kind = f"refused: {error.code}"
            self.note(kind, who, error.message, wanted.request_id, as_one=True)
            raise
        return held

    def snapshot(self, principal: Principal) -> Remaining | None:
        return self._book.remaining(self.caps_of(principal), self._clock.seconds())

    def refused(self, error: HelexaError, address: str, request_id: str) -> None:
        self.note(f"refused: {error.code}", None, f"from {address}", request_id, as_one=True)

    def caps_of(self, principal: Principal) -> tuple[Cap, ...]:
        """The key's and its account's."""
        account = self._limits.get(principal.account_id, ())
        return self._keys().caps_of(principal) + account

    def budgets(self) -> Iterator[tuple[Cap, Meter]]:
        """Every cap in force, and what counts against it now."""
        keys = (key for key in self._keys().by_hash.values() if not key.is_revoked)
        of_keys = (cap for key in keys for cap in key.caps)
        of_accounts = (cap for caps in self._limits.values() for cap in caps)
        now = self._clock.seconds()
        for cap in dict.fromkeys((*of_keys, *of_accounts)):
            yield cap, self._book.budget(cap, now)

    def meter(self, cap: Cap) -> Meter:
        """What counts against `cap` now."""
        return self._book.budget(cap, self._clock.seconds())

    @property
    def num_open(self) -> int:
        """Reservations that are neither settled nor released."""
        return self._book.num_open

    def note(
        self,
        kind: str,
        principal: Principal | None,
        text: str,
        request_id: str = "",
        *,
        as_one: bool = False,
    ) -> None:
        """Something for the audit; `as_one` counts what is alike within one commit."""
        account, key = (principal.account_id, principal.key_id) if principal else ("", "")
        event = Event(time.time(), kind, account, key, request_id, text)
        self._pending.add(event, as_one=as_one)
        self._gather()

    async def flush(self) -> None:
        """Wait until everything so far is on disk.  LedgerUnavailable if it cannot be."""
        written = self._written
        self._gather(urgent=True)
        try:
            with trio.fail_after(PATIENCE_SECONDS):
                await written.wait()
        except LedgerUnavailable as error:
            raise error.again() from None
        except trio.TooSlowError:
            raise self._unavailable("its disk does not answer") from None

    async def accept_loss(self) -> None:
        """Go on without the ledger that was set aside: all that it knew of spending is forgotten."""
        self.note("loss accepted", None, self.set_aside)
        self._pending.accepts_loss = True
        await self.flush()
        self.set_aside = ""

    # -- for its reservations --------------------------------------------------------------------

    def moved(self, held: Held) -> None:
        self._moved[held] = None
        self._gather()

    def use(self, opened: Open, used: Used) -> None:
        was_covered = opened.uncharged == NOTHING
        self._book.use(opened, used, self._clock.seconds())
        if was_covered and opened.uncharged != NOTHING:
            log.warning(
                "a request took more than was reserved, and no budget has room for the rest",
                request_id=opened.wanted.request_id,
                tokens=opened.uncharged.tokens,
            )

    def close(self, opened: Open) -> None:
        self._book.close(opened, self._clock.seconds())
        self._spending.spent(opened.wanted.principal, opened.used, opened.charged)

    def write(self, row: Row, *, urgent: bool = False) -> None:
        self._pending.put(row)
        self._gather(urgent=urgent)

    def _gather(self, *, urgent: bool = False) -> None:
        """There is something for the next commit."""
        self._due = min(self._due, trio.current_time() + LAZY_SECONDS)
        self._gathered.set()
        if urgent:
            self._hurry.set()

    # -- deciding --------------------------------------------------------------------------------

    def _reserve(self, wanted: Wanted) -> Held:
        caps = self.caps_of(wanted.principal)
        self._check_usable(caps)
        opened = self._book.reserve(self._next_id, wanted, caps, self._clock.seconds())
        if isinstance(opened, Refused):
            raise refusal(opened, wanted)
        self._next_id += 1
        row = row_of(opened)
        self._pending.put(row)
        return Held(self, opened, row)

    def _check_usable(self, caps: Sequence[Cap]) -> None:
        if self._failure:
            raise self._unavailable()
        if caps and self.set_aside:
            raise LedgerUnavailable(
                "what keys with a budget have spent is not known, because the ledger is damaged: "
                "its operator can restore a backup or accept the loss",
                retry_after=60,
            )

    def _unavailable(self, why: str = "") -> LedgerUnavailable:
        return LedgerUnavailable(
            f"what is spent cannot be written down ({why or self._failure}), so nothing is served",
            retry_after=5,
        )

    # -- the actor -------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what changes until cancelled; then what changed last."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._checkpoint_for_ever)
                nursery.start_soon(self._prune_for_ever)
                task_status.started()
                await self._write_for_ever()
        finally:
            self._write_last()

    async def _write_for_ever(self) -> None:
        while True:
            await self._gathered.wait()
            with trio.move_on_at(self._due):
                await self._hurry.wait()
            if trio.current_time() >= self._due:
                self._charge_moved()
            batch, written = self._take()
            try:
                await self._in_thread(self._database.commit, batch)
            except sqlite3.Error as error:
                self._put_back(batch, written, str(error))
                await trio.sleep(RETRY_SECONDS)
            else:
                self._has_written(written)

    async def _in_thread(self, do: Callable[..., None], *args: object) -> None:
        """One at a time, and to its end: two would mix up their order."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(do, *args, limiter=self._thread)

    def _charge_moved(self) -> None:
        """For the progress that gathered; with every commit it would be too often."""
        for held in self._moved:
            held.charge()
        self._moved.clear()
        self._due = math.inf

    def _take(self) -> tuple[Batch, Reply[None]]:
        stamp = self._clock.stamp() if self._stamps else None
        batch, self._stamps = self._pending.take(self._book.take_changed(), stamp), False
        written, self._written = self._written, Reply()
        self._gathered, self._hurry = trio.Event(), trio.Event()
        if self._moved:
            self._gathered.set()
        else:
            self._due = math.inf
        return batch, written

    def _has_written(self, written: Reply[None]) -> None:
        if self._failure:
            log.info("the ledger can be written again")
        self._failure = ""
        written.set(None)

    def _put_back(self, batch: Batch, written: Reply[None], reason: str) -> None:
        if reason != self._failure:
            log.error("the ledger cannot be written; nothing is served until it can", reason=reason)
        self._failure = reason
        self._pending.put_back(batch)
        self._book.changed |= batch.meters.keys()
        self._stamps |= batch.stamp is not None
        self._gather()
        written.fail(self._unavailable())

    def _write_last(self) -> None:
        self._stamps = True
        self._charge_moved()
        batch, written = self._take()
        try:
            self._database.commit(batch)
        except sqlite3.Error as error:
            log.error("the last of the ledger is not written", reason=str(error))
        self._failure = "helexa is stopping"
        written.fail(self._unavailable())
        self._written.fail(self._unavailable())  # of whoever still asks

    async def _checkpoint_for_ever(self) -> None:
        while True:
            await trio.sleep(CHECKPOINT_SECONDS)
            self._stamps = True  # with the next commit
            try:
                await trio.to_thread.run_sync(self._database.checkpoint)
            except sqlite3.Error as error:
                log.warning("the ledger was not brought to the disk", reason=str(error))

    async def _prune_for_ever(self) -> None:
        while self._retention_days:
            now = min(time.time(), self._clock.seconds())  # nothing is old because a clock was set
            before = now - self._retention_days * DAY_SECONDS
            try:
                await self._in_thread(self._database.prune, before)
            except sqlite3.Error as error:
                log.warning("old rows of the ledger were not pruned", reason=str(error))
            await trio.sleep(PRUNE_SECONDS)


def row_of(opened: Open) -> Row:
    wanted = opened.wanted
    return Row(
        opened.id,
        wanted.request_id,
        wanted.principal.account_id,
        wanted.principal.key_id,
        wanted.model,
        time.time(),
        opened.most.tokens,
    )
