"""Chat completions of another server, whole or as a stream, back to events."""

import re
from collections.abc import Iterator, Sequence

from attrs import define, field

from helexa.conversation import Event, Finished, Progress, Started, Usage
from helexa.wire import sse
from helexa.wire.fields import Fields
from helexa.wire.openai_chat.choice_reader import ChoiceReader
from helexa.wire.upstream import (
    MOST,
    PHASES,
    Tally,
    as_text,
    malformed,
    read_json,
    read_started,
    read_usage,
    reading,
)

PROGRESS = re.compile(rf"({'|'.join(PHASES)}) ([0-9]{{1,15}})/([0-9]{{1,15}})")
USAGE = ("prompt", "completion")


def read_answer(body: bytes) -> list[Event]:
    """The events of a chat.completion, with no usage where it tells none.

    UpstreamMalformed, or the UpstreamError that it holds.
    """
    completion = read_json(body)
    with reading():
        usage = read_usage(completion, *USAGE) or Usage(0, 0)
        choices = completion.objects("choices", MOST)
        if not choices:
            raise malformed("it has no choices")
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
    _tally: Tally = field(factory=Tally, init=False)
    _choices: dict[int, ChoiceReader] = field(factory=dict, init=False)
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
        yield Finished(self._usage or self._tally.estimate())

    def _read_comment(self, text: str) -> Iterator[Event]:
        if progress := PROGRESS.fullmatch(text):
            yield read_progress(progress)
        elif started := read_started(text):
            yield from self._tally.start(started)

    def _read_chunk(self, chunk: Fields) -> Iterator[Event]:
        with reading():
            self._usage = read_usage(chunk, *USAGE) or self._usage
            choices = chunk.objects("choices", MOST) or []
            answer_id = as_text(chunk.get("id")) or ""
            events = [event for choice in choices for event in self._read_choice(choice, answer_id)]
        if choices:
            yield from self._tally.start(Started(0))
        self._tally.count(events)
        yield from events

    def _read_choice(self, choice: Fields, answer_id: str) -> Iterator[Event]:
        number = choice.integer("index", 0, MOST) or 0
        if number not in self._choices:
            self._choices[number] = ChoiceReader(number, answer_id)
        return self._choices[number].read(choice)


def read_progress(found: re.Match[str]) -> Progress:
    return Progress(PHASES[found[1]], int(found[2]), int(found[3]))
