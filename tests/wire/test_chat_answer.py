import orjson
import pytest
from chat_strategies import answers, cuts
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from helexa.conversation import (
    ChoiceFinished,
    Event,
    Finished,
    Json,
    Progress,
    Started,
    TextDelta,
    TokenLogprob,
    Usage,
)
from helexa.errors import ContextLengthExceeded, UpstreamError, UpstreamMalformed
from helexa.wire.answer import Collector
from helexa.wire.exchange import Reply
from helexa.wire.openai_chat import StreamReader, StreamWriter, read_answer, write_answer

REPLY = Reply("req_1", "m", 1_700_000_000)
USAGE = Usage(prompt_tokens=12, completion_tokens=2, cached_tokens=4, reasoning_tokens=1)
HELLO = [
    Started(12, 4),
    TextDelta(0, "Hel"),
    TextDelta(0, "lo\n"),
    ChoiceFinished(0, "stop"),
    Finished(USAGE),
]
USAGE_JSON = {
    "prompt_tokens": 12,
    "completion_tokens": 2,
    "total_tokens": 14,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 1},
}


def stream(events: list[Event], **options: bool) -> bytes:
    writer = StreamWriter(REPLY, **options)
    return b"".join(writer.write(event) for event in events)


def chunks(data: bytes) -> list[ChatCompletionChunk]:
    """The chunks as the openai SDK reads them, and the `[DONE]` at their end."""
    frames = [line for line in data.split(b"\n\n") if line and not line.startswith(b":")]
    assert frames.pop() == b"data: [DONE]"
    return [
        ChatCompletionChunk.model_validate_json(frame.removeprefix(b"data: ")) for frame in frames
    ]


def whole(events: list[Event]) -> bytes:
    collector = Collector()
    for event in events:
        collector.add(event)
    return write_answer(collector.answer, REPLY)


def read(data: bytes) -> list[Event]:
    reader = StreamReader()
    return [*reader.feed(data), *reader.finish()]


# -- whole -------------------------------------------------------------------------------------------


def test_a_whole_answer_is_what_the_sdk_expects() -> None:
    body = whole(HELLO)
    completion = ChatCompletion.model_validate_json(body)
    assert completion.choices[0].message.content == "Hello\n"
    assert completion.choices[0].finish_reason == "stop"
    assert orjson.loads(body)["usage"] == USAGE_JSON


@given(answers())
def test_any_whole_answer_is_what_the_sdk_expects(events: list[Event]) -> None:
    completion = ChatCompletion.model_validate_json(whole(events))
    assert [choice.index for choice in completion.choices] == list(range(len(completion.choices)))


def test_an_answer_is_not_whole_before_its_last_event() -> None:
    collector = Collector()
    for event in HELLO[:-1]:
        collector.add(event)
    assert collector.answer is None


@given(answers())
def test_a_whole_answer_read_back_says_the_same(events: list[Event]) -> None:
    read_back = Collector()
    original = Collector()
    for event in events:
        original.add(event)
    for event in read_answer(whole(events)):
        read_back.add(event)
    assert read_back.answer == original.answer


# -- as a stream ---------------------------------------------------------------------------------------


def test_a_stream_begins_with_the_role_and_ends_with_the_usage() -> None:
    role, first, second, finish = chunks(stream(HELLO))
    assert role.choices[0].delta.role == "assistant"
    assert [first.choices[0].delta.content, second.choices[0].delta.content] == ["Hel", "lo\n"]
    assert finish.choices[0].finish_reason == "stop"
    assert finish.usage.model_dump(exclude_none=True) == USAGE_JSON
    assert [chunk.usage for chunk in (role, first, second)] == [None, None, None]


def test_the_usage_has_a_chunk_of_its_own_when_it_is_asked_for() -> None:
    *_, finish, usage = chunks(stream(HELLO, include_usage=True))
    assert finish.choices[0].finish_reason == "stop"
    assert finish.usage is None
    assert usage.choices == []
    assert usage.usage.total_tokens == 14


def test_of_several_choices_the_last_finish_chunk_has_the_usage() -> None:
    events = [
        Started(12),
        TextDelta(1, "b"),
        ChoiceFinished(1, "length"),
        TextDelta(0, "a"),
        ChoiceFinished(0, "stop", "END"),
        Finished(USAGE),
    ]
    found = chunks(stream(events))
    finishes = [chunk for chunk in found if chunk.choices[0].finish_reason]
    assert [(chunk.choices[0].index, chunk.usage is None) for chunk in finishes] == [
        (1, True),
        (0, False),
    ]
    assert finishes[1].choices[0].stop_reason == "END"
    roles = [chunk.choices[0].index for chunk in found if chunk.choices[0].delta.role]
    assert roles == [1, 0]


