"""Responses of another server, whole or as a stream, back to events."""

from collections.abc import Iterator

from attrs import define, field

from helexa.conversation import (
    ChoiceFinished,
    Delta,
    Event,
    Finished,
    FinishReason,
    Progress,
    Started,
    Usage,
)
from helexa.wire import sse
from helexa.wire.fields import Fields
from helexa.wire.openai_responses.item_reader import CALLS, ItemReader, read_scores
from helexa.wire.upstream import (
    MOST,
    PHASES,
    Tally,
    as_text,
    malformed,
    read_error,
    read_json,
    read_started,
    read_usage,
    reading,
)

USAGE = ("input", "output")


def read_answer(body: bytes) -> list[Event]:
    """The events of a response object, with no usage where it tells none.

    UpstreamMalformed, or the UpstreamError that it holds.
    """
    response = read_json(body)
    reader = AnswerReader()
    with reading():
        usage = read_usage(response, *USAGE)
        if usage is None and not response.has("output"):
            raise malformed("it has no output")
        said = list(reader.end(response))
    usage = usage or Usage(0, 0)
    return [Started(usage.prompt_tokens, usage.cached_tokens), *said, Finished(usage)]


@define(eq=False)
class AnswerReader:
    """The items of one answer, by their places in it."""

    _items: dict[int, ItemReader] = field(factory=dict, init=False)
    _num_calls: int = field(default=0, init=False)

    def read(self, event: Fields) -> Iterator[Delta]:
        """What one event of a stream tells; an unknown one tells nothing."""
        kind = event.text("type") or ""
        match kind.removeprefix("response."):
            case "output_item.added":
                yield from self._start(self._item(event), event.required_object("item"))
            case "output_item.done":
                yield from self._end(self._item(event), event.required_object("item"))
            case "output_text.delta" | "refusal.delta":
                yield from self._item(event).say(read_delta(event), read_scores(event))
            case "reasoning_text.delta" | "reasoning.delta":
                yield from self._item(event).think(read_delta(event), "content")
            case "reasoning_summary_text.delta":
                yield from self._item(event).think(read_delta(event), "summary")
            case "reasoning_summary_part.added" if event.integer("summary_index", 0, MOST):
                yield from self._item(event).think("\n\n", "summary")
            case "function_call_arguments.delta":
                yield from self._item(event).argue(read_delta(event))

    def end(self, response: Fields) -> Iterator[Delta | ChoiceFinished]:
        """What the response tells at the end that was not told before."""
        if response.text("status") not in (None, "completed", "incomplete"):
            raise malformed(f"its status is {response.text('status')}")
        for index, item in enumerate(response.objects("output", MOST) or ()):
            if index not in self._items:
                yield from self._end(self._items.setdefault(index, ItemReader()), item)
        yield ChoiceFinished(0, self._reason(response), as_text(response.get("stop_reason")))

    def _item(self, event: Fields) -> ItemReader:
        """Some servers leave the place out: then it is the latest."""
        index = event.integer("output_index", 0, MOST)
        place = max(self._items, default=0) if index is None else index
        return self._items.setdefault(place, ItemReader())

    def _start(self, reader: ItemReader, item: Fields) -> Iterator[Delta]:
        if item.text("type") in CALLS:
            yield from reader.start(item, self._num_calls)
            self._num_calls = max(self._num_calls, (reader.call or 0) + 1)

    def _end(self, reader: ItemReader, item: Fields) -> Iterator[Delta]:
        yield from self._start(reader, item)
        yield from reader.end(item)

    def _reason(self, response: Fields) -> FinishReason:
        if response.text("status") == "incomplete":
            return "length"
        return "tool_calls" if self._num_calls else "stop"


@define(eq=False)
class StreamReader:
    """The bytes of a stream, cut anywhere, to events.

    `feed` and `finish` yield what came before they raise UpstreamError or UpstreamMalformed.
    """

    _parser: sse.Parser = field(factory=sse.Parser, init=False)
    _answer: AnswerReader = field(factory=AnswerReader, init=False)
    _tally: Tally = field(factory=Tally, init=False)
    _done: bool = field(default=False, init=False)

    def feed(self, data: bytes) -> Iterator[Event]:
        for found in self._parser.feed(data):
            match found:
                case sse.Comment(text):
                    yield from self._read_comment(text)
                case sse.Frame("[DONE]"):
                    yield from self.finish()
                case sse.Frame(text) if not self._done:
                    yield from self._read_event(read_json(text.encode()))

    def finish(self) -> Iterator[Event]:
        """To be called when the bytes end: tells if the answer was cut off."""
        if not self._done:
            raise malformed("the stream ended before the answer was complete")
        yield from ()

    def _read_comment(self, text: str) -> Iterator[Event]:
        if started := read_started(text):
            yield from self._tally.start(started)

    def _read_event(self, event: Fields) -> Iterator[Event]:
        with reading():
            match event.text("type"):
                case "response.in_progress" if event.has("progress"):
                    told: list[Event] = [read_progress(event.required_object("progress"))]
                case "response.completed" | "response.incomplete":
                    told = list(self._end(event.required_object("response")))
                case "response.failed" | "error":
                    raise read_failure(event)
                case _:
                    told = list(self._answer.read(event))
        if any(isinstance(each, Delta | ChoiceFinished) for each in told):
            yield from self._tally.start(Started(0))
        self._tally.count(told)
        yield from told

    def _end(self, response: Fields) -> Iterator[Event]:
        self._done = True
        yield from self._answer.end(response)
        yield Finished(read_usage(response, *USAGE) or self._tally.estimate())


def read_failure(event: Fields) -> Exception:
    response = event.object("response") or event
    return read_error(response.get("error") or event.values)


def read_delta(event: Fields) -> str:
    return event.text("delta") or ""


def read_progress(progress: Fields) -> Progress:
    phase = PHASES.get(progress.required_text("phase"), "queued")
    done, total = (progress.integer(key, 0, MOST) or 0 for key in ("done", "total"))
    return Progress(phase, done, total)
