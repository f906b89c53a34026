"""Logit bias, and what a sequence's own tokens do to their next chance."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from helexa.engine.orders import SamplingParams
from helexa.engine.rows import stacked


class Penalties:
    """Those of one sequence, as float32 [vocab] in the order of their application; None if off.

    The repetition penalty (arXiv:1909.05858) counts prompt and answer, the frequency and presence
    penalties (OpenAI's definition) the answer alone.
    """

    bias: Tensor | None = None  # is added
    repetition: Tensor | None = None  # divides what is positive and multiplies what is negative
    answered: Tensor | None = None  # is subtracted

    def __init__(
        self, params: SamplingParams, prompt: Sequence[int], vocab_size: int, device: str
    ) -> None:
        self._params = params
        self._counts: Counter[int] = Counter()
        if params.logit_bias:
            tokens, biases = zip(*params.logit_bias, strict=True)
            self.bias = torch.zeros(vocab_size, dtype=torch.float32, device=device)
            self.bias[torch.tensor(tokens, device=device)] = torch.tensor(biases, device=device)
        if params.repetition_penalty != 1:
            self.repetition = torch.ones(vocab_size, dtype=torch.float32, device=device)
            self.repetition[torch.tensor(prompt, device=device)] = params.repetition_penalty
        if params.frequency_penalty or params.presence_penalty:
            self.answered = torch.zeros(vocab_size, dtype=torch.float32, device=device)

    @property
    def are_on(self) -> bool:
        return not (self.bias is None and self.repetition is None and self.answered is None)

    def count(self, token: int) -> None:
        """The answer goes on with `token`."""
        if self.repetition is not None:
            self.repetition[token] = self._params.repetition_penalty
        if self.answered is not None:
            self._counts[token] += 1
            frequency = self._params.frequency_penalty * self._counts[token]
            self.answered[token] = frequency + self._params.presence_penalty


def penalise(logits: Tensor, penalties: Sequence[Penalties]) -> None:
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
