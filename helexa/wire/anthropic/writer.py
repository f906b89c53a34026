"""Answers as messages: whole, and as a stream of typed blocks."""

from collections.abc import Iterator
from typing import Literal

import orjson
from attrs import define, field

from helexa.conversation import (
    ChoiceFinished,
    Event,
    Finished,
    FinishReason,
    Json,
    Passed,
    Progress,
    PromptScored,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from helexa.errors import HelexaError
from helexa.wire import sse
from helexa.wire.answer import Answer, Choice
from helexa.wire.envelope import envelope
from helexa.wire.exchange import Reply
from helexa.wire.opaque import wrap

# Clients send a thought back only with a signature, and nobody checks it here.
SIGNATURE = "aGVsZXhh"

Block = Literal["text", "thinking", "tool_use"]
DELTAS: dict[Block, tuple[str, str]] = {  # its type, and the name of what it brings
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
}
STOP_REASONS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
}


# -- whole -----------------------------------------------------------------------------------------


def write_answer(answer: Answer, reply: Reply, *, sealed: bool = False) -> bytes:
    """A message.  There is never more than one answer in this dialect."""
    choice = answer.choices[0]
    blocks = list(write_blocks(choice, sealed))
    called = any(block["type"] == "tool_use" for block in blocks)
    reason = "stop" if choice.reason == "tool_calls" and not called else choice.reason
    message = write_message(reply, blocks, write_usage(answer.usage))
    return orjson.dumps(message | write_stop(reason, choice.stop_sequence))


def write_message(reply: Reply, content: list[Json], usage: Json) -> dict[str, Json]:
    return {
        "id": reply.id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def write_blocks(choice: Choice, sealed: bool) -> Iterator[Json]:
    """At least one block: who reads the first one without asking finds it."""
    if choice.reasoning:
        yield write_thought(choice.reasoning, sealed)
    if choice.text or not (choice.reasoning or choice.calls):
        yield {"type": "text", "text": choice.text}
    for call in choice.calls:
        yield write_call(call)


def write_thought(thought: str, sealed: bool) -> Json:
    """A sealed one can only be sent back: its text is in the signature."""
    shown, signature = ("", wrap(thought)) if sealed else (thought, SIGNATURE)
    return {"type": "thinking", "thinking": shown, "signature": signature}


def write_call(call: ToolCall) -> Json:
    """A call whose arguments are no JSON object, as when the answer was cut off, is told as text: no
    client shall run it with arguments that the model did not mean."""
    if not is_object(call.arguments):
        text = f"The call of {call.name} is incomplete: {call.arguments}"
        return {"type": "text", "text": text}
    arguments = orjson.Fragment(call.arguments or "{}")
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}


def is_object(arguments: str) -> bool:
    try:
        return isinstance(orjson.loads(arguments or "{}"), dict)
    except orjson.JSONDecodeError:
        return False


def write_stop(reason: FinishReason, stop_sequence: str | None) -> dict[str, Json]:
    if reason == "stop" and stop_sequence is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": stop_sequence}
    return {"stop_reason": STOP_REASONS[reason], "stop_sequence": None}


def write_usage(usage: Usage) -> dict[str, Json]:
    thought = {"output_tokens_details": {"thinking_tokens": usage.reasoning_tokens}}
    read = write_input(usage.prompt_tokens, usage.cached_tokens)
    return read | {"output_tokens": usage.completion_tokens} | thought


def write_input(prompt_tokens: int, cached_tokens: int) -> dict[str, Json]:
    """Tokens of the prompt; those that were found in the cache are not counted twice."""
    return {
        "input_tokens": prompt_tokens - cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached_tokens,
    }


def write_count(tokens: int) -> bytes:
    """The answer to a request to count tokens."""
    return orjson.dumps({"input_tokens": tokens})


# -- as a stream -----------------------------------------------------------------------------------


