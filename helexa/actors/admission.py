"""The admission actor of one model: the only writer of who runs and who waits on it.

It also has the last word on whether the model may go: "nothing runs, nothing waits" is decided here,
between two messages, and not by whoever read a status a moment ago.
"""

import itertools
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import trio
from attrs import define, field, frozen

from helexa.actors.mailbox import Mailbox, Reply, Request
from helexa.conversation import Principal, Progress
from helexa.errors import ActorDown, Busy, HelexaError, ModelBusy, PrincipalBusy
from helexa.fleet.admission import Decision, Line, Rules, Verdict, queued_because
from helexa.fleet.pace import Demand, Pace, Spent
from helexa.fleet.queue import Order
from helexa.fleet.share import Share
from helexa.fleet.turns import Ticket
from helexa.trace import Trace

EXACT_UP_TO = 100  # who wait: beyond it, places come from an order two seconds old at most
ORDER_SECONDS = 2.0
LATEST = Ticket(sys.maxsize, Principal("", ""))  # of nobody who is here


class ModelGone(Exception):
    """The model is being unloaded: look for it again."""


@define(eq=False)
class Slot:
    """A place in the line, held by one request.  `admitted_at` is None while it waits."""

    ticket: Ticket
    answers: int = 1
    spent: Spent | None = None  # for the one who holds it to say, before it is given back
    admitted_at: float | None = None
    turn: Reply[None] = field(factory=Reply)  # given when it may start


@frozen(eq=False)
class Enter(Request[str]):
    """Answered at once: with nothing when the request may start, else with why it must wait."""

    ticket: Ticket
    turn: Reply[None]


@frozen
class Leave:
    ticket: Ticket
    answers: int
    seconds: float | None  # how long it ran, if it ran
    spent: Spent | None


@frozen(eq=False)
class Close(Request[None]):
    """Admit nobody any more; answered when nobody runs.  With `if_idle` refused unless idle now."""

    if_idle: bool = False


@frozen
class Occupancy:
    """What a status shows of a model's door.

    `in_flight` of `max_in_flight` slots are taken, `queue_depth` requests of `waiting_keys` keys wait.
    `service_seconds` is what a request takes on average, None before the first; a request of a key that
    has none here would wait for `expected_wait_seconds`.
    """

    in_flight: int = 0
    max_in_flight: int = 0
    queue_depth: int = 0
    waiting_keys: int = 0
    service_seconds: float | None = None
    expected_wait_seconds: float = 0.0


# A model, a node, and how busy it is there.
Door = tuple[str, str, Occupancy]


def unheard(verdict: Verdict) -> None:
    """The default of `on_verdict`."""


