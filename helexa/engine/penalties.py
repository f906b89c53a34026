"""Logit bias, and what a sequence's own tokens do to their next chance."""

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from attrs import frozen
from torch import Tensor

from helexa.engine.orders import SamplingParams
from helexa.engine.rows import stacked


@frozen(eq=False)
class Penalty:
    """What changes the logits of one token, as float32 [vocab] in the order of application; None if off."""

    bias: Tensor | None = None  # is added
    repetition: Tensor | None = None  # divides what is positive and multiplies what is negative
    answered: Tensor | None = None  # is subtracted

    @property
    def is_on(self) -> bool:
        return not (self.bias is None and self.repetition is None and self.answered is None)

    def copy(self) -> "Penalty":
        """Another whose tokens can be counted on their own; a bias is everybody's."""
        tensors = (self.repetition, self.answered)
        return Penalty(self.bias, *(None if each is None else each.clone() for each in tensors))


class Penalties:
    """Those of one sequence.

    The repetition penalty (arXiv:1909.05858) counts prompt and answer, the frequency and presence
    penalties (OpenAI's definition) the answer alone.
    """

    def __init__(
        self, params: SamplingParams, prompt: Sequence[int], vocab_size: int, device: str
    ) -> None:
        self._params = params
        self._counts: Counter[int] = Counter()
        self._unwritten: set[int] = set()  # counted, but not yet in the tensors
        bias = repetition = answered = None
        if params.logit_bias:
            tokens, biases = zip(*params.logit_bias, strict=True)
            bias = torch.zeros(vocab_size, dtype=torch.float32, device=device)
            bias[torch.tensor(tokens, device=device)] = torch.tensor(biases, device=device)
        if params.repetition_penalty != 1:
            repetition = torch.ones(vocab_size, dtype=torch.float32, device=device)
            repetition[torch.tensor(prompt, device=device)] = params.repetition_penalty
        if params.frequency_penalty or params.presence_penalty:
            answered = torch.zeros(vocab_size, dtype=torch.float32, device=device)
        self._now = Penalty(bias, repetition, answered)

    def count(self, token: int) -> None:
        """The answer goes on with `token`.  The device, which may be out of memory, is told later."""
        self._counts[token] += 1
        self._unwritten.add(token)

    def after(self, ahead: Sequence[int]) -> Penalty:
        """Of the token that comes if the answer goes on with those `ahead`."""
        self._write(self._now, {token: self._counts[token] for token in self._unwritten})
        self._unwritten.clear()
        if not ahead or (self._now.repetition is None and self._now.answered is None):
            return self._now
        then = self._now.copy()
        more = Counter(ahead)
        self._write(then, {token: self._counts[token] + more[token] for token in more})
        return then

    def _write(self, penalty: Penalty, counts: Mapping[int, int]) -> None:
        params = self._params
        for token, count in counts.items():
            if penalty.repetition is not None:
                penalty.repetition[token] = params.repetition_penalty
            if penalty.answered is not None:
                frequency = params.frequency_penalty * count
                penalty.answered[token] = frequency + params.presence_penalty


def penalise(logits: Tensor, penalties: Sequence[Penalty]) -> None:
    """Change float32 `logits` [n, vocab] in place, each row by its own penalties."""
    if some := stacked(own.bias for own in penalties):
        rows, bias = some
        logits[rows] += bias
    if some := stacked(own.repetition for own in penalties):
        rows, factor = some
        before = logits[rows]
        logits[rows] = torch.where(before < 0, before * factor, before / factor)
    if some := stacked(own.answered for own in penalties):
        rows, penalty = some
        logits[rows] -= penalty
