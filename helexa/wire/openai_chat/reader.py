"""Chat completions of another server, whole or as a stream, back to events."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

import orjson
from attrs import define, field

from helexa.conversation import (
    ChoiceFinished,
    Event,
    Finished,
    FinishReason,
    Json,
    Phase,
    Progress,
    Started,
    TextDelta,
    TokenLogprob,
    Usage,
)
from helexa.errors import InvalidRequest, UpstreamError, UpstreamMalformed
from helexa.wire import sse
from helexa.wire.fields import Fields, as_integer

MOST = 2**53
PROGRESS = re.compile(rf"({'|'.join(get_args(Phase))}) ([0-9]{{1,15}})/([0-9]{{1,15}})")
STARTED = re.compile(r"started ([0-9]{1,15}) cached ([0-9]{1,15})")


def read_answer(body: bytes) -> list[Event]:
    """The events of a chat.completion.  UpstreamMalformed, or the UpstreamError that it holds."""
    completion = read_json(body)
    with reading():
        usage = read_usage(completion)
        choices = completion.objects("choices", MOST)
        if not usage or not choices:
            raise malformed("it has no choices or no usage")
        said = [event for choice in choices for event in read_choice(choice, "message")]
    return [Started(usage.prompt_tokens, usage.cached_tokens), *said, Finished(usage)]


@define(eq=False)
class StreamReader:
    """The bytes of a stream, cut anywhere, to events.

    `feed` and `finish` yield what came before they raise UpstreamError or UpstreamMalformed.
    """

    _parser: sse.Parser = field(factory=sse.Parser, init=False)
    _started: Started | None = field(default=None, init=False)
    _seen: set[int] = field(factory=set, init=False)  # the choices that began
    _complete: set[int] = field(factory=set, init=False)  # those of them that finished
    _num_deltas: int = field(default=0, init=False)
    _usage: Usage | None = field(default=None, init=False)
    _done: bool = field(default=False, init=False)

    def feed(self, data: bytes) -> Iterator[Event]:
        for found in self._parser.feed(data):
            match found:
                case sse.Comment(text):
                    yield from self._read_comment(text)
                case sse.Frame("[DONE]"):
                    yield from self.finish()
                case sse.Frame(text):
                    yield from self._read_chunk(read_json(text.encode()))

    def finish(self) -> Iterator[Event]:
        """To be called when the bytes end: yields what is left, or tells that the answer was cut off."""
        if self._done:
            return
        if not self._seen or self._seen != self._complete:
            raise malformed("the stream ended before the answer was complete")
        self._done = True
        yield Finished(self._usage or self._estimate())

    def _estimate(self) -> Usage:
        """What is known where the upstream tells no usage: a chunk of text is about a token."""
        prompt_tokens = self._started.prompt_tokens if self._started else 0
        return Usage(prompt_tokens, self._num_deltas)

    def _read_comment(self, text: str) -> Iterator[Event]:
        if progress := PROGRESS.fullmatch(text):
            yield read_progress(progress)
        elif started := STARTED.fullmatch(text):
            yield from self._start(Started(int(started[1]), int(started[2])))

    def _start(self, started: Started) -> Iterator[Event]:
        if self._started is None:
            self._started = started
            yield started

    def _read_chunk(self, chunk: Fields) -> Iterator[Event]:
        with reading():
            self._usage = read_usage(chunk) or self._usage
            choices = chunk.objects("choices", MOST) or []
            events = [event for choice in choices for event in self._read_choice(choice)]
        if choices:
            yield from self._start(Started(0))
        yield from events

    def _read_choice(self, choice: Fields) -> Iterator[Event]:
        self._seen.add(read_index(choice))
        for event in read_choice(choice, "delta"):
            if event.choice in self._complete:  # some servers say twice that it is finished
                continue
            if isinstance(event, ChoiceFinished):
                self._complete.add(event.choice)
            else:
                self._num_deltas += 1
            yield event


def malformed(what: str) -> UpstreamMalformed:
    return UpstreamMalformed(f"The upstream's answer cannot be read: {what}.")


@contextmanager
def reading() -> Iterator[None]:
    """A wrong type in what another server sent is its mistake, not that of a client's request."""
    try:
        yield
    except InvalidRequest as error:
        raise malformed(error.message.rstrip(".")) from None


def read_json(data: bytes) -> Fields:
    """The object in `data`; if it is an error, that error is raised."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise malformed("it is not JSON") from None
    if not isinstance(value, dict):
        raise malformed("it is not a JSON object")
    if value.get("error") is not None:
        raise read_error(value["error"])
    return Fields(value)


def read_error(error: Json) -> UpstreamError:
    if not isinstance(error, dict):
        return UpstreamError(f"The upstream failed: {error}")
    found = UpstreamError(str(error.get("message")), param=as_text(error.get("param")))
    found.type = as_text(error.get("type")) or found.type
    found.code = as_text(error.get("code")) or found.code
    return found


def as_text(value: Json) -> str | None:
    return value if isinstance(value, str) else None


def read_index(choice: Fields) -> int:
    return choice.integer("index", 0, MOST) or 0


def read_choice(choice: Fields, said_in: str) -> Iterator[TextDelta | ChoiceFinished]:
    """What one choice of a chunk, or of a whole answer, says: `said_in` is delta or message."""
    index = read_index(choice)
    said = choice.object(said_in) or Fields({})
    text = said.text("content") or ""
    logprobs = tuple(read_logprobs(choice.object("logprobs") or Fields({})))
    if said.has("tool_calls"):
        raise malformed("it is a tool call, which is not supported")
    if text or logprobs:
        yield TextDelta(index, text, logprobs)
    reason = choice.text("finish_reason")
    if reason is not None:
        yield ChoiceFinished(index, read_reason(reason), as_text(choice.get("stop_reason")))


def read_reason(reason: str) -> FinishReason:
    return "length" if reason == "length" else "stop"


def read_logprobs(logprobs: Fields) -> Iterator[TokenLogprob]:
    for token in logprobs.objects("content", MOST) or ():
        top = [read_logprob(other) for other in token.objects("top_logprobs", MOST) or ()]
        yield read_logprob(token, tuple(top))


def read_logprob(token: Fields, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
    text = token.required_text("token")
    values = token.array("bytes", MOST)
    octets = (
        text.encode()
        if values is None
        else bytes(as_integer(value, token.at("bytes"), 0, 255) for value in values)
    )
    return TokenLogprob(text, octets, token.number("logprob", -MOST, MOST) or 0.0, top)


def read_usage(parent: Fields) -> Usage | None:
    usage = parent.object("usage")
    if usage is None:
        return None
    prompt = usage.object("prompt_tokens_details") or Fields({})
    completion = usage.object("completion_tokens_details") or Fields({})
    return Usage(
        prompt_tokens=usage.integer("prompt_tokens", 0, MOST) or 0,
        completion_tokens=usage.integer("completion_tokens", 0, MOST) or 0,
        cached_tokens=prompt.integer("cached_tokens", 0, MOST) or 0,
        reasoning_tokens=completion.integer("reasoning_tokens", 0, MOST) or 0,
    )


def read_progress(found: re.Match[str]) -> Progress:
    phases: dict[str, Phase] = {phase: phase for phase in get_args(Phase)}
    return Progress(phases[found[1]], int(found[2]), int(found[3]))
