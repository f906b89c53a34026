"""One neutral conversation and one stream of events, between every dialect and every model.

A codec in `helexa.wire` turns a request of its dialect into a `Conversation` and turns the events of
its generation back into that dialect.  Plain frozen values: no I/O, no torch, no Trio.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Literal

from attrs import frozen

Json = Any  # what orjson gives: dict, list, str, int, float, bool, None

Role = Literal["system", "developer", "user", "assistant", "tool"]


@frozen
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
    """A function the model may call; `parameters` is its JSON schema."""

    name: str
    description: str | None
    parameters: Json


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

    `max_tokens` bounds the generated tokens of each of the `n` answers; None leaves it to the model's
    limit.  `template_kwargs` are what the chat template may read beside messages and tools.
    """

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    n: int = 1
    template_kwargs: tuple[tuple[str, Json], ...] = ()


# -- the answer, as it comes -----------------------------------------------------------------------

FinishReason = Literal["stop", "length"]
Phase = Literal["queued", "loading", "prefill", "decode"]


@frozen
class Usage:
    """Tokens of one request, over all its answers.  `cached_tokens` is a part of `prompt_tokens`."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


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
class TextDelta:
    """More of answer number `choice`.  `text` may be empty while a character is incomplete."""

    choice: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


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


Event = Progress | Started | TextDelta | ChoiceFinished | Finished

# A generation: its events in order, those that came together in one batch.
Events = AsyncGenerator[Sequence[Event], None]