class Admission:
    """`on_verdict` hears of every request what became of it at the door."""

    def __init__(
        self,
        model: str,
        rules: Rules,
        max_wait_seconds: float,
        on_verdict: Callable[[Verdict], None] = unheard,
    ) -> None:
        self.rules = rules
        self._on_verdict = on_verdict
        self._model = model
        self._max_wait_seconds = max_wait_seconds
        self._mailbox: Mailbox[Enter | Leave | Close] = Mailbox(f"admission of {model}")
        self._ids = itertools.count(1)
        self._line = Line(rules)
        self._pace = Pace()
        self._order = self._line.order()
        self._ordered = (0, 0.0)  # its version, and when it was made
        self._served = 0
        self._turns: dict[int, Reply[None]] = {}
        self._started: dict[int, float] = {}  # since when who runs, by ticket
        self._closing: list[Close] = []
        self._gone = False

    # -- what others call ------------------------------------------------------------------------

    def occupancy(self) -> Occupancy:
        line, pace = self._line, self._pace
        return Occupancy(
            line.in_flight,
            self.rules.max_in_flight,
            len(line.waiting),
            line.num_principals,
            pace.seconds if pace.num_samples else None,
            self._expected_wait(LATEST),
        )

    def slot(self, principal: Principal, share: Share, demand: Demand) -> Slot:
        """For one request; what its answers will take is guessed from those before."""
        slots = min(demand.answers, self.rules.max_in_flight)
        ticket = Ticket(next(self._ids), principal, slots, self._pace.cost(demand), share)
        return Slot(ticket, demand.answers)

    async def admit(
        self, slot: Slot, trace: Trace, tick_seconds: float
    ) -> AsyncGenerator[Progress, None]:
        """Progress until the request of `trace` may start.  Busy, PrincipalBusy or ModelGone.

        Whatever happens, the caller gives the slot back with `leave`.
        """
        asked_at = trio.current_time()
        if why := await self.enter(slot):
            trace.note(why)
            async with aclosing(self.wait(slot, tick_seconds)) as waiting:
                async for progress in waiting:
                    trace.queue_seconds = trio.current_time() - asked_at
                    yield progress
        trace.admitted_at = trio.current_time()
        trace.queue_seconds = trace.admitted_at - asked_at
        trace.note(f"admitted after {trace.queue_seconds:.3f} s")

    async def enter(self, slot: Slot) -> str:
        """Ask to start: why not yet, if it must `wait`.  Raises Busy, PrincipalBusy or ModelGone."""
        try:
            why = await self._mailbox.ask(Enter(slot.ticket, slot.turn))
        except Closed:
            raise ModelGone from None
        if not why:
            slot.admitted_at = trio.current_time()
        return why

    async def wait(self, slot: Slot, tick_seconds: float) -> AsyncGenerator[Progress, None]:
        """Wait for the turn, telling every `tick_seconds` how many go before.  Busy or ModelGone."""
        deadline = trio.current_time() + self._max_wait_seconds
        async with aclosing(slot.turn.ticks(tick_seconds, deadline)) as ticks:
            async for _ in ticks:
                yield Progress("queued", self._place(slot.ticket), len(self._line.waiting))
        if not slot.turn.given:
            self._on_verdict("waited_too_long")
            raise self._waited_too_long(slot.ticket)
        try:
            await slot.turn.wait()
        except Closed:
            raise ModelGone from None
        slot.admitted_at = trio.current_time()

    def leave(self, slot: Slot) -> None:
        """Give the place back, admitted or not.  Never waits, never fails."""
        ran = None if slot.admitted_at is None else trio.current_time() - slot.admitted_at
        self._mailbox.tell(Leave(slot.ticket, slot.answers, ran, slot.spent))

    async def close(self, *, if_idle: bool = False) -> None:
        """Admit nobody any more and wait until nobody runs; ModelBusy if not idle and it must be."""
        await self._mailbox.ask(Close(if_idle))

    # -- the actor -------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        try:
            await self._mailbox.serve(self._handle)
        finally:
            self._mailbox.close()
            self._dismiss(ActorDown(f"admission of {self._model} ended with this request in hand"))

    def _handle(self, message: Enter | Leave | Close) -> None:
        match message:
            case Enter():
                message.reply.set(self._arrive(message))
            case Leave():
                self._leave(message)
            case Close():
                self._close(message)

    def _arrive(self, enter: Enter) -> str:
        if self._gone:
            raise Closed
        ticket = enter.ticket
        self._turns[ticket.id] = enter.turn
        decision, admitted = self._line.arrive(ticket)
        self._on_verdict(decision)
        self._start(admitted)
        if decision == "admitted":
            return ""
        if decision == "queued":
            return queued_because(self._line.standing(ticket, self._place(ticket)))
        del self._turns[ticket.id]
        raise self._refused(decision, ticket)

    def _start(self, admitted: list[Ticket]) -> None:
        now = trio.current_time()
        for ticket in admitted:
            self._started[ticket.id] = now
            self._turns.pop(ticket.id).set(None)

    def _leave(self, leave: Leave) -> None:
        ticket, spent = leave.ticket, leave.spent
        self._started.pop(ticket.id, None)
        if (turn := self._turns.pop(ticket.id, None)) is not None:
            turn.fail(Closed())  # nobody waits for it any more
        admitted = self._line.leave(ticket.id, None if spent is None else spent.tokens)
        if leave.seconds is not None:
            self._served += 1
            if spent is not None:
                self._pace = self._pace.after(leave.seconds, spent.answer_tokens / leave.answers)
        self._start(admitted)
        self._answer_closing()

    def _close(self, close: Close) -> None:
        is_idle = self._served and not (self._line.running or self._line.waiting)
        if close.if_idle and not self._gone and not is_idle:
            raise ModelBusy(self._why_busy())
        self._gone = True
        self._dismiss(Closed())
        self._closing.append(close)
        self._answer_closing()

    def _dismiss(self, error: HelexaError) -> None:
        """Nobody who waits will have a turn."""
        self._line.dismiss()
        while self._turns:
            self._turns.popitem()[1].fail(error.again())

    def _answer_closing(self) -> None:
        if self._line.running:
            return
        while self._closing:
            self._closing.pop().reply.set(None)

    # -- what it tells ---------------------------------------------------------------------------

    def _refused(self, decision: Decision, ticket: Ticket) -> HelexaError:
        seconds = max(1.0, self._expected_wait(ticket))
        if decision == "queue_full":
            number = len(self._line.waiting)
            others = "1 request waits" if number == 1 else f"{number} requests wait"
            return Busy(f"the model is busy: {others} already", retry_after=seconds)
        if decision == "own_queue_full":
            own_waiting = self._line.standing(ticket, 0).own_waiting
            why = f"you have {own_waiting} waiting for this model, your share of its queue while"
            return PrincipalBusy(f"{why} others wait too", retry_after=seconds)
        cap = self.rules.max_per_principal
        why = f"you have {cap} under way on this model, as many as you may; wait for one to end"
        return PrincipalBusy(why, retry_after=max(seconds, self._wait_for_own(ticket.principal)))

    def _why_busy(self) -> str:
        running, waiting = len(self._line.running), len(self._line.waiting)
        if running or waiting:
            return f"the model is busy: {running} running, {waiting} waiting"
        return "the model was loaded for a request that it has not served yet"

    def _waited_too_long(self, ticket: Ticket) -> Busy:
        """It stands in the line still, and would come back behind its own others."""
        seconds = self._expected_wait(ticket, already=ticket.slots)
        why = f"the model is busy: waited {self._max_wait_seconds:.0f} s for a free slot"
        return Busy(why, retry_after=max(1.0, seconds))

    def _expected_wait(self, newcomer: Ticket, already: int = 0) -> float:
        """Seconds; `already` slots of it are in the line."""
        ahead = self._line.slots_ahead(newcomer, self._current_order()) - already
        elapsed = [seconds for one, seconds in self._running() for _ in range(one.slots)]
        return self._pace.wait(self.rules.max_in_flight, elapsed, max(0, ahead), newcomer.slots)

    def _wait_for_own(self, principal: Principal) -> float:
        """Seconds until one of its requests ends, if any runs."""
        elapsed = [seconds for one, seconds in self._running() if one.principal == principal]
        return self._pace.wait(len(elapsed), elapsed, ahead=0, slots=1) if elapsed else 0.0

    def _running(self) -> list[tuple[Ticket, float]]:
        """Who runs, and for how long."""
        now = trio.current_time()
        return [(one, now - self._started[one.id]) for one in self._line.running.values()]

    def _place(self, ticket: Ticket) -> int:
        """How many go before it."""
        order = self._current_order()
        place = order.places.get(ticket.id)
        return len(order.places) if place is None else place

    def _current_order(self) -> Order:
        version, made_at = self._ordered
        now = trio.current_time()
        is_short = len(self._line.waiting) <= EXACT_UP_TO
        if version != self._line.version and (is_short or now - made_at >= ORDER_SECONDS):
            self._order, self._ordered = self._line.order(), (self._line.version, now)
        return self._order


class Closed(HelexaError):
    """Inside this module only: the model stopped admitting."""

    def __init__(self, message: str = "the model is being unloaded", **_: object) -> None:
        super().__init__(message)
