"""The requests that wait for one model, of both priorities, in the order in which they will be served."""

from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence

from attrs import define, field, frozen

from helexa.fleet.share import PRIORITIES, Priority
from helexa.fleet.turns import Ticket, Turn, Turns

BATCH_PART = 8  # while both wait, batch requests get one token of so many


@frozen
class Order:
    """The whole queue as it would be served if nobody came or left any more."""

    places: Mapping[int, int]  # by ticket: how many go before it
    slots: Sequence[int]  # of all who go before a place
    turns: Mapping[Priority, Sequence[Turn]]  # and the place of each
    places_of: Mapping[Priority, Sequence[int]]


@define(eq=False)
class Queue:
    """Interactive requests go before batch ones, but do not starve them.

    While a batch request waits, interactive ones of seven times its tokens and one more request go
    before it at the most, once it is the first of the batch ones.
    """

    _turns: dict[Priority, Turns] = field(
        factory=lambda: {priority: Turns() for priority in PRIORITIES}
    )
    _passed: int = 0  # tokens of interactive requests that went before waiting batch ones

    def __len__(self) -> int:
        return sum(turns.num_waiting for turns in self._turns.values())

    def push(self, ticket: Ticket) -> None:
        self._turns[ticket.share.priority].push(ticket)

    def remove(self, ticket: Ticket) -> None:
        self._turns[ticket.share.priority].remove(ticket)
        self._forget()

    def correct(self, ticket: Ticket, tokens: int) -> None:
        self._turns[ticket.share.priority].correct(ticket, tokens)

    def first(self) -> Ticket | None:
        """Who is next."""
        interactive, batch = (turns.first() for turns in self._turns.values())
        return batch if is_batch_next(interactive, batch, self._passed) else interactive

    def pop(self) -> Ticket:
        """Serve `first`, which must be there."""
        ticket = self.first()
        assert ticket is not None
        self._turns[ticket.share.priority].pop()
        self._passed = passed_after(ticket, self._passed)
        self._forget()
        return ticket

    def _forget(self) -> None:
        if not self._turns["batch"].num_waiting:
            self._passed = 0

    # -- who goes before whom --------------------------------------------------------------------

    def order(self) -> Order:
        """O(n log n)."""
        places: dict[int, int] = {}
        slots = [0]
        turns: dict[Priority, list[Turn]] = {priority: [] for priority in PRIORITIES}
        places_of: dict[Priority, list[int]] = {priority: [] for priority in PRIORITIES}
        for place, (ticket, turn) in enumerate(self._in_order()):
            places[ticket.id] = place
            slots.append(slots[-1] + ticket.slots)
            turns[ticket.share.priority].append(turn)
            places_of[ticket.share.priority].append(place)
        return Order(places, slots, turns, places_of)

    def place_of(self, newcomer: Ticket, order: Order) -> int:
        """How many of `order` would go before it; all interactive ones before a batch one.  O(log n)."""
        priority = newcomer.share.priority
        places = order.places_of[priority]
        before = bisect(order.turns[priority], self._turns[priority].turn_of(newcomer))
        if priority == "batch":
            return before + len(order.turns["interactive"])
        if before < len(places):
            return places[before]
        return places[-1] + 1 if places else 0

    def _in_order(self) -> Iterator[tuple[Ticket, Turn]]:
        orders = {priority: turns.in_order() for priority, turns in self._turns.items()}
        interactive, batch = (next(order, None) for order in orders.values())
        passed = self._passed
        while interactive or batch:
            if is_batch_next(interactive and interactive[0], batch and batch[0], passed):
                served, batch = batch, next(orders["batch"], None)
            else:
                served, interactive = interactive, next(orders["interactive"], None)
            assert served is not None
            yield served
            passed = passed_after(served[0], passed) if batch else 0


def is_batch_next(interactive: Ticket | None, batch: Ticket | None, passed: int) -> bool:
    """`passed` are the tokens of interactive requests that went before waiting batch ones."""
    return interactive is None or (batch is not None and passed >= owed(batch))


def passed_after(served: Ticket, passed: int) -> int:
    if served.share.priority == "batch":
        return max(0, passed - owed(served))
    return passed + served.cost


def owed(batch: Ticket) -> int:
    """The interactive tokens that may pass it."""
    return (BATCH_PART - 1) * batch.cost
