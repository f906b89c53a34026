"""What a host knows of a model from its files, before and while it is loaded."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from attrs import frozen

from helexa.conversation import ChoiceFinished, Conversation, Delta, TokenLogprob
from helexa.engine.kv.spans import BLOCK
from helexa.engine.orders import Dtype, KvDtype, Piece, Quant, ScriptLoad, Top
from helexa.errors import ContextLengthExceeded, ServiceUnavailable
from helexa.fleet.catalogue import CatalogueModel, SamplingDefaults
from helexa.fleet.dtype import BYTES, KV_BYTES, SCALE_BYTES
from helexa.fleet.limits import Limit, Terms
from helexa.fleet.quant import Fused, Packable, fused_bytes, weights_bytes
from helexa.text.prompt import Prompt

STATE_BYTES = 4  # of an element of a recurrent state

Scores = Sequence[tuple[int, float, Top]]  # token id, log-probability, alternatives


class NotFetched(ServiceUnavailable):
    """The files are not on this host, and the entry lets a request bring them in (`on_demand`)."""


class Reader(Protocol):
    """Turns the tokens of one answer into events (`helexa.text.answer.AnswerReader`)."""

    @property
    def stopped(self) -> bool: ...
    @property
    def reasoning_tokens(self) -> int: ...
    def push(self, piece: Piece) -> Sequence[Delta | ChoiceFinished]: ...


@frozen
class Size:
    """What a model takes.

    `elements_per_token` are the keys and values that one layer keeps of one token:
    2 · kv_heads · head_dim, `heads_per_token` 2 · kv_heads.  Full-attention layers keep every token,
    sliding ones the last `window`; other layers (linear attention, state spaces) do not grow: those of
    one sequence keep `state_elements`, 0 where that is not known.  It `fuses` if it has the usual shape.
    """

    num_parameters: int
    elements_per_token: int
    full_layers: int
    sliding_layers: int = 0
    window: int = 0
    packable: Packable = Packable()
    heads_per_token: int = 0
    state_elements: int = 0
    fuses: bool = False

    def weights_bytes(self, dtype_bytes: int, quant: Quant = "none") -> int:
        """What it takes while it is loaded, and afterwards unless it is fused."""
        return weights_bytes(self.num_parameters, self.packable, quant, dtype_bytes)

    def loaded_bytes(self, dtype: Dtype, quant: Quant = "none", fused: Fused = Fused()) -> int:
        """What it takes once it is loaded."""
        if not self.fuses or dtype != "fp32":
            return self.weights_bytes(BYTES[dtype], quant)
        return fused_bytes(self.num_parameters, self.packable, quant, fused)

    def kv_bytes_per_token(self, dtype: Dtype, kv_dtype: KvDtype = "auto") -> int:
        """That every further token of a sequence takes in the KV cache."""
        element = KV_BYTES.get(kv_dtype, BYTES[dtype])
        scales = self.heads_per_token * SCALE_BYTES.get(kv_dtype, 0)
        return self.full_layers * (self.elements_per_token * element + scales)

    def kv_window_bytes(self, dtype: Dtype) -> int:
        """That the sliding and the recurrent layers of one sequence take, however long it is.

        A window has room behind it; states are kept in float32.
        """
        window = self.window - 1 + BLOCK if self.sliding_layers else 0
        windows = self.sliding_layers * window * self.elements_per_token * BYTES[dtype]
        return windows + self.state_elements * STATE_BYTES


@frozen(eq=False)
class Known:
    """One model's files, read.

    `terms` bound its context: of a model that was placed with what was found there, else as stated.
    `finish` adds to the prompts of a conversation what its answers are bound to (slow: a worker
    thread's work; InvalidRequest where that is impossible).  `reader` makes a reader for answer number
    n to a prompt, `score` tells the tokens of a prompt that were scored in its vocabulary's words.
    `added_at` is when the files came here, in seconds since 1970.  `script` is how a script model is
    loaded.
    """

    entry: CatalogueModel
    path: Path
    size: Size
    terms: Terms
    stop_ids: frozenset[int]
    defaults: SamplingDefaults
    tool_call: bool
    reasoning: bool
    finish: Callable[[Conversation, tuple[Prompt, ...]], tuple[Prompt, ...]]
    reader: Callable[[int, Conversation, Prompt], Reader]
    score: Callable[[Scores], tuple[TokenLogprob, ...]]
    added_at: float = 0.0
    script: ScriptLoad | None = None

    @property
    def id(self) -> str:
        return self.entry.id

    @property
    def limit(self) -> Limit:
        return self.terms.limit


def too_long(
    limit: Limit, tokens: int, *, at_least: bool = False, param: str = "messages"
) -> ContextLengthExceeded:
    """The refusal of a prompt of so many tokens, or of `at_least` so many."""
    count = f"at least {tokens}" if at_least else f"{tokens}"
    have = "has" if param == "prompt" else "have"
    return ContextLengthExceeded(
        f"This model's maximum context length is {limit.context} tokens. However, "
        f"your {param} {have} {count} tokens, and {limit.output} are kept for "
        f"the answer. Shorten the {param} to {limit.input} tokens.",
        param=param,
        prompt_len=tokens,
        max=limit.input,
    )
