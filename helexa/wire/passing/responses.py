"""OpenAI's Responses in passing."""

from collections.abc import Iterator

from attrs import define

from helexa.conversation import ChoiceFinished, Event, FinishReason, Started
from helexa.wire.fields import Fields
from helexa.wire.openai_responses.item_reader import CALLS
from helexa.wire.openai_responses.reader import USAGE, read_failure, read_progress
from helexa.wire.passing.passage import Passage
from helexa.wire.upstream import MOST, read_json, read_started, read_usage, reading

WAITING = ("response.created", "response.queued", "response.in_progress")


@define(eq=False)
class ResponsesPassage(Passage):
    """What comes before the answer names the response: it goes on with the first of the answer."""

    MARKS = (
        b"response.completed",
        b"response.incomplete",
        b"response.failed",
        b'"type":"error"',
        b'"type": "error"',
    )
    HOLDS = True

    def _comment(self, text: str) -> Iterator[Event]:
        if not self.begun and (started := read_started(text)):
            self.begun = True
            yield started

    def _event(self, data: str) -> Iterator[Event]:
        if data == "[DONE]":
            return
        event = read_json(data.encode())
        with reading():
            kind = event.text("type")
            if kind in ("response.failed", "error"):
                raise read_failure(event)
            if kind in WAITING:
                if not self.begun and event.has("progress"):
                    yield read_progress(event.required_object("progress"))
                return
            if not self.begun:
                self.begun = True
                yield Started(0)
            if kind in ("response.completed", "response.incomplete"):
                response = event.required_object("response")
                self.usage = read_usage(response, *USAGE)
                self.done = True
                yield ChoiceFinished(0, response_reason(response))


def response_reason(response: Fields) -> FinishReason:
    if response.text("status") == "incomplete":
        return "length"
    items = response.objects("output", MOST) or ()
    return "tool_calls" if any(item.text("type") in CALLS for item in items) else "stop"
