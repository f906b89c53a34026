"""Cached prefixes of models that were unloaded, in the host's memory, for when they come back.

Copying them takes a hundredth of the time that computing them again would.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from attrs import define, field, frozen
from torch import Tensor

from helexa.engine.kv.prefixes import Tokens
from helexa.engine.kv.states import States, num_bytes


@frozen(eq=False)
class Parked:
    """One sequence: `pools` are its part of the pool of every full layer, on the host."""

    salt: str
    tokens: Tokens
    pools: Sequence[tuple[Tensor, ...]]
    marks: dict[int, States]

    @property
    def num_bytes(self) -> int:
        tensors = sum(part.nbytes for parts in self.pools for part in parts)
        return tensors + sum(map(num_bytes, self.marks.values())) + self.tokens.nbytes


@define(eq=False)
class Parking:
    """What is parked, by the model it is of; the model that left first goes first.

    A key must tell everything that the numbers depend on: other weights would make other ones.
    """

    _parked: OrderedDict[object, Sequence[Parked]] = field(factory=OrderedDict)

    @property
    def num_bytes(self) -> int:
        return sum(each.num_bytes for some in self._parked.values() for each in some)

    def put(self, key: object, some: Iterable[Parked], limit: int) -> None:
        """Park what fits, the most recently used first in `some`; `limit` bytes stay, over all models."""
        fitting, left = [], limit
        for each in some:
            left -= each.num_bytes
            if left < 0:
                break
            fitting.append(each)
        self._parked.pop(key, None)
        if fitting:
            self._parked[key] = fitting
        while self.num_bytes > limit:
            self._parked.popitem(last=False)

    def take(self, key: object) -> Sequence[Parked]:
        """What is parked under `key`, which is then the caller's alone."""
        return self._parked.pop(key, ())
