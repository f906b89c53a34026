"""Chat completions and completions in passing: their chunks are alike in all that counts here."""

from collections.abc import Iterator

from attrs import define, field

from helexa.conversation import ChoiceFinished, Event, FinishReason, Started
from helexa.wire.fields import Fields
from helexa.wire.openai_chat.choice_reader import read_reason
from helexa.wire.openai_chat.reader import PROGRESS, USAGE, read_progress
from helexa.wire.passing.passage import Passage, Seen
from helexa.wire.upstream import MOST, read_json, read_started, read_usage, reading

CALLS = ("tool_calls", "function_call")


@define(eq=False)
class ChatPassage(Passage):
    """`drops_usage`: the chunk of usage alone is ours and stays here."""

    MARKS = (
        b'"finish_reason":"',
        b'"finish_reason": "',
        b'"usage":{',
        b'"usage": {',
        b'"error"',
        b"[DONE]",
    )

    drops_usage: bool = False
    _finished: dict[int, bool] = field(factory=dict, init=False)  # by choice

    def end(self) -> Seen:
        """Some servers leave [DONE] out."""
        self.done = self.done or (bool(self._finished) and all(self._finished.values()))
        return Passage.end(self)

    def _comment(self, text: str) -> Iterator[Event]:
        if self.begun:
            return
        if progress := PROGRESS.fullmatch(text):
            yield read_progress(progress)
        elif started := read_started(text):
            self.begun = True
            yield started

    def _event(self, data: str) -> Iterator[Event]:
        if data == "[DONE]":
            self.done = True
            return
        chunk = read_json(data.encode())
        with reading():
            usage = read_usage(chunk, *USAGE)
            choices = chunk.objects("choices", MOST) or []
            events = [event for choice in choices for event in self._read_choice(choice)]
        self.usage = usage or self.usage
        self._drops = self.drops_usage and usage is not None and not choices
        if choices and not self.begun:
            self.begun = True
            yield Started(0)
        yield from events

    def _read_choice(self, choice: Fields) -> Iterator[Event]:
        number = choice.integer("index", 0, MOST) or 0
        reason = choice.text("finish_reason")
        if reason is not None and not self._finished.get(number):
            yield ChoiceFinished(number, finish_reason(reason))
        self._finished[number] = reason is not None or self._finished.get(number, False)


def finish_reason(told: str | None) -> FinishReason:
    return read_reason(told, num_calls=told in CALLS)
