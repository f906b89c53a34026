"""Responses of other servers, which are not all alike."""

import orjson
import pytest

from helexa.conversation import (
    ChoiceFinished,
    Event,
    Finished,
    Json,
    ReasoningDelta,
    Started,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from helexa.errors import UpstreamError, UpstreamMalformed
from helexa.wire.openai_responses import StreamReader, read_answer

MESSAGE = {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'}
CUSTOM = {"type": "custom_tool_call", "call_id": "c2", "name": "p", "input": "text"}
USAGE = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}


def read(*events: Json, end: bool = True) -> list[Event]:
    reader = StreamReader()
    data = b"".join(b"data: %s\n\n" % orjson.dumps(event) for event in events)
    found = list(reader.feed(data))
    return [*found, *reader.finish()] if end else found


def ended(*output: Json, **more: Json) -> Json:
    response = {"id": "r", "status": "completed", "output": list(output), "usage": USAGE, **more}
    return {"type": f"response.{response['status']}", "response": response}


def done(index: int, item: Json) -> Json:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


END = [ChoiceFinished(0, "stop"), Finished(Usage(3, 2))]


def test_an_item_that_is_told_only_at_its_end_is_told() -> None:
    found = read(done(0, MESSAGE), done(1, CALL), done(2, CUSTOM), ended(MESSAGE, CALL, CUSTOM))
    assert found == [
        Started(0),
        TextDelta(0, "Hello"),
        ToolCallStarted(0, 0, "c1", "f"),
        ToolCallDelta(0, 0, '{"a":1}'),
        ToolCallStarted(0, 1, "c2", "p"),
        ToolCallDelta(0, 1, '{"input":"text"}'),
        ChoiceFinished(0, "tool_calls"),
        Finished(Usage(3, 2)),
    ]


def test_an_answer_that_is_told_only_at_the_end_is_told() -> None:
    assert read(ended(MESSAGE)) == [Started(0), TextDelta(0, "Hello"), *END]


def test_what_deltas_told_is_not_told_again() -> None:
    delta = {"type": "response.output_text.delta", "output_index": 0, "delta": "Hello"}
    assert read(delta, done(0, MESSAGE), ended(MESSAGE)) == [
        Started(0),
        TextDelta(0, "Hello"),
        *END,
    ]


def test_scores_that_come_without_text_are_not_told_again() -> None:
    score = {"token": "", "logprob": 0, "top_logprobs": []}
    delta = {
        "type": "response.output_text.delta",
        "output_index": 0,
        "delta": "",
        "logprobs": [score],
    }
    item = {
        "type": "message",
        "content": [{"type": "output_text", "text": "", "logprobs": [score]}],
    }
    assert read(delta, done(0, item), ended(item)) == [
        Started(0),
        TextDelta(0, "", (TokenLogprob("", b"", 0.0),)),
        *END,
    ]


def test_arguments_that_end_before_the_item_does_are_completed() -> None:
    begun = {
        "type": "response.output_item.added",
        "output_index": 0,
        "item": CALL | {"arguments": ""},
    }
    part = {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": '{"a"'}
    found = read(begun, part, done(0, CALL), ended(CALL))
    assert [event.arguments for event in found if isinstance(event, ToolCallDelta)] == [
        '{"a"',
        ":1}",
    ]


def test_reasoning_that_is_told_in_both_forms_is_told_once() -> None:
    own = {"type": "response.reasoning_text.delta", "output_index": 0, "delta": "hm"}
    summary = {"type": "response.reasoning_summary_text.delta", "output_index": 0, "delta": "hm"}
    found = read(own, summary, ended())
    assert [event for event in found if isinstance(event, ReasoningDelta)] == [
        ReasoningDelta(0, "hm")
    ]


def test_the_parts_of_a_summary_are_paragraphs() -> None:
    events: list[Json] = []
    for i in range(2):
        events.append({"type": "response.reasoning_summary_part.added", "summary_index": i})
        events.append({"type": "response.reasoning_summary_text.delta", "delta": f"part {i}"})
    found = read(*events, ended())
    told = "".join(event.text for event in found if isinstance(event, ReasoningDelta))
    assert told == "part 0\n\npart 1"


def test_a_tool_of_a_namespace_has_one_name() -> None:
    found = read(done(0, CALL | {"namespace": "ns"}), ended())
    assert ToolCallStarted(0, 0, "c1", "ns__f") in found


def test_scores_without_bytes_are_read() -> None:
    score = {"token": "é", "logprob": -1, "top_logprobs": []}
    delta = {"type": "response.output_text.delta", "delta": "é", "logprobs": [score]}
    assert TextDelta(0, "é", (TokenLogprob("é", "é".encode(), -1.0),)) in read(delta, ended())


def test_a_usage_that_is_not_told_is_estimated() -> None:
    delta = {"type": "response.output_text.delta", "delta": "a"}
    assert read(delta, delta, ended(usage=None))[-1] == Finished(Usage(0, 2))


def test_an_answer_that_was_cut_off_by_its_length_says_so() -> None:
    assert ChoiceFinished(0, "length") in read(ended(MESSAGE, status="incomplete"))


def test_what_comes_after_the_end_is_nothing() -> None:
    assert read(ended(MESSAGE), ended(MESSAGE)) == read(ended(MESSAGE))


FAILED = {"code": "context_length_exceeded", "message": "too long"}


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.failed", "response": {"status": "failed", "error": FAILED}},
        {"type": "error", **FAILED},
        {"type": "error", "error": FAILED},
        {"error": FAILED},
    ],
)
def test_the_error_of_an_upstream_is_passed_on(event: Json) -> None:
    with pytest.raises(UpstreamError, match="too long") as failure:
        read(event)
    assert failure.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    "events",
    [
        [],
        [{"type": "response.created", "response": {}}],
        [{"type": "response.output_text.delta", "delta": 3}],
        [{"type": "response.completed"}],
        [ended(status="queued") | {"type": "response.completed"}],
        [[]],
    ],
)
def test_a_stream_that_cannot_be_read_is_the_upstreams_mistake(events: list[Json]) -> None:
    with pytest.raises(UpstreamMalformed):
        read(*events)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"usage":{},"output":3}', b'{"usage":3}'])
def test_a_response_that_cannot_be_read_is_the_upstreams_mistake(body: bytes) -> None:
    with pytest.raises(UpstreamMalformed):
        read_answer(body)


def test_a_response_that_failed_is_an_error() -> None:
    with pytest.raises(UpstreamError, match="too long"):
        read_answer(orjson.dumps({"status": "failed", "error": FAILED}))
