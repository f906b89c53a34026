"""Chat completions of another server, whole or as a stream, back to events."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import get_args

import orjson
from attrs import define, field

from helexa.conversation import (
    Delta,
    Event,
    Finished,
    Json,
    Phase,
    Progress,
    Started,
    Usage,
)
from helexa.errors import InvalidRequest, UpstreamError
from helexa.wire import sse
from helexa.wire.fields import Fields
from helexa.wire.openai_chat.choice_reader import MOST, ChoiceReader, as_text, malformed

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
        said = list(read_choices(choices, as_text(completion.get("id")) or ""))
    return [Started(usage.prompt_tokens, usage.cached_tokens), *said, Finished(usage)]


def read_choices(choices: Sequence[Fields], answer_id: str) -> Iterator[Event]:
    for i, choice in enumerate(choices):
        number = choice.integer("index", 0, MOST)
        yield from ChoiceReader(i if number is None else number, answer_id).read(choice, whole=True)


@define(eq=False)
class StreamReader:
    """The bytes of a stream, cut anywhere, to events.

    `feed` and `finish` yield what came before they raise UpstreamError or UpstreamMalformed.
    """

    _parser: sse.Parser = field(factory=sse.Parser, init=False)
    _started: Started | None = field(default=None, init=False)
    _choices: dict[int, ChoiceReader] = field(factory=dict, init=False)
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
        if not self._choices or not all(choice.finished for choice in self._choices.values()):
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
            answer_id = as_text(chunk.get("id")) or ""
            events = [event for choice in choices for event in self._read_choice(choice, answer_id)]
        if choices:
            yield from self._start(Started(0))
        self._num_deltas += sum(isinstance(event, Delta) for event in events)
        yield from events

    def _read_choice(self, choice: Fields, answer_id: str) -> Iterator[Event]:
        number = choice.integer("index", 0, MOST) or 0
        if number not in self._choices:
            self._choices[number] = ChoiceReader(number, answer_id)
        return self._choices[number].read(choice)


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
