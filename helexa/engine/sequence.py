"""One generation on the device thread: its tokens, how far they are computed, how the next is drawn."""

from collections.abc import Iterator
from collections.abc import Sequence as Some
from itertools import zip_longest
from typing import Literal

from attrs import define, field

from helexa.engine.draft import Drafter
from helexa.engine.form import Form
from helexa.engine.kv.prefixes import Tokens, as_tokens, num_shared
from helexa.engine.kv.spans import BLOCK
from helexa.engine.orders import Add, Piece, Top
from helexa.engine.sampler import Drawn, Row, Sampler
from helexa.engine.scheduler import Chunk
from helexa.errors import HelexaError


@define(eq=False)
class Sequence:
    """`tokens` are the prompt and what was generated; the first `computed` are in the KV cache.

    `cached` of the prompt were there before it.  `scores` are those of the prompt's tokens that nobody
    was told yet, `scored` how many there are in all.  `text` is the prompt, to be compared.  `draft` are
    guesses of `drafter` (None: none are made) of what comes next.
    """

    order: Add
    max_tokens: int
    sampler: Sampler
    tokens: list[int]
    form: Form | None = None
    drafter: Drafter | None = None
    draft: list[int] = field(factory=list)
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

    @property
    def may_draft(self) -> bool:
        """Not where a form holds it: what it may draw then hangs on each token before."""
        if self.drafter is None or not self.num_generated or self.is_scored:
            return False
        return self.form is None or self.form.is_free

    def inputs(self, chunk: Chunk) -> list[int]:
        """The tokens of a chunk, drafted ones behind those that are known."""
        known = self.tokens[chunk.start : chunk.start + chunk.count]
        return [*known, *self.draft[: chunk.drafted]]

    def rows(self, count: int) -> list[Row]:
        """How the next `count` tokens are drawn, if the draft is right up to each."""
        masks = self.form.masks() if self.form is not None else None
        return [self.sampler.row(masks, self.draft[:ahead]) for ahead in range(count)]

    def go_on(self, drawn: Some[Drawn | HelexaError]) -> Iterator[Piece]:
        """Take what was drawn in a step, as far as the draft was right; HelexaError as in `take`.

        What was right of the draft is computed already.
        """
        for token, guess in zip_longest(drawn, self.draft[: len(drawn) - 1]):
            piece = self.take(token)
            yield piece
            if piece.finish:
                return
            is_free = self.form is None or self.form.is_free  # raises where it leads nowhere
            if piece.token != guess or not is_free:
                return
            self.computed += 1

    def take(self, drawn: Drawn | HelexaError) -> Piece:
        """Go on with the next token.  HelexaError if there is none, or if its form leads nowhere."""
        if isinstance(drawn, HelexaError):
            raise drawn
        self.sampler.accept(drawn.token)
        self.tokens.append(drawn.token)
        complete = self.form is not None and self.form.accept(drawn.token, redrawn=drawn.redrawn)
        finish = self._finish(drawn.token, complete)
        return Piece(self.order.uid, drawn.token, finish, drawn.logprob, drawn.top)

    def _finish(self, token: int, complete: bool) -> Literal["stop", "length"] | None:
        if token in self.order.stop_ids:
            return "stop"
        return "length" if complete or self.num_generated >= self.max_tokens else None
