"""One choice of another server's answer, back to events, whether it comes whole or in deltas.

Servers differ most in tool calls: an index or an id may be missing, a name may be repeated or come
late, arguments may be an object, and all calls may bear the index 0.
"""

from collections.abc import Iterator

from attrs import define, field

from helexa.conversation import (
    ChoiceFinished,
    Event,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)
from helexa.wire.fields import Fields
from helexa.wire.logprobs import read_logprobs
from helexa.wire.request import read_arguments
from helexa.wire.upstream import MOST, as_text, malformed

TOO_LONG = frozenset({"length", "max_tokens", "model_length"})


@define(eq=False)
class OpenCall:
    """The latest tool call.  It starts when its name is known; arguments that come first wait."""

    position: int
    index: int | None  # the upstream's own
    id: str | None
    name: str | None = None
    waiting: str = ""


@define(eq=False)
class ChoiceReader:
    """`answer_id` is what ids are made of for calls that have none."""

    number: int
    answer_id: str = ""
    finished: bool = field(default=False, init=False)
    _call: OpenCall | None = field(default=None, init=False)
    _num_calls: int = field(default=0, init=False)
    _past: set[int] = field(factory=set, init=False)  # indexes of the calls that are complete
    _closed: bool = field(default=False, init=False)  # text followed on the latest call

    def read(self, choice: Fields, *, whole: bool = False) -> Iterator[Event]:
        """The events of one chunk's choice, or of a whole one's.  InvalidRequest for a wrong type."""
        if self.finished:  # some servers say so twice
            return
        said = choice.object("message" if whole else "delta") or Fields({})
        yield from self._read_words(said, choice.object("logprobs") or Fields({}))
        for entry in said.objects("tool_calls", MOST) or ():
            yield from self._read_call(entry, entry.object("function") or Fields({}), whole)
        if legacy := said.object("function_call"):
            yield from self._read_call(Fields({}), legacy, whole)
        reason = choice.text("finish_reason")
        if reason is not None or whole:
            yield self._finish(reason, as_text(choice.get("stop_reason")))

    def _read_words(self, said: Fields, logprobs: Fields) -> Iterator[Event]:
        thought = said.text("reasoning_content") or said.text("reasoning")
        if thought:
            self._closed = True
            yield ReasoningDelta(self.number, thought)
        text, scores = said.text("content") or "", tuple(read_logprobs(logprobs, "content"))
        if text or scores:
            self._closed = True
            yield TextDelta(self.number, text, scores)

    def _read_call(self, entry: Fields, function: Fields, whole: bool) -> Iterator[Event]:
        call_id, index = entry.text("id") or None, entry.integer("index", 0, MOST)
        name = function.text("name") or None
        call = self._call
        if call is None or whole or is_another(call, index, call_id, name):
            call = self._open(index, call_id)
        if name and call.name is None:
            call.name = name
            made = f"call_{self.answer_id}_{self.number}_{call.position}"
            yield ToolCallStarted(self.number, call.position, call.id or made, name)
        yield from self._read_arguments(call, read_arguments(function))

    def _open(self, index: int | None, call_id: str | None) -> OpenCall:
        self._check_name()
        if self._call is not None and self._call.index not in (None, index):
            self._past.add(self._call.index)
        if index in self._past:
            raise malformed("it goes on with a tool call after the next one began")
        self._call, self._closed = OpenCall(self._num_calls, index, call_id), False
        self._num_calls += 1
        return self._call

    def _read_arguments(self, call: OpenCall, arguments: str) -> Iterator[ToolCallDelta]:
        call.waiting += arguments
        if not call.waiting or call.name is None:
            return
        if self._closed:
            raise malformed("it goes on with a tool call after other words")
        yield ToolCallDelta(self.number, call.position, call.waiting)
        call.waiting = ""

    def _finish(self, reason: str | None, stop_sequence: str | None) -> ChoiceFinished:
        self._check_name()
        self.finished = True
        return ChoiceFinished(self.number, read_reason(reason, self._num_calls), stop_sequence)

    def _check_name(self) -> None:
        if self._call is not None and self._call.name is None:
            raise malformed("a tool call has no name")


def is_another(call: OpenCall, index: int | None, call_id: str | None, name: str | None) -> bool:
    """Whether a delta begins another call than the latest.

    Without an index an id tells, else a name; with the index of the latest call only both do: some
    servers give each delta of a call an id of its own.
    """
    if index is None:
        return call_id != call.id if call_id else name is not None and call.name is not None
    if index != call.index:
        return True
    return None not in (name, call_id, call.id) and call_id != call.id


def read_reason(reason: str | None, num_calls: int) -> FinishReason:
    """What the client must do next matters more than the upstream's word for it."""
    if reason in TOO_LONG:
        return "length"
    return "tool_calls" if num_calls else "stop"
