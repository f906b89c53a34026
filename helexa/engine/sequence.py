"""One generation on the device thread: its tokens, how far they are computed, how the next is drawn."""

from typing import Literal

from attrs import define, field

from helexa.engine.form import Form
from helexa.engine.kv.prefixes import Tokens, as_tokens, num_shared
from helexa.engine.kv.spans import BLOCK
from helexa.engine.orders import Add, Piece, Top
from helexa.engine.sampler import Drawn, Sampler


@define(eq=False)
class Sequence:
    """`tokens` are the prompt and what was generated; the first `computed` are in the KV cache.

    `cached` of the prompt were there before it.  `scores` are those of the prompt's tokens that nobody
    was told yet, `scored` how many there are in all.  `text` is the prompt, to be compared.
    """

    order: Add
    max_tokens: int
    sampler: Sampler
    tokens: list[int]
    form: Form | None = None
    computed: int = 0
    cached: int | None = None
    scores: list[tuple[int, float, Top]] = field(factory=list)
    scored: int = 0
    text: Tokens = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.text = as_tokens(self.order.prompt)

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - len(self.order.prompt)

    @property
    def is_scored(self) -> bool:
        """Whether the scores of its prompt are asked for and not all there."""
        return self.order.prompt_logprobs is not None and self.scored < len(self.order.prompt)

    def gains_from(self, older: "Sequence") -> int:
        """How many of its first tokens it may have from one that still computes them; 0 if too few."""
        if self.order.prompt_logprobs is not None or self.order.salt != older.order.salt:
            return 0
        shared = num_shared(self.text[:-1], older.text)
        return shared if shared >= max(BLOCK, older.computed + 1) else 0

    def add_scores(self, scores: list[tuple[int, float, Top]]) -> None:
        self.scores += scores
        self.scored += len(scores)

    def take(self, drawn: Drawn) -> Piece:
        """Go on with the next token.  HelexaError if the form that it must have leads nowhere."""
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
