"""Admission as a pure policy: who may start on one model now, who waits, who is told to come back.

The admission actor (`helexa.actors.admission`) keeps the one `Line` of its model and carries out what
it decides.  Who is next is the business of `fleet.queue` and `fleet.turns`; here is how many.
"""

from typing import Literal

from attrs import define, field, frozen

from helexa.conversation import Principal
from helexa.fleet.queue import Order, Queue
from helexa.fleet.turns import Ticket

OVERFLOW = 2  # times max_queue_depth, for those of whom nothing waits yet


@frozen
class Rules:
    """`max_in_flight` slots; `max_per_principal` 0 is off, "auto" shares while others wait."""

    max_in_flight: int
    max_queue_depth: int = 8
    max_per_principal: int | Literal["auto"] = "auto"


Decision = Literal["admitted", "queued", "queue_full", "own_queue_full", "principal_busy"]
Verdict = Decision | Literal["waited_too_long"]  # the last of one that was queued before


@define
class Presence:
    """What one principal has on the model."""

    running: int = 0
    waiting: int = 0
    weight: int = 0  # as its first waiting request said


@frozen
class Standing:
    """Why a request waits: of `width` slots `in_flight` are taken, and who else waits."""

    in_flight: int
    width: int
    slots: int  # that it needs
    place: int  # how many go before it
    waiting: int
    principals: int
    weight: int  # of the principal, in `weights`, those of all who wait
    weights: int
    own_waiting: int


