"""Holding one sequence to the form that its answer must have."""

import torch
from attrs import frozen
from torch import Tensor

from helexa.engine.orders import Matcher

RESERVE = 32  # tokens, a quarter of max_tokens at most: what an answer has left to be closed


@frozen(eq=False)
class Masks:
    """Which tokens may come next, bool [vocab].

    `closing` is set near the end of max_tokens: those of them that close what is open, all of them
    where none does.
    """

    allowed: Tensor
    closing: Tensor | None = None


class Form:
    """`stop_ids` end the answer, where the form lets it end; without any it ends when it is complete.

    Near the end of its `max_tokens` an answer may only close what it has open, so that it is whole if
    it can be.  If the model had gone on, it still ends as one that was cut.
    """

    def __init__(
        self,
        matcher: Matcher,
        stop_ids: frozenset[int],
        max_tokens: int,
        vocab_size: int,
        device: str,
    ) -> None:
        self._matcher = matcher
        # What the matcher allows now, in a tuple of one; None where it was not asked yet.
        self._found: tuple[tuple[bytearray, bool] | None] | None = None
        self._left = max_tokens
        self._reserve = min(RESERVE, max_tokens // 4)
        self._cut = False
        self._vocab_size = vocab_size
        self._device = device
        self._stop_ids = frozenset(id for id in stop_ids if id < vocab_size)
        self._stops = torch.tensor(sorted(self._stop_ids), dtype=torch.long, device=device)

    def masks(self) -> Masks | None:
        """None where anything may come next.  HelexaError where nothing may."""
        found = self._allowed()
        if found is None:
            return None
        bits, may_end = found
        allowed = self._mask(bits, may_end)
        if self._left > self._reserve:
            return Masks(allowed)
        closing = (
            bytearray(len(bits)) if may_end and self._stop_ids else self._matcher.closing(bits)
        )
        return Masks(allowed, self._mask(closing, may_end))

    @property
    def is_free(self) -> bool:
        """Whether anything may come next.  HelexaError where nothing may."""
        return self._allowed() is None

    def accept(self, token: int, *, redrawn: bool) -> bool:
        """Go on with a token; whether the answer is complete, so that there is no next one.

        `redrawn`: the model had chosen another, which did not close anything.
        """
        if token in self._stop_ids:
            return False  # it ends the answer by itself
        self._matcher.accept(token)
        self._found = None
        self._left -= 1
        self._cut = self._cut or redrawn
        if self._stop_ids and not self._cut:
            return False
        found = self._allowed()
        if found is None:
            return False
        bits, may_end = found
        return may_end and (self._cut or not any(bits))

    def _allowed(self) -> tuple[bytearray, bool] | None:
        """As the matcher says it, who is asked once for each token."""
        if self._found is None:
            self._found = (self._matcher.allowed(),)
        return self._found[0]

    def _mask(self, bits: bytearray, may_end: bool) -> Tensor:
        mask = unpacked(bits, self._vocab_size, self._device)
        if may_end:
            mask[self._stops] = True
        return mask


def unpacked(bits: bytearray, size: int, device: str) -> Tensor:
    """Bits, from the lowest of each byte on, as bool [size]; what there are no bits for is False."""
    packed = torch.frombuffer(bits, dtype=torch.uint8).to(device)
    places = torch.arange(8, dtype=torch.uint8, device=device)
    spread = (packed[:, None] >> places & 1).flatten()[:size].bool()
    return torch.nn.functional.pad(spread, (0, size - len(spread)))
