"""What is under way in the fleet: who waits, whose turn is next, what is being loaded and unloaded."""

import math

from attrs import define, field, frozen

from helexa.actors.lines import Key, Line
from helexa.actors.moves import Move
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.site import ANY


@frozen
class Turn:
    """The `victims` on a node take no new requests: their device goes to the model that waits."""

    node: str
    device: int
    victims: frozenset[str]


@define(eq=False)
class Board:
    """`promised` are the devices on which somebody waits for the end of a turn that is not over yet."""

    lines: dict[Key, Line] = field(factory=dict, init=False)
    turns: dict[Key, Turn] = field(factory=dict, init=False)
    moves: list[Move] = field(factory=list, init=False)
    promised: dict[Key, tuple[str, int]] = field(factory=dict, init=False)

    def line(self, model: str) -> Line | None:
        """The line of the model's requests."""
        return self.lines.get((model, None))

    def line_for(self, entry: CatalogueModel, node: str | None) -> Line:
        return self.lines.setdefault((entry.id, node), Line(entry, node))

    @property
    def num_waiting(self) -> int:
        return sum(len(line.waiting) for line in self.lines.values())

    def num_due(self, model: str) -> int:
        """How many of those that wait are served in the turn that the model has."""
        line = self.line(model)
        return line.num_due if line else 0

    def is_held(self, model: str, node: str) -> bool:
        """Whether its turn there is over: its new requests wait."""
        return any(turn.node == node and model in turn.victims for turn in self.turns.values())

    def load_of(self, model: str, node: str | None = None) -> Move | None:
        """The load of the model that is under way, on this node or on any."""
        found = (
            move
            for move in self.moves
            if move.entry is not None and move.entry.id == model and node in (None, move.node)
        )
        return next(found, None)

    def taken(self, node: str, key: Key) -> frozenset[int]:
        """The devices on which something changes, or is about to for somebody else."""
        moving = (move.device for move in self.moves if move.node == node)
        turning = (t.device for other, t in self.turns.items() if other != key and t.node == node)
        return frozenset(ANY.index if index is None else index for index in (*moving, *turning))

    def promised_on(self, node: str, key: Key) -> frozenset[int]:
        """The devices that somebody waits for who has waited longer."""
        since = self.lines[key].since if key in self.lines else math.inf
        return frozenset(
            device
            for other, (there, device) in self.promised.items()
            if there == node and other != key and self.lines[other].since <= since
        )
