"""Answers as chat completions: whole, and as a stream of chunks."""

import orjson
from attrs import define, field

from helexa.conversation import (
    ChoiceFinished,
    Delta,
    Event,
    Finished,
    Json,
    Passed,
    Progress,
    PromptScored,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)
from helexa.errors import HelexaError
from helexa.wire.answer import Answer
from helexa.wire.exchange import Reply
from helexa.wire.openai_chat.calls import arguments_around, write_started
from helexa.wire.openai_chat.choice import write_choice, write_logprobs, write_reason, write_usage
from helexa.wire.openai_chat.chunks import Chunks, write_head

ID_PREFIX = "chatcmpl-"


def write_answer(answer: Answer, reply: Reply, *, legacy_calls: bool = False) -> bytes:
    """A chat.completion."""
    completion = {
        **write_head(reply, ID_PREFIX, "chat.completion"),
        "choices": [write_choice(i, each, legacy_calls) for i, each in enumerate(answer.choices)],
        "usage": write_usage(answer.usage),
    }
    return orjson.dumps(completion)


@define(eq=False)
class StreamWriter:
    """Events to the bytes of one stream, up to and including `[DONE]`."""

    reply: Reply
    include_usage: bool = False
    legacy_calls: bool = False
    _chunks: Chunks = field(init=False)
    _begun: set[int] = field(factory=set, init=False)  # the choices that have their role
    # What stands before and after the text of a chunk, for every kind of text that has begun.
    _around: dict[tuple[type, int, int], tuple[bytes, bytes]] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._chunks = Chunks(self.reply, ID_PREFIX, "chat.completion.chunk", self.include_usage)

    def write(self, event: Event) -> bytes:
        if isinstance(event, TextDelta) and not self._chunks.held:  # first: it comes once per token
            return self._text(event)
        if isinstance(event, Finished):
            return self._chunks.end(event.usage)
        if isinstance(event, Passed):
            return event.data
        return self._chunks.release() + self._write(event)

    def error(self, error: HelexaError) -> bytes:
        return self._chunks.error(error)

    def _write(self, event: Progress | Started | PromptScored | Delta | ChoiceFinished) -> bytes:
        match event:
            case TextDelta():
                return self._text(event)
            case ReasoningDelta(choice, text):
                return self._more(ReasoningDelta, choice, 0, text)
            case ToolCallDelta(choice, index, arguments):
                return self._more(ToolCallDelta, choice, index, arguments)
            case ToolCallStarted():
                return self._call(event)
            case ChoiceFinished(choice, reason, stop_sequence):
                end = write_reason(reason, stop_sequence, self.legacy_calls)
                finish = self._chunks.finish({"index": choice, "delta": {}, **end})
                return self._begin(choice) + finish
            case Progress() | Started():
                return self._chunks.sign(event)
            case PromptScored():
                return b""

    # -- what comes often ------------------------------------------------------------------------

    def _text(self, event: TextDelta) -> bytes:
        if event.logprobs:
            scores = write_logprobs(event.logprobs)
            said = self._delta(event.choice, {"content": event.text}, logprobs=scores)
            return self._begin(event.choice) + said
        return self._more(TextDelta, event.choice, 0, event.text)

    def _more(self, kind: type, choice: int, index: int, text: str) -> bytes:
        if not text or (self.legacy_calls and index):  # the form before tools knows one call
            return b""
        around = self._around.get((kind, choice, index))
        if around is None:
            around = self._around[kind, choice, index] = self._cut(kind, choice, index)
            return self._begin(choice) + self._more(kind, choice, index, text)
        before, after = around
        return before + orjson.dumps(text) + after

    def _cut(self, kind: type, choice: int, index: int) -> tuple[bytes, bytes]:
        before, after = b'{"content":', b"}"
        if kind is ReasoningDelta:
            before = b'{"reasoning_content":'
        elif kind is ToolCallDelta:
            before, after = arguments_around(index, legacy=self.legacy_calls)
        chosen = b'{"index":%d,"delta":%s' % (choice, before)
        return self._chunks.around(chosen, after + b',"finish_reason":null}')

    # -- what comes once -------------------------------------------------------------------------

    def _begin(self, choice: int, content: str | None = "") -> bytes:
        """The role chunk of a choice, the first time."""
        if choice in self._begun:
            return b""
        self._begun.add(choice)
        return self._delta(choice, {"role": "assistant", "content": content})

    def _call(self, event: ToolCallStarted) -> bytes:
        if self.legacy_calls and event.index:
            return b""
        started = write_started(event, legacy=self.legacy_calls)
        return self._begin(event.choice, None) + self._delta(event.choice, started)

    def _delta(self, choice: int, delta: Json, **rest: Json) -> bytes:
        return self._chunks.chunk({"index": choice, "delta": delta, **rest, "finish_reason": None})