def test_an_answer_without_a_word_still_has_its_role_and_end() -> None:
    events = [Started(12), ChoiceFinished(0, "stop"), Finished(USAGE)]
    role, finish = chunks(stream(events))
    assert role.choices[0].delta.content == ""
    assert finish.choices[0].finish_reason == "stop"


def test_logprobs_come_with_their_text() -> None:
    token = TokenLogprob("Hi", b"Hi", -0.5, (TokenLogprob("Ho", b"Ho", float("-inf")),))
    events = [TextDelta(0, "Hi", (token,)), ChoiceFinished(0, "stop"), Finished(USAGE)]
    _, delta, _ = chunks(stream(events))
    (found,) = delta.choices[0].logprobs.content
    assert (found.token, found.bytes, found.logprob) == ("Hi", [72, 105], -0.5)
    assert [(other.token, other.logprob) for other in found.top_logprobs] == [("Ho", -9999.0)]


def test_what_the_request_waits_for_is_told_in_comments() -> None:
    assert stream([Progress("queued", 3, 8)]) == b": queued 3/8\n\n"


def test_a_delta_without_anything_writes_nothing() -> None:
    assert stream([TextDelta(0, "")]) == b""


def test_an_error_in_the_stream_ends_it() -> None:
    event, done, rest = StreamWriter(REPLY).error(ContextLengthExceeded("too long")).split(b"\n\n")
    told = orjson.loads(event.removeprefix(b"data: "))["error"]
    assert (told["code"], told["request_id"]) == ("context_length_exceeded", "req_1")
    assert (done, rest) == (b"data: [DONE]", b"")


@given(answers(), st.booleans())
def test_every_chunk_is_what_the_sdk_expects(events: list[Event], include_usage: bool) -> None:
    found = chunks(stream(events, include_usage=include_usage))
    assert sum(chunk.usage is not None for chunk in found) == 1
    assert found[-1].usage is not None


@given(st.data(), answers(), st.booleans())
def test_a_stream_read_back_is_the_same_events_however_it_is_cut(
    data: st.DataObject, events: list[Event], include_usage: bool
) -> None:
    written = stream(events, include_usage=include_usage)
    reader = StreamReader()
    found = [event for piece in data.draw(cuts(written)) for event in reader.feed(piece)]
    assert [*found, *reader.finish()] == events


# -- streams of other servers --------------------------------------------------------------------------


def foreign(*frames: Json) -> bytes:
    return b"".join(b"data: %s\n\n" % orjson.dumps(frame) for frame in frames)


def test_a_foreign_stream_needs_neither_role_nor_comments_nor_usage() -> None:
    data = foreign(
        {"choices": [{"delta": {"content": "a"}}]},
        {"choices": [{"index": 0, "delta": {"content": None}, "finish_reason": "tool_calls"}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    )
    assert read(data) == [
        Started(0),
        TextDelta(0, "a"),
        ChoiceFinished(0, "stop"),
        Finished(Usage(0, 1)),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"data: [DONE]\n\n",
        foreign({"choices": [{"delta": {"role": "assistant"}}]}),
        foreign({"choices": [{"delta": {"content": "a"}}]}),
        foreign({"choices": [{"delta": {"content": "a"}}]}) + b"data: [DONE]\n\n",
        foreign({"choices": [{"delta": {"content": 3}}]}),
        foreign({"choices": 3}),
        foreign({"choices": [{"index": -1}]}),
        foreign({"choices": [], "usage": {"prompt_tokens": "many"}}),
        foreign({"choices": [{"delta": {"tool_calls": [{"index": 0}]}}]}),
        foreign([1]),
        b"data: {\n\n",
    ],
)
def test_a_stream_that_is_cut_off_or_malformed_is_never_a_whole_answer(data: bytes) -> None:
    with pytest.raises(UpstreamMalformed):
        read(data)


def test_an_error_in_a_foreign_stream_is_raised_after_what_came_before() -> None:
    error = {"message": "full", "type": "rate_limit_error", "code": "rate_limit_exceeded"}
    data = foreign({"choices": [{"delta": {"content": "a"}}]}, {"error": error})
    found = []
    with pytest.raises(UpstreamError) as raised:
        found.extend(StreamReader().feed(data))
    assert found == [Started(0), TextDelta(0, "a")]
    assert (raised.value.type, raised.value.code) == ("rate_limit_error", "rate_limit_exceeded")
    assert raised.value.status == 502


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"usage": {}, "choices": [{"message": 3}]}',
        b"<html>",
    ],
)
def test_a_malformed_whole_answer_is_told_as_such(body: bytes) -> None:
    with pytest.raises(UpstreamMalformed):
        read_answer(body)


@pytest.mark.parametrize("error", [{"message": "no"}, "no", {"code": 3}])
def test_an_error_in_place_of_an_answer_is_raised(error: Json) -> None:
    with pytest.raises(UpstreamError) as raised:
        read_answer(orjson.dumps({"error": error}))
    assert raised.value.code == "upstream_error"
