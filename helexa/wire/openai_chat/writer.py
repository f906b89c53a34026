"""Answers as chat completions: whole, and as a stream of chunks."""

import orjson
from attrs import define, field

from helexa.conversation import (
    ChoiceFinished,
    Event,
    Finished,
    FinishReason,
    Json,
    Progress,
    Started,
    TextDelta,
    TokenLogprob,
    Usage,
)
from helexa.wire import sse
from helexa.wire.answer import Answer, Choice

LEAST_LOGPROB = -9999.0  # for a probability of zero, as JSON knows no infinity


def write_answer(answer: Answer, *, id: str, model: str, created: int) -> bytes:
    """A chat.completion.  `created` is in seconds since 1970."""
    completion = {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [write_choice(i, choice) for i, choice in enumerate(answer.choices)],
        "usage": write_usage(answer.usage),
    }
    return orjson.dumps(completion)


def write_choice(index: int, choice: Choice) -> Json:
    return {
        "index": index,
        "message": {"role": "assistant", "content": choice.text},
        "logprobs": write_logprobs(choice.logprobs),
        **write_reason(choice.reason, choice.stop_sequence),
    }


def write_reason(reason: FinishReason, stop_sequence: str | None) -> dict[str, Json]:
    """`stop_reason` is an extension: the stop string that ended the answer."""
    stop = {} if stop_sequence is None else {"stop_reason": stop_sequence}
    return {"finish_reason": reason, **stop}


def write_usage(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def write_logprobs(logprobs: tuple[TokenLogprob, ...]) -> Json:
    if not logprobs:
        return None
    content = [
        write_logprob(token) | {"top_logprobs": [write_logprob(other) for other in token.top]}
        for token in logprobs
    ]
    return {"content": content}


def write_logprob(token: TokenLogprob) -> dict[str, Json]:
    return {
        "token": token.token,
        "bytes": list(token.bytes),
        "logprob": max(token.logprob, LEAST_LOGPROB),
    }


@define(eq=False)
class StreamWriter:
    """Events to the bytes of one stream, up to and including `[DONE]`.

    The usage comes in a chunk of its own if `include_usage`, else on the last finish chunk; so each
    of them is held back until it is known whether anything but the usage follows.
    """

    id: str
    model: str
    created: int
    include_usage: bool = False
    _head: bytes = field(default=b"", init=False)
    _begun: dict[int, bytes] = field(
        factory=dict, init=False
    )  # choice → a text chunk up to its text
    _held: bytes = field(default=b"", init=False)  # the latest finish chunk, without its end

    def __attrs_post_init__(self) -> None:
        head = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
        }
        self._head = b"data: %s," % orjson.dumps(head)[:-1]

    def write(self, event: Event) -> bytes:
        if isinstance(event, TextDelta) and not self._held:  # first: it comes once per token
            return self._delta(event)
        if isinstance(event, Finished):
            return self._end(event.usage)
        held, self._held = self._held, b""
        return (held + b"}\n\n" if held else b"") + self._write(event)

    def _write(self, event: Progress | Started | TextDelta | ChoiceFinished) -> bytes:
        match event:
            case TextDelta():
                return self._delta(event)
            case ChoiceFinished():
                return self._begin(event.choice) + self._finish(event)
            case Progress():
                return sse.comment(f"{event.phase} {event.done}/{event.total}")
            case Started():
                return sse.comment(f"started {event.prompt_tokens} cached {event.cached_tokens}")

    def error(self, envelope: bytes) -> bytes:
        """The end of a stream that failed: the JSON of the error's envelope in place of the rest."""
        return sse.frame(envelope) + sse.DONE

    def _delta(self, event: TextDelta) -> bytes:
        if event.logprobs:
            return self._begin(event.choice) + self._scored(event)
        if not event.text:
            return b""
        begun = self._begun.get(event.choice)
        if begun is None:
            return self._begin(event.choice) + self._delta(event)
        return begun + orjson.dumps(event.text) + b'},"finish_reason":null}]}\n\n'

    def _begin(self, choice: int) -> bytes:
        """The role chunk of a choice, the first time."""
        if choice in self._begun:
            return b""
        self._begun[choice] = self._head + b'"choices":[{"index":%d,"delta":{"content":' % choice
        role = {"role": "assistant", "content": ""}
        return self._chunk(choice, role, {"finish_reason": None}) + b"}\n\n"

    def _scored(self, event: TextDelta) -> bytes:
        rest = {"logprobs": write_logprobs(event.logprobs), "finish_reason": None}
        return self._chunk(event.choice, {"content": event.text}, rest) + b"}\n\n"

    def _finish(self, event: ChoiceFinished) -> bytes:
        chunk = self._chunk(event.choice, {}, write_reason(event.reason, event.stop_sequence))
        if self.include_usage:
            return chunk + b"}\n\n"
        self._held = chunk
        return b""

    def _end(self, usage: Usage) -> bytes:
        start = self._held or self._head + b'"choices":[]'
        return b'%s,"usage":%s}\n\n%s' % (start, orjson.dumps(write_usage(usage)), sse.DONE)

    def _chunk(self, choice: int, delta: Json, rest: dict[str, Json]) -> bytes:
        """A chunk without its closing brace."""
        chosen = orjson.dumps({"index": choice, "delta": delta, **rest})
        return b'%s"choices":[%s]' % (self._head, chosen)
