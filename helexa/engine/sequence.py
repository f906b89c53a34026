"""One generation on the device thread: its tokens, how far they are computed, how the next is drawn."""

from typing import Literal

from attrs import define

from helexa.engine.orders import Add, Piece
from helexa.engine.sampler import Drawn, Sampler
from helexa.engine.scheduler import Progress


@define(eq=False)
class Sequence:
    """`tokens` are the prompt and what was generated; the first `computed` are in the KV cache."""

    order: Add
    max_tokens: int
    sampler: Sampler
    tokens: list[int]
    computed: int = 0

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - len(self.order.prompt)

    @property
    def progress(self) -> Progress:
        return Progress(self.order.uid, len(self.order.prompt), self.computed, self.num_generated)

    def append(self, drawn: Drawn) -> Piece:
        self.tokens.append(drawn.token)
        return Piece(
            self.order.uid, drawn.token, self._finish(drawn.token), drawn.logprob, drawn.top
        )

    def _finish(self, token: int) -> Literal["stop", "length"] | None:
        if token in self.order.stop_ids:
            return "stop"
        return "length" if self.num_generated >= self.max_tokens else None
