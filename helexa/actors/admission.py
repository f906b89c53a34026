"""The admission actor of one model: the only writer of who runs and who waits on it.

It also has the last word on whether the model may go: "nothing runs, nothing waits" is decided here,
between two messages, and not by whoever read a status a moment ago.
"""

import itertools
from collections.abc import AsyncGenerator
from contextlib import aclosing

import trio
from attrs import define, frozen

from helexa.actors.mailbox import Mailbox, Request
from helexa.conversation import Principal, Progress
from helexa.errors import Busy, HelexaError, ModelBusy, PrincipalBusy
from helexa.fleet.admission import Line, Rules, Ticket, admit, arrive, expected_wait, leave

FIRST_GUESS_SECONDS = 5.0  # service time of a request before one was measured
SMOOTHING = 0.3


class ModelGone(Exception):
    """The model is being unloaded: look for it again."""


@frozen(eq=False)
class Enter(Request[None]):
    """Answered when the ticket may start."""

    ticket: Ticket


@frozen
class Leave:
    ticket_id: int
    seconds: float | None  # how long it ran, if it ran


@frozen(eq=False)
class Close(Request[None]):
    """Admit nobody any more; answered when nobody runs.  With `if_idle` refused unless idle now."""

    if_idle: bool = False


@frozen
class Load:
    """What a status shows of a model's door."""

    in_flight: int
    queue_depth: int
    served: int


@define(eq=False)
class Slot:
    """A place in the line, held by one request.  `admitted_at` is None while it waits."""

    ticket: Ticket
    admitted_at: float | None = None


class Admission:
    def __init__(self, model: str, rules: Rules, max_wait_seconds: float) -> None:
        self.rules = rules
        self._max_wait_seconds = max_wait_seconds
        self._mailbox: Mailbox[Enter | Leave | Close] = Mailbox(f"admission of {model}")
        self._ids = itertools.count(1)
        self._line = Line()
        self._served = 0
        self._service_seconds = FIRST_GUESS_SECONDS
        self._entering: dict[int, Enter] = {}
        self._closing: list[Close] = []
        self._gone = False

    # -- what others call ------------------------------------------------------------------------

    def load(self) -> Load:
        return Load(self._line.in_flight, len(self._line.waiting), self._served)

    def ticket(self, principal: Principal, slots: int) -> Slot:
        return Slot(Ticket(next(self._ids), principal, min(slots, self.rules.max_in_flight)))

    async def enter(self, slot: Slot, tick_seconds: float) -> AsyncGenerator[Progress, None]:
        """Wait for admission, telling every `tick_seconds` how many are ahead.

        Raises Busy, PrincipalBusy or ModelGone.  Whatever happens, the caller gives the slot back
        with `leave`.
        """
        enter = Enter(slot.ticket)
        self._mailbox.post(enter)
        deadline = trio.current_time() + self._max_wait_seconds
        async with aclosing(enter.reply.ticks(tick_seconds, deadline)) as ticks:
            async for _ in ticks:
                yield Progress("queued", self._place(slot.ticket), len(self._line.waiting))
        if not enter.reply.given:
            raise self._busy(f"waited {self._max_wait_seconds:.0f} s for a free slot")
        try:
            await enter.reply.wait()
        except Closed:
            raise ModelGone from None
        slot.admitted_at = trio.current_time()

    def leave(self, slot: Slot) -> None:
        """Give the place back, admitted or not.  Never waits, never fails."""
        ran = None if slot.admitted_at is None else trio.current_time() - slot.admitted_at
        self._mailbox.tell(Leave(slot.ticket.id, ran))

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

    async def _handle(self, message: Enter | Leave | Close) -> None:
        match message:
            case Enter():
                self._arrive(message)
            case Leave(ticket_id, seconds):
                self._leave(ticket_id, seconds)
            case Close():
                self._close(message)

    def _arrive(self, enter: Enter) -> None:
        if self._gone:
            raise Closed
        self._line, decision = arrive(self._line, enter.ticket, self.rules)
        match decision:
            case "admitted":
                enter.reply.set(None)
            case "queued":
                self._entering[enter.ticket.id] = enter
            case "queue_full":
                raise self._busy(f"{len(self._line.waiting)} requests wait already")
            case "principal_busy":
                cap = self.rules.max_per_principal
                raise PrincipalBusy(
                    f"you have {cap} requests on this model already; wait for one to end",
                    retry_after=max(1.0, self._service_seconds),
                )

    def _leave(self, ticket_id: int, seconds: float | None) -> None:
        left = self._entering.pop(ticket_id, None)
        if left is not None:
            left.reply.fail(Closed())  # nobody waits for it any more
        self._line = leave(self._line, ticket_id)
        if seconds is not None:
            self._served += 1
            self._service_seconds += SMOOTHING * (seconds - self._service_seconds)
        self._line, admitted = admit(self._line, self.rules)
        for ticket in admitted:
            self._entering.pop(ticket.id).reply.set(None)
        self._answer_closing()

    def _close(self, close: Close) -> None:
        is_idle = self._served and not (self._line.running or self._line.waiting)
        if close.if_idle and not self._gone and not is_idle:
            raise ModelBusy(self._why_busy())
        self._gone = True
        for enter in self._entering.values():
            enter.reply.fail(Closed())
        self._entering.clear()
        self._line = Line(self._line.running)
        self._closing.append(close)
        self._answer_closing()

    def _answer_closing(self) -> None:
        if self._line.running:
            return
        while self._closing:
            self._closing.pop().reply.set(None)

    def _why_busy(self) -> str:
        running, waiting = len(self._line.running), len(self._line.waiting)
        if running or waiting:
            return f"the model is busy: {running} running, {waiting} waiting"
        return "the model was loaded for a request that it has not served yet"

    def _busy(self, why: str) -> Busy:
        wait = expected_wait(self._line, self.rules, self._service_seconds)
        return Busy(f"the model is busy: {why}", retry_after=max(1.0, wait))

    def _place(self, ticket: Ticket) -> int:
        """How many wait ahead of this one."""
        return next((i for i, t in enumerate(self._line.waiting) if t.id == ticket.id), 0)


class Closed(HelexaError):
    """Inside this module only: the model stopped admitting."""

    def __init__(self) -> None:
        super().__init__("the model is being unloaded")
