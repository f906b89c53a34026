"""Who waits for a model that is not loaded, or whose turn is over."""

from collections.abc import Iterator

from attrs import define, field, frozen

from helexa.actors.leases import Acquire, Waits
from helexa.actors.mailbox import Request
from helexa.errors import HelexaError
from helexa.fleet.catalogue import CatalogueModel

# A model, and the node that it must be loaded on: None where any will do, as for all requests.
Key = tuple[str, str | None]


@frozen(eq=False)
class LoadAsk(Request[str]):
    """Somebody wants the model loaded; answered with the node that has it.  `by` whom."""

    entry: CatalogueModel
    node: str | None
    by: str
    waits: Waits = field(factory=Waits, init=False, repr=False)


@define(eq=False)
class Line:
    """All that wait for one model, on any node or on a certain one.

    The first `num_due` of `waiting` waited already when the model's turn began: they are served in it,
    whoever else wants the device.  `tries` counts loads that found no room, `why` is the plan that is
    carried out.
    """

    entry: CatalogueModel
    node: str | None = None
    waiting: list[Acquire] = field(factory=list)
    asks: list[LoadAsk] = field(factory=list)
    num_due: int = 0
    tries: int = 0
    why: str = ""

    @property
    def key(self) -> Key:
        return self.entry.id, self.node

    @property
    def since(self) -> float:
        """When the first of those began to wait who are not served in this turn."""
        waiting = [acquire.waits.since for acquire in self.waiting[self.num_due :]]
        return min([*waiting[:1], *(ask.waits.since for ask in self.asks)], default=float("inf"))

    @property
    def is_empty(self) -> bool:
        return not self.waiting and not self.asks

    @property
    def is_cold(self) -> bool:
        """Whether somebody waits for a load, and not only for room among those that are served."""
        return len(self.waiting) > self.num_due or bool(self.asks)

    def add(self, acquire: Acquire, now: float) -> None:
        acquire.waits.since = now
        self.waiting.append(acquire)

    def remove(self, acquire: Acquire) -> None:
        if acquire in self.waiting:
            self.num_due -= self.waiting.index(acquire) < self.num_due
            self.waiting.remove(acquire)

    def turn_begins(self) -> None:
        self.num_due, self.tries = len(self.waiting), 0

    def answer(self, node: str) -> None:
        """The model is loaded there: tell those who wanted that, and nothing else."""
        while self.asks:
            self.asks.pop().reply.set(node)

    def fail(self, error: HelexaError) -> None:
        """Nobody waits any more: everybody gets a copy of the error."""
        for acquire in self.waiting:
            acquire.reply.fail(error.again())
        for ask in self.asks:
            ask.reply.fail(error.again())
        self.waiting.clear()
        self.asks.clear()
        self.num_due = 0

    def show(self, done: int, total: int) -> None:
        """How far the load is that all of them wait for, in bytes."""
        for acquire in self.waiting:
            waits = acquire.waits
            waits.phase, waits.done, waits.total = "loading", done, total

    def avoided(self) -> frozenset[str]:
        """The nodes that all who wait have tried already."""
        if self.asks or not self.waiting:
            return frozenset()
        return frozenset.intersection(*(acquire.avoid for acquire in self.waiting))

    def __iter__(self) -> Iterator[Acquire]:
        return iter(tuple(self.waiting))
