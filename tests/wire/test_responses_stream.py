"""The events of a stream: their order, their places and numbers, and how a stream ends."""

import base64

import orjson
import pytest
from chat_strategies import answers, lines, usages
from hypothesis import given
from hypothesis import strategies as st
from responses_grammar import check, read_events

from helexa.conversation import (
    ChoiceFinished,
    Event,
    Finished,
    Json,
    Progress,
    ReasoningDelta,
    Started,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from helexa.errors import (
    Busy,
    ContextLengthExceeded,
    HelexaError,
    InsufficientVram,
    InvalidRequest,
    ModelNotFound,
    PrincipalBusy,
    ServiceUnavailable,
)
from helexa.wire.exchange import Reply
from helexa.wire.openai_responses import read_request

REPLY = Reply("req_AbC123", "m", 1_700_000_000)
TOOLS = [
    {"type": "function", "name": "search", "parameters": {"type": "object"}},
    {"type": "custom", "name": "patch"},
    {"type": "namespace", "name": "agents", "tools": [{"type": "function", "name": "wait"}]},
]
BEGINNING = ["response.created", "response.in_progress"]
END = (ChoiceFinished(0, "stop"), Finished(Usage(3, 2, 1, 1)))


def stream(*events: Event, **fields: Json) -> bytes:
    writer = read_request({"model": "m", "input": "hi", "stream": True, **fields}).writer(REPLY)
    return b"".join(map(writer.write, events))


def types(written: bytes) -> list[str]:
    return [event["type"] for event in read_events(written)]


def last_response(written: bytes) -> Json:
    return read_events(written)[-1]["response"]


# -- order -------------------------------------------------------------------------------------------


@st.composite
def told(draw: st.DrawFn) -> list[Event]:
    """The events of a generation that calls tools of every kind; signs of life anywhere."""
    progress = [each for each in draw(answers()) if isinstance(each, Progress)]
    line = draw(lines(0))
    for i, event in enumerate(line):
        if isinstance(event, ToolCallStarted):
            name = draw(st.sampled_from(["search", "patch", "agents__wait", "unheard_of"]))
            line[i] = ToolCallStarted(0, event.index, event.id, name)
    events = [Started(1), *line]
    for each in progress:
        events.insert(draw(st.integers(0, len(events))), each)
    return [*events, Finished(draw(usages))]


@given(told(), st.sampled_from([None, "auto"]), st.booleans())
def test_every_stream_obeys_the_grammar(
    events: list[Event], summary: str | None, encrypted: bool
) -> None:
    include = ["reasoning.encrypted_content"] if encrypted else []
    check(stream(*events, tools=TOOLS, reasoning={"summary": summary}, include=include))


def test_text_is_told_in_the_order_that_clients_expect() -> None:
    written = stream(Started(3), TextDelta(0, "Hel"), TextDelta(0, "lo"), *END)
    assert types(written) == [
        *BEGINNING,
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    (message,) = check(written)
    assert message["content"][0]["text"] == "Hello"
    assert message["status"] == "completed"


def test_deltas_of_one_message_differ_in_nothing_but_what_they_bring() -> None:
    score = TokenLogprob("b", b"b", -0.5)
    written = stream(
        *(
            TextDelta(0, "a"),
            TextDelta(0, "\u2028é\n"),
            TextDelta(0, ""),
            TextDelta(0, "b", (score,)),
        ),
        *(ToolCallStarted(0, 0, "c1", "search"), TextDelta(0, "c"), TextDelta(0, "d"), *END),
        tools=TOOLS,
    )
    said = [each for each in read_events(written) if each["type"].endswith("text.delta")]
    assert [each["delta"] for each in said] == ["a", "\u2028é\n", "b", "c", "d"]
    assert {frozenset(each) for each in said} == {frozenset(said[0])}
    assert [each["output_index"] for each in said] == [0, 0, 0, 2, 2]
    assert [len(each["logprobs"]) for each in said] == [0, 0, 1, 0, 0]
    first, _, second = check(written)
    assert [each["content"][0]["text"] for each in (first, second)] == ["a\u2028é\nb", "cd"]


def test_an_answer_without_a_word_has_an_empty_message() -> None:
    (message,) = check(stream(Started(3), *END))
    assert message["content"] == [
        {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    ]


def test_a_sign_of_life_is_an_event_that_says_what_is_waited_for() -> None:
    writer = read_request({"model": "m", "input": "hi"}).writer(REPLY)
    first = writer.write(Progress("queued", 2, 8))
    assert first.count(b"event: ") == 3  # created, in_progress, and the sign
    sign = writer.write(Progress("loading", 5, 9))
    assert sign.startswith(b"event: response.in_progress\n")
    event = orjson.loads(sign.split(b"data: ")[1])
    assert event["progress"] == {"phase": "loading", "done": 5, "total": 9}
    assert event["response"]["status"] == "in_progress"
    assert event["sequence_number"] == 3


def test_a_sign_of_life_in_the_middle_of_an_item_leaves_it_as_it_is() -> None:
    written = stream(TextDelta(0, "a"), Progress("decode"), TextDelta(0, "b"), *END)
    (message,) = check(written)
    assert message["content"][0]["text"] == "ab"


# -- reasoning ---------------------------------------------------------------------------------------

THOUGHT = (ReasoningDelta(0, "hm, "), ReasoningDelta(0, "yes"), TextDelta(0, "Yes."), *END)


def test_reasoning_is_told_as_its_own_text() -> None:
    written = stream(*THOUGHT, reasoning={"effort": "low"})
    assert types(written)[2:8] == [
        "response.output_item.added",
        "response.content_part.added",
        "response.reasoning_text.delta",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.content_part.done",
    ]
    reasoning, _ = check(written)
    assert reasoning["summary"] == []
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "hm, yes"}]
    assert "encrypted_content" not in reasoning


def test_reasoning_stands_in_the_place_of_a_summary_that_is_asked_for() -> None:
    written = stream(*THOUGHT, reasoning={"summary": "auto"})
    assert types(written)[2:9] == [
        "response.output_item.added",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
        "response.output_item.done",
    ]
    reasoning, _ = check(written)
    assert reasoning["summary"] == [{"type": "summary_text", "text": "hm, yes"}]


def test_reasoning_can_be_carried_back_by_a_client_that_stores_nothing_here() -> None:
    written = stream(
        *THOUGHT, reasoning={"summary": "auto"}, include=["reasoning.encrypted_content"]
    )
    reasoning, message = check(written)
    sealed = reasoning["encrypted_content"]
    assert base64.urlsafe_b64decode(sealed.partition(".")[2]) == b"hm, yes"
    replayed = {"type": "reasoning", "summary": [], "encrypted_content": sealed}
    said = {"role": "user", "content": "hi"}
    again = read_request({"model": "m", "input": [said, replayed, message]}).conversation
    assert [getattr(part, "text", "") for part in again.messages[1].parts] == ["hm, yes", "Yes."]


# -- tool calls --------------------------------------------------------------------------------------


def calls(name: str, *arguments: str) -> tuple[Event, ...]:
    deltas = [ToolCallDelta(0, 0, piece) for piece in arguments]
    return (ToolCallStarted(0, 0, "call_1", name), *deltas, ChoiceFinished(0, "tool_calls"), END[1])


def test_a_call_of_a_function_streams_its_arguments() -> None:
    written = stream(*calls("search", '{"q":', '"x"}'), tools=TOOLS)
    assert types(written)[2:-1] == [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
    ]
    (call,) = check(written)
    told = (call["type"], call["call_id"], call["name"], call["arguments"], call["status"])
    assert told == ("function_call", "call_1", "search", '{"q":"x"}', "completed")


def test_a_call_of_a_custom_tool_streams_its_input_as_text() -> None:
    written = stream(*calls("patch", '{"input": "*** Be', "gin\\n+x\\", 'u00e9"}'), tools=TOOLS)
    deltas = [event["delta"] for event in read_events(written) if "delta" in event]
    assert deltas == ["*** Be", "gin\n+x", "é"]
    (call,) = check(written)
    assert (call["type"], call["name"]) == ("custom_tool_call", "patch")
    assert call["input"] == "*** Begin\n+xé"


def test_a_call_of_a_tool_in_a_namespace_tells_both_names() -> None:
    (call,) = check(stream(*calls("agents__wait", "{}"), tools=TOOLS))
    assert (call["name"], call["namespace"]) == ("wait", "agents")


# -- scores ------------------------------------------------------------------------------------------


def test_log_probabilities_come_with_the_text_and_once_more_at_its_end() -> None:
    score = TokenLogprob("a", b"a", -0.5, (TokenLogprob("b", b"b", -1.0),))
    written = stream(TextDelta(0, "a", (score,)), *END, top_logprobs=1)
    shown = {"token": "a", "bytes": [97], "logprob": -0.5}
    shown["top_logprobs"] = [{"token": "b", "bytes": [98], "logprob": -1.0}]
    scored = {
        event["type"]: event["logprobs"] for event in read_events(written) if "logprobs" in event
    }
    assert scored == {
        "response.output_text.delta": [shown],
        "response.output_text.done": [shown],
    }
    (message,) = check(written)
    assert message["content"][0]["logprobs"] == [shown]


# -- the end -----------------------------------------------------------------------------------------


def test_the_end_tells_the_usage_with_all_of_its_details() -> None:
    response = last_response(stream(TextDelta(0, "a"), *END))
    assert response["usage"] == {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 5,
    }
    assert response["id"] == "resp_AbC123"


def test_an_answer_that_is_too_long_is_incomplete() -> None:
    cut = (TextDelta(0, "a"), ChoiceFinished(0, "length"), END[1])
    response = last_response(stream(*cut))
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][-1]["status"] == "incomplete"


