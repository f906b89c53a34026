"""The ledger: the one writer of who spent and holds what, in memory at once and on disk right after.

What is decided counts from that moment for everyone.  Of a request that a budget bounds, the
reservation is also in the file before the first token of an answer is given, so that no budget is spent
that cannot be written down; others are answered while the file is less than a second behind.  While
nothing can be written nothing can be reserved.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import trio
from attrs import define, evolve, field

from helexa import logs
from helexa.accounts import audit
from helexa.accounts.amount import NOTHING, UNUSED, Amount, Used
from helexa.accounts.book import Book, Open, Refused
from helexa.accounts.clock import Clock
from helexa.accounts.database import Database
from helexa.accounts.keys import Key, Keys
from helexa.accounts.provider import Remaining, Wanted
from helexa.accounts.refusal import refusal
from helexa.accounts.rows import Event, Outcome, Row
from helexa.accounts.spending import Spending
from helexa.accounts.tally import Tally
from helexa.accounts.windows import Cap, Standing
from helexa.actors.journal import Journal
from helexa.actors.mailbox import Reply
from helexa.conversation import Principal
from helexa.errors import (
    BudgetExhausted,
    BudgetHeld,
    HelexaError,
    InsufficientQuota,
    LedgerUnavailable,
    TooManyAttempts,
    Unauthorized,
)

log = logs.get("helexa.ledger")

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
    _unwritten: Reply[None] | None = None  # what an answer has to wait for
    _used: Used = field(default=UNUSED, init=False)  # as it was told last
    _is_over: bool = field(default=False, init=False)

    @property
    def max_output(self) -> int:
        return self._open.wanted.max_output

    async def written(self) -> None:
        if self._unwritten is not None:
            await self._ledger.written(self._open.wanted, self._unwritten)
            self._unwritten = None

    def used(self, used: Used) -> None:
        """Charged a little later, as it takes from what is reserved and so from nobody else."""
        if self._is_over:
            return
        is_first, self._used = self._used is UNUSED, used
        if is_first:
            self.charge(soon=True)
        else:
            self._ledger.moved(self)

    def settle(self, used: Used) -> None:
        if not self._is_over:
            self._used = used
            self._end("settled")

    def release(self) -> None:
        if not self._is_over:
            self._end("released")

    def charge(self, *, soon: bool = False) -> None:
        """For what was told since the last time."""
        if self._is_over or self._used == self._open.used:
            return
        self._ledger.use(self._open, self._used)
        self._ledger.write(self._changed(), soon=soon)

    def __enter__(self) -> "Held":
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def _end(self, outcome: Outcome) -> None:
        self._is_over = True
        self._ledger.close(self._open, self._used)
        self._ledger.write(self._changed(outcome, time.time()), soon=True)

    def _changed(self, outcome: Outcome = "open", closed_at: float | None = None) -> Row:
        opened = self._open
        return evolve(
            self._row,
            outcome=outcome,
            closed_at=closed_at,
            used=self._used,
            pico_usd=opened.charged.pico_usd,
            uncharged_tokens=opened.uncharged.tokens,
        )


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
    _journal: Journal = field(init=False)
    _next_id: int = field(init=False)
    _last_event_id: int = field(init=False)
    _tally: Tally = field(factory=Tally, init=False)
    _moved: dict[Held, None] = field(factory=dict, init=False)  # with progress to be charged

    def __attrs_post_init__(self) -> None:
        found = self._database.found
        self._book, self._next_id = Book(dict(found.meters)), found.next_id
        self._last_event_id = found.last_event_id
        self._journal = Journal(
            self._database, self._book, self._clock, self._retention_days, self._charge_moved
        )
        self.set_aside = found.set_aside
        self._spending.watch(self.budgets)
        if found.num_crashed:
            log.warning("requests of a process that died are settled", count=found.num_crashed)

    # -- what others call ------------------------------------------------------------------------

    async def resolve(self, secret: bytes) -> Key | None:
        return self._keys().find(secret, time.time())

    async def reserve(self, wanted: Wanted) -> Held:
        """Room for a request.  Raises the errors of `Budgets.reserve`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            return self._reserve(wanted)
        except HelexaError as error:
            self._note_denial(error, wanted)
            raise

    def snapshot(self, principal: Principal) -> Remaining | None:
        if self.set_aside:  # nobody knows
            return None
        return self._book.remaining(self.caps_of(principal), self._clock.seconds())

    def refused(
        self, error: HelexaError, principal: Principal | None, request_id: str, address: str = ""
    ) -> None:
        if audit.is_refusal(error):
            is_of_key = isinstance(error, Unauthorized | TooManyAttempts)
            text = f"from {address}" if is_of_key else error.message
            self._note_refusal(error, principal, request_id, text)

    def follow(self, limits: Mapping[str, tuple[Cap, ...]], retention_days: float) -> None:
        """Other caps of accounts, and how long rows are kept, from the next request on."""
        self._limits = limits
        self._journal.keep(retention_days)

    def caps_of(self, principal: Principal) -> tuple[Cap, ...]:
        """The key's and its account's."""
        account = self._limits.get(principal.account_id, ())
        return self._keys().caps_of(principal) + account

    def budgets(self) -> Iterator[Standing]:
        """Every cap in force, as it stands now."""
        keys = (key for key in self._keys().by_hash.values() if not key.is_revoked)
        of_keys = (cap for key in keys for cap in key.caps)
        of_accounts = (cap for caps in self._limits.values() for cap in caps)
        now = self._clock.seconds()
        for cap in dict.fromkeys((*of_keys, *of_accounts)):
            yield self._book.standing(cap, now)

    def standing(self, cap: Cap) -> Standing:
        """How `cap` stands now, also one that nobody set."""
        return self._book.standing(cap, self._clock.seconds())

    @property
    def num_open(self) -> int:
        """Reservations that are neither settled nor released."""
        return self._book.num_open

    def note(self, kind: str, principal: Principal | None, text: str) -> None:
        """Something for the audit."""
        self._journal.add(self._event(kind, principal, "", text))

    async def flush(self) -> None:
        """Wait until everything so far is on disk.  LedgerUnavailable if it cannot be."""
        await self._journal.flush()

    async def accept_loss(self) -> None:
        """Go on without the ledger that was set aside: all that it knew of spending is forgotten."""
        self.note("loss accepted", None, self.set_aside)
        await self._journal.accept_loss()
        self.set_aside = ""

    # -- for its reservations --------------------------------------------------------------------

    async def written(self, wanted: Wanted, reply: Reply[None]) -> None:
        try:
            await self._journal.wait(reply)
        except HelexaError as error:
            self._note_denial(error, wanted)
            raise

    def moved(self, held: Held) -> None:
        self._moved[held] = None
        self._journal.gather()

    def use(self, opened: Open, used: Used) -> None:
        before = opened.uncharged
        self._book.use(opened, used, self._clock.seconds())
        tell_uncharged(opened, before)

    def close(self, opened: Open, used: Used) -> None:
        before = opened.uncharged
        self._book.close(opened, used, self._clock.seconds())
        tell_uncharged(opened, before)
        self._spending.spent(opened.wanted.principal, opened.used, opened.charged)

    def write(self, row: Row, *, soon: bool = False) -> None:
        self._journal.put(row, soon=soon)

    # -- deciding --------------------------------------------------------------------------------

    def _reserve(self, wanted: Wanted) -> Held:
        caps = self.caps_of(wanted.principal)
        self._check_usable(caps)
        opened = self._book.reserve(self._next_id, wanted, caps, self._clock.seconds())
        if isinstance(opened, Refused):
            raise refusal(opened, wanted)
        self._next_id += 1
        row = row_of(opened)
        return Held(self, opened, row, self._begin_writing(row, is_bounded=bool(caps)))

    def _begin_writing(self, row: Row, *, is_bounded: bool) -> Reply[None] | None:
        """What an answer has to wait for.

        A request that nobody bounds spends nothing that could be missing, as long as no more than may
        be lost is not written yet.
        """
        written = self._journal.put(row, soon=is_bounded)
        return written if is_bounded or self._journal.is_behind else None

    def _check_usable(self, caps: Sequence[Cap]) -> None:
        if self._journal.failure:
            raise self._journal.unavailable()
        if caps and self.set_aside:
            raise LedgerUnavailable(
                "what keys with a budget have spent is not known, because the ledger is damaged: "
                "its operator can restore a backup or accept the loss",
                retry_after=60,
            )

    # -- what is written -------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what changes until cancelled; then what changed last."""
        await self._journal.run(task_status=task_status)

    def _charge_moved(self) -> None:
        """For the progress that gathered; with every commit it would be too often."""
        for held in self._moved:
            held.charge()
        self._moved.clear()

    def _note_denial(self, error: HelexaError, wanted: Wanted) -> None:
        self._spending.refused(wanted.principal, REASONS.get(type(error), "other"))
        self._note_refusal(error, wanted.principal, wanted.request_id, error.message)

    def _note_refusal(
        self, error: HelexaError, principal: Principal | None, request_id: str, text: str
    ) -> None:
        event = self._event(audit.kind_of(error), principal, request_id, text)
        self._journal.add(self._tally.add(event, trio.current_time()))

    def _event(self, kind: str, principal: Principal | None, request_id: str, text: str) -> Event:
        account, key = (principal.account_id, principal.key_id) if principal else ("", "")
        self._last_event_id += 1
        return Event(
            time.time(), kind, account, key, request_id, audit.told(text), id=self._last_event_id
        )


def tell_uncharged(opened: Open, before: Amount) -> None:
    """Once for each request, in the log."""
    if before == NOTHING and opened.uncharged != NOTHING:
        log.warning(
            "a request took more than was reserved, and no budget has room for the rest",
            request_id=opened.wanted.request_id,
            tokens=opened.uncharged.tokens,
        )


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