@define(eq=False)
class StreamWriter:
    """Events to the bytes of one stream: message_start, blocks one after the other, message_delta and
    message_stop.  Until the message starts, and between its blocks, pings tell what is waited for."""

    reply: Reply
    sealed: bool = False
    _sealing: list[str] = field(factory=list, init=False)  # the thought of the open block
    _started: bool = field(default=False, init=False)
    _num_blocks: int = field(default=0, init=False)
    _open: Block | None = field(default=None, init=False)
    _head: bytes = field(default=b"", init=False)  # a delta of the open block up to what it brings
    _stop: dict[str, Json] = field(factory=dict, init=False)

    def write(self, event: Event) -> bytes:
        if isinstance(event, TextDelta):  # first: it comes once per token
            return self._bring("text", event.text)
        match event:
            case ReasoningDelta(_, text):
                return self._seal(text) if self.sealed else self._bring("thinking", text)
            case ToolCallDelta(_, _, arguments):
                return self._bring("tool_use", arguments)
            case ToolCallStarted(_, _, call_id, name):
                return self._begin("tool_use", {"id": call_id, "name": name, "input": {}})
            case Started():
                return self._start(event)
            case Progress():
                return ping(event)
            case PromptScored():
                return b""
            case Passed(data):
                return data
            case ChoiceFinished(_, reason, stop_sequence):
                self._stop = write_stop(reason, stop_sequence)
                return self._finish()
            case Finished(usage):
                return self._end(usage)

    def error(self, error: HelexaError) -> bytes:
        """The end of a stream that failed, in place of the rest."""
        return frame(envelope(error, self.reply.request_id, "anthropic"))

    def _start(self, started: Started) -> bytes:
        if self._started:
            return b""
        self._started = True
        usage = write_input(started.prompt_tokens, started.cached_tokens) | {"output_tokens": 0}
        return frame({"type": "message_start", "message": write_message(self.reply, [], usage)})

    def _bring(self, kind: Block, text: str) -> bytes:
        """More of the open block, or of a new one."""
        if not text:
            return b""
        if self._open != kind:
            return self._begin(kind, {DELTAS[kind][1]: ""}) + self._bring(kind, text)
        return self._head + orjson.dumps(text) + b"}}\n\n"

    def _seal(self, text: str) -> bytes:
        """More of a thought that is told at its end, in the signature."""
        if not text:
            return b""
        begun = self._begin("thinking", {"thinking": ""}) if self._open != "thinking" else b""
        self._sealing.append(text)
        return begun

    def _begin(self, kind: Block, content: dict[str, Json]) -> bytes:
        before = self._start(Started(0)) + self._close()
        index, self._num_blocks = self._num_blocks, self._num_blocks + 1
        self._open = kind
        brings, name = DELTAS[kind]
        self._head = (
            b"event: content_block_delta\ndata: "
            b'{"type":"content_block_delta","index":%d,"delta":{"type":"%s","%s":'
        ) % (index, brings.encode(), name.encode())
        signature = {"signature": ""} if kind == "thinking" else {}
        block = {"type": kind} | content | signature
        return before + frame(
            {"type": "content_block_start", "index": index, "content_block": block}
        )

    def _close(self) -> bytes:
        """The end of the open block, if there is one."""
        kind, self._open = self._open, None
        if kind is None:
            return b""
        index = self._num_blocks - 1
        end = frame({"type": "content_block_stop", "index": index})
        if kind != "thinking":
            return end
        signature = wrap("".join(self._sealing)) if self.sealed else SIGNATURE
        self._sealing.clear()
        signed = {"type": "signature_delta", "signature": signature}
        return frame({"type": "content_block_delta", "index": index, "delta": signed}) + end

    def _finish(self) -> bytes:
        """As in a whole answer, at least one block."""
        empty = self._begin("text", {"text": ""}) if not self._num_blocks else b""
        return empty + self._close()

    def _end(self, usage: Usage) -> bytes:
        delta = {"type": "message_delta", "delta": self._stop, "usage": write_usage(usage)}
        return frame(delta) + frame({"type": "message_stop"})


def ping(progress: Progress) -> bytes:
    """A sign of life; that it tells of what is ours alone, and clients skip it whole."""
    waits = {"phase": progress.phase, "done": progress.done, "total": progress.total}
    return frame({"type": "ping", "progress": waits})


def frame(data: dict[str, Json]) -> bytes:
    """Every event is named twice in this dialect."""
    return sse.frame(orjson.dumps(data), data["type"])