def test_the_stop_string_that_ended_an_answer_is_told() -> None:
    response = last_response(stream(TextDelta(0, "a"), ChoiceFinished(0, "stop", "END"), END[1]))
    assert response["stop_reason"] == "END"


FAILURES = [
    (ContextLengthExceeded("too long"), "context_length_exceeded"),
    (insufficient := HelexaError("budget exhausted"), "insufficient_quota"),
    (Busy("full", retry_after=3), "rate_limit_exceeded"),
    (PrincipalBusy("yours", retry_after=3), "rate_limit_exceeded"),
    (InvalidRequest("no"), "invalid_prompt"),
    (ModelNotFound("gone"), "invalid_prompt"),
    (ServiceUnavailable("wait"), "service_unavailable"),
    (InsufficientVram("full"), "insufficient_vram"),
    (HelexaError("broken"), "server_error"),
]
insufficient.code = "insufficient_quota"


@pytest.mark.parametrize(("error", "code"), FAILURES, ids=[code for _, code in FAILURES])
def test_a_failure_has_the_code_that_clients_act_on(error: HelexaError, code: str) -> None:
    writer = read_request({"model": "m", "input": "hi"}).writer(REPLY)
    written = writer.error(error)
    check(written)
    failed = last_response(written)
    assert (failed["status"], failed["error"]["code"]) == ("failed", code)
    assert error.message in failed["error"]["message"]


def test_a_failure_in_the_middle_keeps_what_was_complete() -> None:
    writer = read_request({"model": "m", "input": "hi"}).writer(REPLY)
    begun = writer.write(ReasoningDelta(0, "hm")) + writer.write(TextDelta(0, "a"))
    events = read_events(begun + writer.error(HelexaError("broken")))
    assert [event["type"] for event in events].count("response.created") == 1
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["reasoning"]


def test_codex_finds_in_the_message_when_to_try_again() -> None:
    writer = read_request({"model": "m", "input": "hi"}).writer(REPLY)
    failed = last_response(writer.error(Busy("The queue is full.", retry_after=2.2)))
    assert failed["error"]["message"] == "The queue is full. Please try again in 3s."
