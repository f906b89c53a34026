"""An answer as a stream of Responses events, each with its name, its number and its place."""

from collections.abc import Iterable

import orjson
from attrs import define, field

from helexa.conversation import (
    ChoiceFinished,
    Event,
    Finished,
    Json,
    Passed,
    Progress,
    PromptScored,
    Started,
    TextDelta,
)
from helexa.errors import HelexaError
from helexa.wire import sse
from helexa.wire.exchange import Reply
from helexa.wire.openai_responses.asked import Asked
from helexa.wire.openai_responses.item import MessageItem
from helexa.wire.openai_responses.output import Output
from helexa.wire.openai_responses.relayed import Told
from helexa.wire.openai_responses.response import (
    complete,
    status_of,
    write_error,
    write_response,
)


@define(eq=False)
class StreamWriter:
    """Events to the bytes of one stream, up to and including `[DONE]`.

    A sign of life is a `response.in_progress` that says what is waited for: Codex takes a comment for
    silence.  Where another server writes the answer, only a failure of it is ours to tell.
    """

    asked: Asked
    reply: Reply
    _output: Output = field(init=False)
    _finish: ChoiceFinished | None = field(default=None, init=False)
    _number: int = field(default=0, init=False)  # of the next event
    _spoken: MessageItem | None = field(default=None, init=False)
    _head: bytes = field(default=b"", init=False)  # of its deltas, up to their text
    _told: Told = field(factory=Told, init=False)

    def __attrs_post_init__(self) -> None:
        self._output = Output(self.asked, self.reply.id(""))

    def write(self, event: Event) -> bytes:
        if isinstance(event, TextDelta) and (message := self._output.message):  # once per token
            return self._text(event, message)
        if isinstance(event, Passed):
            return self._told.take(event.data)
        begun = self._begin()
        match event:
            case Progress() if self._told.number:
                return sse.comment(f"{event.phase} {event.done}/{event.total}")
            case Progress(phase, done, total):
                waits = {"phase": phase, "done": done, "total": total}
                return begun + self._lifecycle("in_progress", progress=waits)
            case Started():
                return begun + sse.comment(
                    f"started {event.prompt_tokens} cached {event.cached_tokens}"
                )
            case ChoiceFinished():
                self._finish = event
                return begun + self._frames(self._output.end(status_of(event.reason)))
            case Finished():
                return begun + self._end(event)
            case PromptScored():  # nobody can ask for it here
                return begun
            case _:
                return begun + self._frames(self._output.take(event))

    def error(self, error: HelexaError) -> bytes:
        begun, failed = self._begin(), self._response("failed")
        if self._told.number:  # the end of what another server began
            failed["id"] = self._told.response_id or failed["id"]
            self._number = self._told.next_number
        failed["error"] = write_error(error, self.reply.request_id)
        return begun + self._frame("response.failed", {"response": failed}) + sse.DONE

    def _text(self, event: TextDelta, message: MessageItem) -> bytes:
        """More of the open message."""
        if event.logprobs or not event.text:
            return self._frames(self._output.take(event))
        if message is not self._spoken:
            self._spoken, self._head = message, head_of(message)
        message.add(event.text)
        number, self._number = self._number, self._number + 1
        return b'%s%s,"sequence_number":%d}\n\n' % (self._head, orjson.dumps(event.text), number)

    def _begin(self) -> bytes:
        """What every stream begins with, the first time."""
        if self._number or self._told.number:
            return b""
        created = self._frame("response.created", {"response": self._response("in_progress")})
        return created + self._lifecycle("in_progress")

    def _end(self, event: Finished) -> bytes:
        finish = self._finish or ChoiceFinished(0, "stop")
        response = complete(
            self._output, self.reply, finish.reason, finish.stop_sequence, event.usage
        )
        return self._frame(f"response.{response['status']}", {"response": response}) + sse.DONE

    def _lifecycle(self, status: str, **more: Json) -> bytes:
        return self._frame(f"response.{status}", {"response": self._response(status)} | more)

    def _response(self, status: str) -> dict[str, Json]:
        return write_response(self.asked, self.reply, status, self._output.items)

    def _frames(self, told: Iterable[tuple[str, dict[str, Json]]]) -> bytes:
        return b"".join(self._frame(kind, fields) for kind, fields in told)

    def _frame(self, kind: str, fields: dict[str, Json]) -> bytes:
        data = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return sse.frame(orjson.dumps(data), kind)


def head_of(message: MessageItem) -> bytes:
    kind = "response.output_text.delta"
    told = {"type": kind, **message.spot.at(content_index=0, logprobs=[])}
    return b'event: %s\ndata: %s,"delta":' % (kind.encode(), orjson.dumps(told)[:-1])