@define(eq=False)
class Line:
    """Who runs and who waits on one model."""

    rules: Rules
    version: int = field(default=0, init=False)  # grows whenever the order may have changed
    running: dict[int, Ticket] = field(factory=dict, init=False)
    waiting: dict[int, Ticket] = field(factory=dict, init=False)
    in_flight: int = field(default=0, init=False)  # slots in use
    num_principals: int = field(default=0, init=False)  # of those who wait
    _queue: Queue = field(factory=Queue, init=False)
    _weights: int = field(default=0, init=False)
    _present: dict[Principal, Presence] = field(factory=dict, init=False)

    # -- what happens ----------------------------------------------------------------------------

    def arrive(self, ticket: Ticket) -> tuple[Decision, list[Ticket]]:
        """A request comes to the door: what becomes of it, and all who start by that."""
        if self._over_cap(ticket):
            return "principal_busy", []
        refusal = self._refusal(ticket)
        if refusal is not None and not self._fits(ticket):
            return refusal, []
        self.version += 1
        self._push(ticket)
        admitted = self.admit()
        if ticket.id in self.running:
            return "admitted", admitted
        if refusal is None:
            return "queued", admitted
        self._take(ticket)
        self._queue.remove(ticket)
        return refusal, admitted

    def leave(self, ticket_id: int, tokens: int | None = None) -> list[Ticket]:
        """A request is done, with what it took if that is known, or gave up waiting: who starts now.

        Unknown ids are ignored.
        """
        self.version += 1
        if (ticket := self.running.pop(ticket_id, None)) is not None:
            self.in_flight -= ticket.slots
            self._present[ticket.principal].running -= 1
            self._forget(ticket.principal)
            if tokens is not None:
                self._queue.correct(ticket, max(1, tokens))
        elif (ticket := self.waiting.get(ticket_id)) is not None:
            self._take(ticket)
            self._queue.remove(ticket)
        return self.admit()

    def admit(self) -> list[Ticket]:
        """Start whoever may start now.  Nobody passes the one who is next, however many slots it needs."""
        admitted: list[Ticket] = []
        while (ticket := self._queue.first()) is not None and self._fits(ticket):
            self._queue.pop()
            self._take(ticket)
            self._start(ticket)
            admitted.append(ticket)
        return admitted

    def dismiss(self) -> None:
        """Nobody waits any more."""
        self.version += 1
        for ticket in list(self.waiting.values()):
            self._take(ticket)
            self._queue.remove(ticket)

    # -- what is to be told ----------------------------------------------------------------------

    def order(self) -> Order:
        """Who waits, in the order of service.  O(n log n)."""
        return self._queue.order()

    def slots_ahead(self, newcomer: Ticket, order: Order) -> int:
        """Slots of those who wait and go before a request that comes now."""
        return order.slots[self._queue.place_of(newcomer, order)]

    def standing(self, ticket: Ticket, place: int) -> Standing:
        """Of one who waits, or would."""
        own = self._present.get(ticket.principal, Presence())
        return Standing(
            self.in_flight,
            self.rules.max_in_flight,
            ticket.slots,
            place,
            len(self.waiting),
            self.num_principals,
            own.weight if own.waiting else ticket.share.weight,
            self._weights + (0 if own.waiting else ticket.share.weight),
            own.waiting,
        )

    # -- how many --------------------------------------------------------------------------------

    def _fits(self, ticket: Ticket) -> bool:
        """A request wider than the model runs alone."""
        width = self.rules.max_in_flight
        return self.in_flight + min(ticket.slots, width) <= width

    def _over_cap(self, ticket: Ticket) -> bool:
        """A number caps a principal's requests, waiting ones included, as the reference does."""
        cap = self.rules.max_per_principal
        if cap == "auto" or cap == 0:
            return False
        own = self._present.get(ticket.principal, Presence())
        return own.running + own.waiting >= cap

    def _refusal(self, ticket: Ticket) -> Decision | None:
        """Why it may not wait.

        With "auto", while others wait, a principal has its share of the places: beyond it its own queue
        is full.  Who has nothing waiting finds a place although somebody who came first has taken all.
        """
        depth, num_waiting = self.rules.max_queue_depth, len(self.waiting)
        if self.rules.max_per_principal == "auto" and not self._is_alone(ticket.principal):
            own = self._present.get(ticket.principal, Presence())
            if own.waiting >= self._own_share(ticket):
                return "own_queue_full"
            depth *= 1 if own.waiting else OVERFLOW
        return "queue_full" if num_waiting >= depth else None

    def _is_alone(self, principal: Principal) -> bool:
        own = self._present.get(principal, Presence())
        return len(self.waiting) == own.waiting

    def _own_share(self, ticket: Ticket) -> int:
        """How many requests its principal may have waiting; one, at least, if anybody may wait."""
        depth = self.rules.max_queue_depth
        if self.rules.max_per_principal != "auto" or self._is_alone(ticket.principal):
            return depth
        own = self._present.get(ticket.principal, Presence())
        if own.waiting:
            return max(1, depth * own.weight // self._weights)
        weight = ticket.share.weight
        return max(1, depth * weight // (self._weights + weight))

    # -- counting --------------------------------------------------------------------------------

    def _push(self, ticket: Ticket) -> None:
        self.waiting[ticket.id] = ticket
        own = self._present.setdefault(ticket.principal, Presence())
        if not own.waiting:
            own.weight = ticket.share.weight
            self._weights += own.weight
            self.num_principals += 1
        own.waiting += 1
        self._queue.push(ticket)

    def _take(self, ticket: Ticket) -> None:
        """It does not wait any more."""
        del self.waiting[ticket.id]
        own = self._present[ticket.principal]
        own.waiting -= 1
        if not own.waiting:
            self._weights -= own.weight
            self.num_principals -= 1
        self._forget(ticket.principal)

    def _start(self, ticket: Ticket) -> None:
        self.running[ticket.id] = ticket
        self.in_flight += ticket.slots
        self._present.setdefault(ticket.principal, Presence()).running += 1

    def _forget(self, principal: Principal) -> None:
        own = self._present[principal]
        if not own.running and not own.waiting:
            del self._present[principal]


def queued_because(standing: Standing) -> str:
    """For the decision log: counts and shares, no names."""
    needs = f", it needs {standing.slots}" if standing.slots > 1 else ""
    why = f"queued: {standing.in_flight} of {standing.width} slots are taken{needs}; "
    why += (
        f"{standing.place} of {standing.waiting - 1} go first" if standing.place else "it is next"
    )
    if standing.principals > 1:
        why += (
            f"; {standing.principals} keys wait, its share is {standing.weight}/{standing.weights}"
        )
    return why
