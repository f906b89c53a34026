"""Admission as a pure policy: who may start on one model now, who waits, who is told to come back.

The admission actor (`helexa.actors.admission`) keeps the one `Line` of its model and carries out what
these functions decide.
"""

from collections.abc import Sequence
from typing import Literal

from attrs import evolve, frozen

from helexa.conversation import Principal


@frozen
class Rules:
    """`max_in_flight` slots; `max_per_principal` 0 is off, "auto" shares while others wait."""

    max_in_flight: int
    max_queue_depth: int = 8
    max_per_principal: int | Literal["auto"] = "auto"


@frozen
class Ticket:
    """One request at the door; `slots` is how many sequences it runs."""

    id: int
    principal: Principal
    slots: int = 1


@frozen
class Line:
    """Who runs and who waits, in order of arrival."""

    running: tuple[Ticket, ...] = ()
    waiting: tuple[Ticket, ...] = ()

    @property
    def in_flight(self) -> int:
        """Slots in use."""
        return sum(ticket.slots for ticket in self.running)


Decision = Literal["admitted", "queued", "queue_full", "principal_busy"]


def arrive(line: Line, ticket: Ticket, rules: Rules) -> tuple[Line, Decision]:
    """A request comes to the door."""
    if _over_cap(line, ticket, rules):
        return line, "principal_busy"
    if not line.waiting and _fits(line, ticket, rules):
        return evolve(line, running=(*line.running, ticket)), "admitted"
    if len(line.waiting) >= rules.max_queue_depth:
        return line, "queue_full"
    queued = evolve(line, waiting=(*line.waiting, ticket))
    line, admitted = admit(queued, rules)
    return line, "admitted" if ticket in admitted else "queued"


def leave(line: Line, ticket_id: int) -> Line:
    """A request is done, or gave up waiting.  Unknown ids are ignored."""
    return Line(
        tuple(ticket for ticket in line.running if ticket.id != ticket_id),
        tuple(ticket for ticket in line.waiting if ticket.id != ticket_id),
    )


def admit(line: Line, rules: Rules) -> tuple[Line, Sequence[Ticket]]:
    """Start whoever may start now."""
    admitted: list[Ticket] = []
    while (ticket := _next(line, rules)) is not None:
        admitted.append(ticket)
        left = tuple(other for other in line.waiting if other is not ticket)
        line = Line((*line.running, ticket), left)
    return line, admitted


def _next(line: Line, rules: Rules) -> Ticket | None:
    """The first in the line whose principal is within its share, else the first; if it fits."""
    within = (ticket for ticket in line.waiting if _within_share(line, ticket, rules))
    ticket = next(within, line.waiting[0] if line.waiting else None)
    return ticket if ticket is not None and _fits(line, ticket, rules) else None


def _fits(line: Line, ticket: Ticket, rules: Rules) -> bool:
    """A request wider than the model runs alone."""
    return line.in_flight + min(ticket.slots, rules.max_in_flight) <= rules.max_in_flight


def _over_cap(line: Line, ticket: Ticket, rules: Rules) -> bool:
    """A number caps a principal's requests, waiting ones included, as the reference does."""
    if rules.max_per_principal == "auto" or rules.max_per_principal == 0:
        return False
    own = [t for t in (*line.running, *line.waiting) if t.principal == ticket.principal]
    return len(own) >= rules.max_per_principal


def _within_share(line: Line, ticket: Ticket, rules: Rules) -> bool:
    """With "auto", an equal part of the slots for every principal that runs or waits."""
    if rules.max_per_principal != "auto":
        return True
    active = {t.principal for t in (*line.running, *line.waiting)}
    share = max(1, rules.max_in_flight // len(active))
    own = sum(t.slots for t in line.running if t.principal == ticket.principal)
    return own < share


def expected_wait(line: Line, rules: Rules, service_seconds: float) -> float:
    """Seconds until a newcomer would start: the slots ahead of it, served at the measured pace."""
    ahead = line.in_flight + sum(ticket.slots for ticket in line.waiting)
    turns = max(0, ahead + 1 - rules.max_in_flight)
    return turns * service_seconds / rules.max_in_flight
