"""The seam between Trio and a device thread: orders go in, notices come back.

Plain frozen values that either side may import.  A `uid` names one thing that lives on the device, a
sequence or a loaded model; every notice carries the uid of the order that it answers.
"""

from pathlib import Path
from typing import Literal, Protocol

from attrs import field, frozen

from helexa.errors import HelexaError

Dtype = Literal["fp32", "bf16", "fp16"]
Quant = Literal["none", "int8", "int4", "int4+bf16", "fp8"]  # how linear layers keep their weights
KvDtype = Literal["auto", "bf16", "fp8", "int8"]  # how the KV pool keeps keys and values


@frozen
class SamplingParams:
    """How the next token is drawn, every default settled.

    temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 are off; repetition_penalty 1 is off.
    `top_logprobs` is None for no log-probabilities, else the number of alternatives.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    top_logprobs: int | None = None


@frozen
class Script:
    """What a sequence of a script model says: `tokens`, the last of which ends an answer.

    `tokens_per_second` 0 is as fast as it goes; after `fail_after_tokens` the sequence fails.
    """

    tokens: tuple[int, ...]
    tokens_per_second: float = 0.0
    fail_after_tokens: int | None = None


@frozen
class ScriptLoad:
    """What the load of a script model pretends: how long it takes, and the memory that it fills."""

    seconds: float
    weights_bytes: int


class Matcher(Protocol):
    """Where one sequence is in the form that its answer must have.  Lives on the device's thread."""

    def allowed(self) -> tuple[bytearray, bool] | None:
        """Which tokens may come next, and whether the answer may end here; None for anything.

        Bit i % 8 of byte i // 8, from the lowest, is token i.  HelexaError if it cannot be told.
        """

    def closing(self, allowed: bytearray) -> bytearray:
        """Of these tokens those that close what is open; all of them if none does."""

    def accept(self, token: int) -> None:
        """Go on with a token that was allowed.  HelexaError if that leads nowhere."""


class Constraint(Protocol):
    """The form that an answer must have; every sequence takes a matcher of its own."""

    def matcher(self) -> Matcher: ...


# -- orders ----------------------------------------------------------------------------------------


@frozen
class Load:
    """Load the model in `path` (config.json, tokenizer, weights); answered by LoadProgress*, Loaded.

    `device` is torch's name for it ("cpu", "cuda:0"); `batch_width` bounds the sequences that run at
    once, `prefill_chunk_tokens` the prompt tokens of one step.  `kv_tokens` bounds what the KV pool
    holds, running and cached together; 0 is room for the longest sequence, `batch_width` times.
    `kv_bytes` bounds it as well, 0 does not: a token may turn out to take more than its files say.
    `kv_dtype` is how it keeps them, "auto" as the model computes them.
    `prefix_cache` keeps what was computed for prompts that begin alike, and of that `parked_bytes` in
    the host's memory while the model is unloaded.  Of layers that do not keep every token it has
    `snapshots` at most, of `snapshot_bytes` in all; None does not bound the bytes.  `drafts` lets sequences
    guess their next tokens from what they said before, where that saves time; it changes no answer.  With
    `script` it is a script model, of which no weights are read; its sequences have a script each.
    """

    uid: int
    model: str
    path: Path
    device: str
    dtype: Dtype
    batch_width: int
    prefill_chunk_tokens: int
    script: ScriptLoad | None = None
    kv_tokens: int = 0
    prefix_cache: bool = True
    parked_bytes: int = 1 << 30
    quant: Quant = "none"
    kv_dtype: KvDtype = "auto"
    kv_bytes: int = 0
    snapshots: int = 8
    snapshot_bytes: int | None = None
    drafts: bool = True


@frozen
class Measure:
    """Measure how fast a device multiplies by layers kept in each of `quants`; answered by Measured.

    `shapes` are rows, columns and how many there are of each; a model that `fuses` has the usual shape.
    `dtype` is what it computes in.
    """

    uid: int
    model: str
    device: str
    dtype: Dtype
    quants: tuple[Quant, ...]
    shapes: tuple[tuple[int, int, int], ...]
    fuses: bool


@frozen
class Unload:
    """Free the model that `Load` `uid` brought; answered by Unloaded.  Ends what still runs on it."""

    uid: int


