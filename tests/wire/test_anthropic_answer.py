import httpx2
import orjson
import pytest
from anthropic import Anthropic, APIError, APIStatusError
from anthropic.types import Message
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from messages_strategies import any_events, deltas, holds, orderly_events

from helexa.conversation import (
    ChoiceFinished,
    Event,
    Finished,
    Json,
    Progress,
    Reasoning,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from helexa.errors import Busy, ContextLengthExceeded, HelexaError, ModelNotFound, Unauthorized
from helexa.wire import sse
from helexa.wire.answer import Answer, Choice, Collector
from helexa.wire.anthropic import StreamWriter, read_request, write_answer, write_count
from helexa.wire.envelope import status_and_body, unexpected
from helexa.wire.exchange import Reply

REPLY = Reply("req_1", "m", 1_700_000_000)
USAGE = Usage(prompt_tokens=12, completion_tokens=9, cached_tokens=4, reasoning_tokens=2)
USAGE_JSON = {
    "input_tokens": 8,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 4,
    "output_tokens": 9,
    "output_tokens_details": {"thinking_tokens": 2},
}
ALL: list[Event] = [
    Started(12, 4),
    ReasoningDelta(0, "h"),
    ReasoningDelta(0, "m"),
    TextDelta(0, "So"),
    TextDelta(0, ""),
    TextDelta(0, "\n"),
    ToolCallStarted(0, 0, "call_1", "f"),
    ToolCallDelta(0, 0, '{"a":'),
    ToolCallDelta(0, 0, "1}"),
    ToolCallStarted(0, 1, "call_2", "g"),
    ChoiceFinished(0, "tool_calls"),
    Finished(USAGE),
]


def stream(events: list[Event], *, sealed: bool = False) -> bytes:
    writer = StreamWriter(REPLY, sealed)
    return b"".join(writer.write(event) for event in events)


def whole(events: list[Event], *, sealed: bool = False) -> bytes:
    collector = Collector()
    for event in events:
        collector.add(event)
    assert collector.answer is not None
    return write_answer(collector.answer, REPLY, sealed=sealed)


def frames(data: bytes) -> list[Json]:
    """What every frame of a stream holds; each is named by its type."""
    found = []
    for frame in sse.Parser().feed(data):
        assert isinstance(frame, sse.Frame)
        found.append(orjson.loads(frame.data))
        assert frame.event == found[-1]["type"]
    return found


def client(status: int, body: bytes, kind: str = "application/json") -> Anthropic:
    """The real SDK before an answer of ours."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, content=body, headers={"content-type": kind})

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    return Anthropic(api_key="k", base_url="http://helexa", http_client=http, max_retries=0)


def ask(status: int, body: bytes) -> Message:
    with client(status, body) as anthropic:
        return anthropic.messages.create(**QUESTION)


def ask_stream(data: bytes) -> Message:
    with (
        client(200, data, "text/event-stream") as anthropic,
        anthropic.messages.stream(**QUESTION) as answer,
    ):
        return answer.get_final_message()


QUESTION: Json = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


# -- whole -----------------------------------------------------------------------------------------


def test_a_whole_answer_has_its_blocks_in_order() -> None:
    assert orjson.loads(whole(ALL)) == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "aGVsZXhh"},
            {"type": "text", "text": "So\n"},
            {"type": "tool_use", "id": "call_1", "name": "f", "input": {"a": 1}},
            {"type": "tool_use", "id": "call_2", "name": "g", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": USAGE_JSON,
    }


@pytest.mark.parametrize(
    ("finished", "reason", "sequence"),
    [
        (ChoiceFinished(0, "stop"), "end_turn", None),
        (ChoiceFinished(0, "stop", "END"), "stop_sequence", "END"),
        (ChoiceFinished(0, "length"), "max_tokens", None),
        (ChoiceFinished(0, "tool_calls"), "tool_use", None),
        (ChoiceFinished(0, "tool_calls", "END"), "tool_use", None),
    ],
)
def test_why_it_ended_is_told_the_same_whole_and_as_a_stream(
    finished: ChoiceFinished, reason: str, sequence: str | None
) -> None:
    call = [ToolCallStarted(0, 0, "call_1", "f")] if finished.reason == "tool_calls" else []
    events = [Started(1), TextDelta(0, "a"), *call, finished, Finished(USAGE)]
    for message in (ask(200, whole(events)), ask_stream(stream(events))):
        assert (message.stop_reason, message.stop_sequence) == (reason, sequence)


@pytest.mark.parametrize("arguments", ['{"a": ', "[1]", "3", '{"a": 1} and'])
def test_a_call_that_is_no_object_is_told_as_text_and_never_run(arguments: str) -> None:
    events: list[Event] = [
        ToolCallStarted(0, 0, "call_1", "f"),
        ToolCallDelta(0, 0, arguments),
        ChoiceFinished(0, "length"),
        Finished(USAGE),
    ]
    message = ask(200, whole(events))
    (block,) = message.content
    assert (block.type, message.stop_reason) == ("text", "max_tokens")
    assert block.text == f"The call of f is incomplete: {arguments}"


def test_an_answer_all_of_whose_calls_are_incomplete_does_not_say_that_it_calls() -> None:
    choice = Choice(calls=(ToolCall("call_1", "f", "{"),), reason="tool_calls")
    assert ask(200, write_answer(Answer((choice,), USAGE), REPLY)).stop_reason == "end_turn"


def test_numbers_in_arguments_stay_as_the_model_wrote_them() -> None:
    events: list[Event] = [
        ToolCallStarted(0, 0, "call_1", "f"),
        ToolCallDelta(0, 0, '{"n": 123456789012345678901234567890, "x": 1.10}'),
        ChoiceFinished(0, "tool_calls"),
        Finished(USAGE),
    ]
    assert b'{"n": 123456789012345678901234567890, "x": 1.10}' in whole(events)


def test_an_answer_without_words_has_an_empty_block() -> None:
    events: list[Event] = [Started(1), ChoiceFinished(0, "stop"), Finished(USAGE)]
    for message in (ask(200, whole(events)), ask_stream(stream(events))):
        assert [block.text for block in message.content] == [""]


def test_the_tokens_of_a_prompt_are_counted() -> None:
    with client(200, write_count(42)) as anthropic:
        counted = anthropic.messages.count_tokens(model="m", messages=QUESTION["messages"])
    assert counted.input_tokens == 42


# -- as a stream -------------------------------------------------------------------------------------


def test_a_stream_has_these_events_in_this_order() -> None:
    start = {"type": "content_block_start"}
    delta = {"type": "content_block_delta"}
    stop = {"type": "content_block_stop"}
    opening, *rest = frames(stream(ALL))
    assert opening == {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {
                "input_tokens": 8,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 4,
                "output_tokens": 0,
            },
        },
    }
    thinking = {"type": "thinking", "thinking": "", "signature": ""}
    signature = {"type": "signature_delta", "signature": "aGVsZXhh"}
    calls = [
        {"type": "tool_use", "id": "call_1", "name": "f", "input": {}},
        {"type": "tool_use", "id": "call_2", "name": "g", "input": {}},
    ]
    assert rest == [
        start | {"index": 0, "content_block": thinking},
        delta | {"index": 0, "delta": {"type": "thinking_delta", "thinking": "h"}},
        delta | {"index": 0, "delta": {"type": "thinking_delta", "thinking": "m"}},
        delta | {"index": 0, "delta": signature},
        stop | {"index": 0},
        start | {"index": 1, "content_block": {"type": "text", "text": ""}},
        delta | {"index": 1, "delta": {"type": "text_delta", "text": "So"}},
        delta | {"index": 1, "delta": {"type": "text_delta", "text": "\n"}},
        stop | {"index": 1},
        start | {"index": 2, "content_block": calls[0]},
        delta | {"index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"a":'}},
        delta | {"index": 2, "delta": {"type": "input_json_delta", "partial_json": "1}"}},
        stop | {"index": 2},
        start | {"index": 3, "content_block": calls[1]},
        stop | {"index": 3},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": USAGE_JSON,
        },
        {"type": "message_stop"},
    ]


@define
class Reader:
    """What Claude Code and the SDKs demand of a stream's order, as a state machine."""

    state: str = "before"  # before, between, in a block (its kind), ending, done
    blocks: list[Json] = field(factory=list)
    brought: list[str] = field(factory=list)  # by the deltas of each block
    signed: bool = False

    def read(self, event: Json) -> None:
        assert self.state != "done"
        match event["type"]:
            case "ping":
                assert self.state != "ending"
            case "message_start":
                assert self.state == "before"
                self.state = "between"
            case "content_block_start":
                assert self.state == "between"
                assert event["index"] == len(self.blocks)
                self._begin(event["content_block"])
            case "content_block_delta":
                assert event["index"] == len(self.blocks) - 1
                self._bring(event["delta"])
            case "content_block_stop":
                assert event["index"] == len(self.blocks) - 1
                assert self.state in ("text", "thinking", "tool_use")
                assert self.signed == (self.state == "thinking")
                self.state, self.signed = "between", False
            case "message_delta":
                assert self.state == "between"
                assert event["delta"]["stop_reason"]
                self.state = "ending"
            case "message_stop":
                assert self.state == "ending"
                self.state = "done"
            case other:
                raise AssertionError(other)

    def _begin(self, block: Json) -> None:
        self.blocks.append(block)
        self.brought.append("")
        self.state = block["type"]

    def _bring(self, delta: Json) -> None:
        assert delta["type"] in deltas(self.state)
        assert not self.signed
        self.signed = delta["type"] == "signature_delta"
        if not self.signed:
            self.brought[-1] += holds(delta)


def said(events: list[Event]) -> str:
    words = []
    for event in events:
        match event:
            case TextDelta(_, text) | ReasoningDelta(_, text) | ToolCallDelta(_, _, text):
                words.append(text)
    return "".join(words)


@given(any_events())
def test_every_stream_keeps_the_order_and_loses_nothing(events: list[Event]) -> None:
    reader = Reader()
    for event in frames(stream(events)):
        reader.read(event)
    assert reader.state == "done"
    assert reader.blocks
    assert "".join(reader.brought) == said(events)


@given(any_events(), st.data())
def test_a_stream_that_fails_anywhere_ends_with_the_error(
    events: list[Event], data: st.DataObject
) -> None:
    writer, reader = StreamWriter(REPLY), Reader()
    for event in events[: data.draw(st.integers(0, len(events) - 1))]:
        for frame in frames(writer.write(event)):
            reader.read(frame)
    (last,) = frames(writer.error(Busy("Later.", retry_after=2)))
    assert (last["type"], last["error"]["type"]) == ("error", "overloaded_error")
    assert (last["error"]["message"], last["request_id"]) == ("Later.", "req_1")


@settings(max_examples=40)  # each with two clients
@given(orderly_events())
def test_the_sdk_gets_the_same_message_whole_and_as_a_stream(events: list[Event]) -> None:
    message, streamed = ask(200, whole(events)), ask_stream(stream(events))
    assert streamed.model_dump() == message.model_dump()


@given(any_events())
def test_a_stream_with_sealed_thoughts_keeps_the_order_and_tells_all_the_rest(
    events: list[Event],
) -> None:
    reader = Reader()
    for event in frames(stream(events, sealed=True)):
        reader.read(event)
    assert reader.state == "done"
    assert "".join(reader.brought) == said([e for e in events if not isinstance(e, ReasoningDelta)])


@settings(max_examples=40)  # each with two clients
@given(orderly_events())
def test_a_sealed_thought_is_not_read_and_comes_back_whole(events: list[Event]) -> None:
    message = ask(200, whole(events, sealed=True))
    assert ask_stream(stream(events, sealed=True)).model_dump() == message.model_dump()
    blocks = [block.model_dump(exclude_none=True) for block in message.content]
    assert all(block.get("thinking", "") == "" for block in blocks)
    again = read_request(QUESTION | {"messages": [{"role": "assistant", "content": blocks}]})
    thoughts = [
        part.text
        for each in again.conversation.messages
        for part in each.parts
        if isinstance(part, Reasoning)
    ]
    assert "".join(thoughts) == said([e for e in events if isinstance(e, ReasoningDelta)])


def test_no_frame_is_a_chat_completions_end() -> None:
    assert b"[DONE]" not in stream(ALL)


def test_a_sign_of_life_tells_what_is_waited_for_and_may_come_first() -> None:
    (ping,) = frames(StreamWriter(REPLY).write(Progress("loading", 1, 4)))
    assert ping == {"type": "ping", "progress": {"phase": "loading", "done": 1, "total": 4}}
    waiting: list[Event] = [Progress("queued", 2, 8), Progress("prefill", 0, 12), *ALL]
    assert ask_stream(stream(waiting)).content == ask_stream(stream(ALL)).content


# -- errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (Unauthorized("Who?"), "AuthenticationError"),
        (ModelNotFound("There is no model m."), "NotFoundError"),
        (ContextLengthExceeded("x", prompt_len=9, max=8), "BadRequestError"),
        (Busy("Later."), "ServiceUnavailableError"),
        (unexpected("req_1"), "InternalServerError"),
    ],
)
def test_the_sdk_raises_what_the_status_says(error: HelexaError, name: str) -> None:
    status, _, body = status_and_body(error, "req_1", "anthropic")
    with pytest.raises(APIStatusError) as raised:
        ask(status, body)
    assert type(raised.value).__name__ == name
    assert raised.value.body["error"]["code"] == error.code
    assert raised.value.body["request_id"] == "req_1"


def test_the_sdk_raises_an_error_in_the_middle_of_a_stream() -> None:
    writer = StreamWriter(REPLY)
    begun = b"".join(writer.write(event) for event in ALL[:4])
    failed = begun + writer.error(ContextLengthExceeded("x", prompt_len=9, max=8))
    with pytest.raises(APIError) as raised:
        ask_stream(failed)
    assert raised.value.body["error"]["message"] == "prompt is too long: 9 tokens > 8 maximum"


def test_one_choice_is_all_there_is() -> None:
    answer = Answer((Choice("a"),), USAGE)
    assert ask(200, write_answer(answer, REPLY)).content[0].text == "a"
