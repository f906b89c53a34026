"""One neutral conversation and one stream of events, between every dialect and every model.

A codec in `helexa.wire` turns a request of its dialect into a `Conversation` and turns the events of
its generation back into that dialect.  Plain frozen values: no I/O, no torch, no Trio.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Literal

from attrs import field, frozen

Json = Any  # what orjson gives: dict, list, str, int, float, bool, None

Role = Literal["system", "developer", "user", "assistant", "tool"]


@frozen(cache_hash=True)
class Principal:
    """Who asks: never the secret, only its names."""

    account_id: str
    key_id: str


ANONYMOUS = Principal("anonymous", "anonymous")


# -- what was said ---------------------------------------------------------------------------------


@frozen
class Text:
    text: str


@frozen
class Image:
    """A picture as a data URI.  No URL is ever fetched."""

    data_uri: str


@frozen
class Reasoning:
    """What an assistant turn thought before it spoke."""

    text: str


@frozen
class ToolCall:
    """`arguments` is JSON text exactly as the model wrote it; it may be half-written."""

    id: str
    name: str
    arguments: str


@frozen
class ToolResult:
    call_id: str
    content: tuple[Text | Image, ...]
    is_error: bool = False


Part = Text | Image | Reasoning | ToolCall | ToolResult


@frozen
class Message:
    role: Role
    parts: tuple[Part, ...]
    name: str | None = None


@frozen
class Tool:
    """A function the model may call; `parameters` is its JSON schema.

    `strict`: a call of it must be valid by the schema, so its arguments are generated under it.
    """

    name: str
    description: str | None
    parameters: Json
    strict: bool = False


@frozen
class ToolChoice:
    """Whether the model may, must or must not call tools.

    `only` names the tools it may choose from, () for all of them: a named tool is `required` with one
    name.  `parallel` False allows one call at most.
    """

    mode: Literal["auto", "none", "required"] = "auto"
    only: tuple[str, ...] = ()
    parallel: bool = True


# -- the form of the answer --------------------------------------------------------------------------


@frozen
class JsonObject:
    """Any JSON object."""


@frozen
class JsonSchema:
    """JSON that is valid by `schema`.  `strict` None means that the client did not say."""

    name: str
    schema: Json
    description: str | None = None
    strict: bool | None = None


@frozen
class Regex:
    """Text that the pattern matches as a whole."""

    pattern: str


@frozen
class Grammar:
    """Text of a context-free grammar in Lark's notation (llguidance's dialect of it)."""

    lark: str


Format = JsonObject | JsonSchema | Regex | Grammar  # None is free text


@frozen
class Thinking:
    """Whether the model thinks before it speaks, and whether the client sees it.

    `enabled` None leaves it to the default, which is off for a client that does not see it.  `effort`
    is what the client said (none, minimal, low, medium, high, ...); `budget` bounds the tokens.
    """

    enabled: bool | None = None
    effort: str | None = None
    budget: int | None = None
    shown: bool = False


# -- how to answer ---------------------------------------------------------------------------------


@frozen
class Sampling:
    """What the client asked for; None means that it did not say.

    `top_logprobs` is None for no log-probabilities, else the number of alternatives per token.
    `logit_bias` pairs token ids with a bias that is added to the logit.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    top_logprobs: int | None = None


@frozen
class Conversation:
    """A request, whatever its dialect.

    Either a conversation of `messages`, or `texts` to go on with as they are: each a string, or the
    ids of its tokens.  Every text gets `n` answers; choice number i answers text i // n.
    `max_tokens` bounds the generated tokens of each answer; None leaves it to the model's limit.
    `prompt_logprobs` asks for the log-probabilities of the prompt's tokens with so many alternatives.
    `template_kwargs` are what the chat template may read beside messages and tools.  `notes` tell what
    of the request was left out, and why: for the log.
    """

    model: str
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    format: Format | None = None
    thinking: Thinking = Thinking()
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    n: int = 1
    template_kwargs: tuple[tuple[str, Json], ...] = ()
    texts: tuple[str | tuple[int, ...], ...] = ()
    prompt_logprobs: int | None = None
    notes: tuple[str, ...] = field(default=(), eq=False)

    @property
    def num_answers(self) -> int:
        return max(1, len(self.texts)) * self.n


# -- the answer, as it comes -----------------------------------------------------------------------

BYTES_PER_TOKEN = 4  # about, in English and in code

FinishReason = Literal["stop", "length", "tool_calls"]
Phase = Literal["queued", "loading", "prefill", "decode"]


@frozen
class Usage:
    """Tokens of one request, over all its answers.  `cached_tokens` is a part of `prompt_tokens`."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


def about_tokens(num_bytes: int) -> int:
    """What so many bytes of text or JSON are taken for where nobody here can count their tokens."""
    return -(-num_bytes // BYTES_PER_TOKEN)


@frozen
class TokenLogprob:
    """One token with its natural-log probability; `top` holds the likeliest alternatives."""

    token: str
    bytes: bytes
    logprob: float
    top: tuple["TokenLogprob", ...] = ()


@frozen
class Progress:
    """Still alive: what the request waits for.  Never part of the transcript.

    `done` and `total` count places in the queue, bytes or prompt tokens, as the phase has it; total 0
    means that it is not known.
    """

    phase: Phase
    done: int = 0
    total: int = 0


@frozen
class Started:
    """The model began to answer; comes once, before the first delta."""

    prompt_tokens: int
    cached_tokens: int = 0


@frozen
class PromptScored:
    """More of the tokens of the text that answer number `choice` goes on with, from its beginning on.

    Comes before the first delta.  The first token of a text has nothing before it, so it has no
    log-probability: it is NaN.
    """

    choice: int
    logprobs: tuple[TokenLogprob, ...]


@frozen
class TextDelta:
    """More of answer number `choice`.  `text` may be empty while a character is incomplete."""

    choice: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@frozen
class ReasoningDelta:
    """More of what the model thinks before it speaks; only for a client that sees it."""

    choice: int
    text: str


@frozen
class ToolCallStarted:
    """The model calls a tool: call number `index` (from 0) of answer number `choice`."""

    choice: int
    index: int
    id: str
    name: str


@frozen
class ToolCallDelta:
    """More of the arguments of call number `index`, as JSON text.

    The calls of an answer come one after the other; a call is complete when the next one starts, when
    text or reasoning follows, or when the answer is finished.
    """

    choice: int
    index: int
    arguments: str


@frozen
class ChoiceFinished:
    """Answer number `choice` is complete.  `stop_sequence` is the stop string that ended it."""

    choice: int
    reason: FinishReason
    stop_sequence: str | None = None


@frozen
class Finished:
    """Every answer is complete.  The last event."""

    usage: Usage


@frozen
class Passed:
    """Bytes of the answer as another server wrote them, in the client's own dialect.

    The other events of their batch tell what is in them, for those who count: they are not written.
    `tokens` is about how many tokens of the answer are in it.
    """

    data: bytes
    tokens: int = 0


Delta = TextDelta | ReasoningDelta | ToolCallStarted | ToolCallDelta
Event = Progress | Started | PromptScored | Delta | ChoiceFinished | Finished | Passed

# A generation: its events in order, those that came together in one batch.
Events = AsyncGenerator[Sequence[Event], None]