@frozen
class Add:
    """Start a sequence on the model of `Load` number `model_uid`.

    Answered by PrefillProgress*, then a Piece per token, the last with its `finish`.  `constraint`
    holds the answer to a form.  `prompt_logprobs` asks for PromptScores of the whole prompt with so
    many alternatives, before the first Piece.  Only sequences of one `salt` share cached prefixes.
    """

    uid: int
    model_uid: int
    prompt: tuple[int, ...]
    max_tokens: int
    sampling: SamplingParams = SamplingParams()
    stop_ids: frozenset[int] = frozenset()
    constraint: Constraint | None = field(default=None, eq=False, repr=False)
    script: Script | None = None
    prompt_logprobs: int | None = None
    salt: str = ""


@frozen
class Resize:
    """Let the KV pool of a loaded model hold `kv_tokens`, or what running sequences have, if that is more.

    Answered by KvUse, between two steps.  Unknown uids are ignored.
    """

    uid: int
    kv_tokens: int


@frozen
class Abort:
    """Forget a sequence, a measurement or a load; a model that it brought in the meantime is freed.

    Unknown uids are ignored; not answered.
    """

    uid: int


@frozen
class Stop:
    """Leave the loop."""


Order = Load | Measure | Unload | Resize | Add | Abort | Stop


# -- notices ---------------------------------------------------------------------------------------


@frozen
class LoadProgress:
    uid: int
    done_bytes: int
    total_bytes: int


@frozen
class Loaded:
    """`weights_bytes` is what the weights take on the device, `kv_tokens` how many the KV pool holds.

    `alone` says why sequences are computed one after the other; "" where they are batched.
    """

    uid: int
    weights_bytes: int
    seconds: float
    kv_tokens: int = 0
    kv_bytes_per_token: int = 0
    alone: str = ""


@frozen
class Measured:
    """Seconds that the layers take of a usual request; what cannot be run here is not among them."""

    uid: int
    seconds: tuple[tuple[Quant, float], ...]


@frozen
class Unloaded:
    uid: int


@frozen
class PrefillProgress:
    """`done_tokens` of the prompt are in the KV cache, the first `cached_tokens` from earlier ones."""

    uid: int
    done_tokens: int
    total_tokens: int
    cached_tokens: int = 0


@frozen
class KvUse:
    """What the KV pool of load `uid` holds, in tokens, and what its prefix cache did so far.

    `state_bytes` are beside it: the windows and recurrent states of running sequences, and snapshots
    of them.  So many tokens were `drafted`, and `accepted` of them as the next ones.  Comes when what it
    holds changed, at most once a step.
    """

    uid: int
    running_tokens: int
    cached_tokens: int
    total_tokens: int
    entries: int = 0
    hits: int = 0
    saved_tokens: int = 0
    evictions: int = 0
    preemptions: int = 0
    state_bytes: int = 0
    drafted: int = 0
    accepted: int = 0


Top = tuple[tuple[int, float], ...]  # (token id, logprob), the likeliest first


@frozen
class PromptScores:
    """More of the prompt's tokens, in order: each with its log-probability and its alternatives.

    The first token of a prompt has nothing before it: it is NaN, without alternatives.
    """

    uid: int
    tokens: tuple[tuple[int, float, Top], ...]


@frozen
class Piece:
    """One generated token.  `finish` is set on the last: a stop id ("stop") or max_tokens ("length").

    A stop id is delivered as the token of the last piece; it is not part of the text.  `logprob` is
    the natural log of the token's probability under the model's own distribution (before temperature),
    `top` the likeliest (token id, logprob) pairs, likeliest first.
    """

    uid: int
    token: int
    finish: Literal["stop", "length"] | None = None
    logprob: float | None = None
    top: Top = ()


@frozen
class Failed:
    """The end of `uid`, a sequence or a load, by an error that others survive."""

    uid: int
    error: HelexaError = field(eq=False)


@frozen
class Crashed:
    """The model of load `uid` is unusable and was freed; its sequences got Failed of their own."""

    uid: int
    reason: str


Notice = (
    LoadProgress
    | Loaded
    | Measured
    | Unloaded
    | PrefillProgress
    | PromptScores
    | Piece
    | KvUse
    | Failed
    | Crashed
)
