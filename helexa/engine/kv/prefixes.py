"""What is kept of sequences that ended, and which of it begins like a new prompt."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

Tokens = NDArray[np.int64]


@define(eq=False)
class Held:
    """Positions [start, start + size) of the pool, of which `tokens` are computed.

    `marks` are the states of layers that do not keep every token, by the number of tokens after which
    they were taken.  Only what has the same `salt` may be compared.
    """

    salt: str
    start: int
    size: int
    tokens: Tokens = field(factory=lambda: np.empty(0, np.int64))
    marks: dict[int, Any] = field(factory=dict)

    def usable(self, shared: int, *, needs_mark: bool) -> int:
        """How many of `shared` first tokens a sequence can go on from."""
        if not needs_mark:
            return shared
        return max((mark for mark in self.marks if mark <= shared), default=0)


def as_tokens(ids: Sequence[int]) -> Tokens:
    return np.asarray(ids, np.int64)


def num_shared(one: Tokens, other: Tokens) -> int:
    """How many tokens both begin with."""
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length


def find(
    tokens: Tokens, salt: str, held: Iterable[Held], *, needs_mark: bool
) -> tuple[Held | None, int, int]:
    """Whose beginning helps most: it, the tokens that can be used of it, and those that are shared.

    At least the last of `tokens` stays to be computed.
    """
    best: tuple[Held | None, int, int] = (None, 0, 0)
    for each in held:
        if each.salt != salt:
            continue
        shared = num_shared(tokens[:-1], each.tokens)
        usable = each.usable(shared, needs_mark=needs_mark)
        if (usable, shared) > best[1:]:
            best = each, usable, shared
    return best if best[1] else (None, 0, best[2])
