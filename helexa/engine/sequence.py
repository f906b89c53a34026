"""One generation on the device thread: its tokens, how far they are computed, how the next is drawn."""

from typing import Literal

from attrs import define, field
from torch import Tensor

from helexa.engine.form import Form
from helexa.engine.orders import Add, Piece, Top
from helexa.engine.sampler import Sampler
from helexa.engine.scheduler import Progress


@define(eq=False)
class Sequence:
    """`tokens` are the prompt and what was generated; the first `computed` are in the KV cache.

    `scores` are those of the prompt's tokens that nobody was told yet.
    """

    order: Add
    max_tokens: int
    sampler: Sampler
    tokens: list[int]
    form: Form | None = None
    computed: int = 0
    scores: list[tuple[int, float, Top]] = field(factory=list)

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - len(self.order.prompt)

    @property
    def progress(self) -> Progress:
        return Progress(self.order.uid, len(self.order.prompt), self.computed, self.num_generated)

    def next(self, logits: Tensor) -> Piece:
        """Draw the next token from `logits` [vocab].  HelexaError if that cannot be done."""
        drawn = self.sampler.draw(logits, self.form.masks() if self.form else None)
        self.tokens.append(drawn.token)
        complete = self.form is not None and self.form.accept(drawn.token, redrawn=drawn.redrawn)
        return Piece(
            self.order.uid,
            drawn.token,
            self._finish(drawn.token, complete),
            drawn.logprob,
            drawn.top,
        )

    def _finish(self, token: int, complete: bool) -> Literal["stop", "length"] | None:
        if token in self.order.stop_ids:
            return "stop"
        return "length" if complete or self.num_generated >= self.max_tokens else None
