"""Deficit round robin over principals, weighted by tokens, without going round.

A round gives every principal who waits a quantum of tokens, times its weight.  Whoever has some left may
start a request, also a larger one, and then sits out the rounds that it owes.  So the round of a
principal's next turn is known beforehand: the lowest is served next, and in one round who was served
longest ago.  A heap of these rounds stands for the walk past all who owe.
"""

from collections import OrderedDict
from collections.abc import Iterator
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count

from attrs import define, field, frozen

from helexa.conversation import Principal
from helexa.fleet.share import Share

QUANTUM = 256  # tokens that a round gives to a principal of weight 1
SLACK = 64  # that many may be kept which are not true any more, before they are swept


@frozen
class Ticket:
    """One request at the door: `slots` is how many sequences it runs, `cost` its expected tokens."""

    id: int
    principal: Principal
    slots: int = 1
    cost: int = 1
    share: Share = Share()

    def charge(self, tokens: int) -> int:
        """What so many tokens take of its principal's rounds: tokens per weight."""
        return -(-tokens // self.share.weight)


# The round of a principal's next request, when it was served last, that request's id, who.
Turn = tuple[int, int, int, Principal]


@define(eq=False)
class Flow:
    """One principal: `served` tokens per weight, on the scale of rounds, and who waits, oldest first."""

    served: int
    last_served: int = 0
    backlog: int = 0  # charges of those who wait
    turn: Turn | None = None
    waiting: "OrderedDict[int, Ticket]" = field(factory=OrderedDict)

    @property
    def first(self) -> Ticket:
        return next(iter(self.waiting.values()))


@define(eq=False)
class Turns:
    """The requests of one priority that wait.  Every operation takes O(log n), amortised.

    While two principals both wait, what they were given per weight since they began together differs by
    less than a quantum and the largest request; over any other stretch of time by less than twice that.
    A round in which everybody who waits could have had a quantum is over, so that principals who come
    one after the other pass nobody without end.
    """

    round: int = 0
    num_waiting: int = 0
    num_principals: int = 0  # of those who wait
    _flows: dict[Principal, Flow] = field(factory=dict)
    _heap: list[Turn] = field(factory=list)  # with turns that are not true any more
    _num_served: int = 0
    _given: int = 0  # tokens per weight in this round
    _forget_at: int = SLACK

    def push(self, ticket: Ticket) -> None:
        flow = self._flow(ticket.principal)
        if not flow.waiting:
            flow.served = max(flow.served, self._start)
            self.num_principals += 1
        flow.waiting[ticket.id] = ticket
        flow.backlog += ticket.charge(ticket.cost)
        self.num_waiting += 1
        self._line_up(flow)

    def first(self) -> Ticket | None:
        """Whose turn it is."""
        while self._heap:
            turn = self._heap[0]
            flow = self._flows.get(turn[-1])
            if flow is not None and flow.turn == turn:
                return flow.first
            heappop(self._heap)
        return None

    def pop(self) -> Ticket:
        """Serve `first`, which must be there."""
        ticket = self.first()
        assert ticket is not None
        charge, flow = ticket.charge(ticket.cost), self._flows[ticket.principal]
        self._go_on(heappop(self._heap)[0], charge)
        self._num_served += 1
        flow.last_served = self._num_served
        flow.served += charge
        self._take(flow, ticket)
        return ticket

    def remove(self, ticket: Ticket) -> None:
        """It does not wait any more, and was not served."""
        self._take(self._flows[ticket.principal], ticket)

    def correct(self, ticket: Ticket, tokens: int) -> None:
        """It was served, and took `tokens` where its cost was expected: which matters if others wait."""
        flow = self._flow(ticket.principal)
        if self.num_principals == bool(flow.waiting):
            return
        flow.served += ticket.charge(tokens) - ticket.charge(ticket.cost)
        self._line_up(flow)

    def turn_of(self, newcomer: Ticket) -> Turn:
        """When its turn would be; behind its principal's own it is the last one of its round."""
        flow = self._flows.get(newcomer.principal, Flow(0))
        served, last_served = max(flow.served, self._start), flow.last_served
        if flow.waiting:
            served, last_served = flow.served + flow.backlog, self._num_served + self.num_waiting
        return served // QUANTUM, last_served, newcomer.id, newcomer.principal

    def in_order(self) -> Iterator[tuple[Ticket, Turn]]:
        """Everybody, as `pop` would serve them if nobody came or left any more.  O(n log n)."""
        rest = {who: iter(flow.waiting.values()) for who, flow in self._flows.items()}
        served = {who: flow.served for who, flow in self._flows.items()}
        heap = [(flow.turn, next(rest[who])) for who, flow in self._flows.items() if flow.turn]
        heapify(heap)
        for last_served in count(self._num_served + 1):
            if not heap:
                return
            turn, ticket = heap[0]
            yield ticket, turn
            who = ticket.principal
            served[who] += ticket.charge(ticket.cost)
            if (following := next(rest[who], None)) is None:
                heappop(heap)
            else:
                turn = served[who] // QUANTUM, last_served, following.id, who
                heapreplace(heap, (turn, following))

    # -- inside ----------------------------------------------------------------------------------

    @property
    def _start(self) -> int:
        """Where the account of a newcomer begins: with this round's quantum still to come."""
        return self.round * QUANTUM

    def _flow(self, principal: Principal) -> Flow:
        if principal not in self._flows:
            self._forget()
            self._flows[principal] = Flow(self._start)
        return self._flows[principal]

    def _take(self, flow: Flow, ticket: Ticket) -> None:
        del flow.waiting[ticket.id]
        flow.backlog -= ticket.charge(ticket.cost)
        self.num_waiting -= 1
        self.num_principals -= not flow.waiting
        self._line_up(flow)

    def _line_up(self, flow: Flow) -> None:
        """Note when its next turn is, if that has changed."""
        if not flow.waiting:
            flow.turn = None
            return
        first = flow.first
        turn = (flow.served // QUANTUM, flow.last_served, first.id, first.principal)
        if turn != flow.turn:
            flow.turn = turn
            heappush(self._heap, turn)
            self._sweep()

    def _go_on(self, turn: int, charge: int) -> None:
        """A request of round `turn` is served."""
        self._given += charge
        if turn > self.round:
            self.round, self._given = turn, charge
        elif self._given >= QUANTUM * self.num_principals:
            self.round, self._given = self.round + 1, 0

    def _sweep(self) -> None:
        """Drop turns that are not true any more, once they are the larger part."""
        if len(self._heap) > SLACK + 2 * self.num_principals:
            self._heap = [flow.turn for flow in self._flows.values() if flow.turn]
            heapify(self._heap)

    def _forget(self) -> None:
        """Drop those whose account would begin anew in any case, each time twice as many are kept."""
        if len(self._flows) >= self._forget_at:
            self._flows = {
                principal: flow
                for principal, flow in self._flows.items()
                if flow.waiting or flow.served > self._start
            }
            self._forget_at = SLACK + 2 * len(self._flows)
