"""Tool calls and reasoning in chat completions: written for clients, read from other servers."""

import orjson
import pytest
from chat_strategies import answers
from hypothesis import given
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from helexa.conversation import (
    ChoiceFinished,
    Event,
    Finished,
    Json,
    PromptScored,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from helexa.errors import UpstreamMalformed
from helexa.wire.answer import Choice, Collector
from helexa.wire.exchange import Reply
from helexa.wire.openai_chat import StreamReader, StreamWriter, read_answer, write_answer

REPLY = Reply("req_1", "m", 1_700_000_000)
WEATHER = [
    Started(12),
    ReasoningDelta(0, "The user wants "),
    ReasoningDelta(0, "the weather."),
    TextDelta(0, "Let me look."),
    ToolCallStarted(0, 0, "call_a", "get_weather"),
    ToolCallDelta(0, 0, '{"city":'),
    ToolCallDelta(0, 0, ' "Oslo"}'),
    ToolCallStarted(0, 1, "call_b", "get_time"),
    ChoiceFinished(0, "tool_calls"),
    Finished(Usage(12, 20, reasoning_tokens=5)),
]
ONLY_CALLS = [event for event in WEATHER if not isinstance(event, ReasoningDelta | TextDelta)]


def frames(events: list[Event], **options: bool) -> list[Json]:
    writer = StreamWriter(REPLY, **options)
    data = b"".join(writer.write(event) for event in events)
    found = [line for line in data.split(b"\n\n") if line and not line.startswith(b":")]
    assert found.pop() == b"data: [DONE]"
    return [orjson.loads(frame.removeprefix(b"data: ")) for frame in found]


def deltas(events: list[Event], **options: bool) -> list[Json]:
    return [frame["choices"][0]["delta"] for frame in frames(events, **options)]


def collected(events: list[Event]) -> Choice:
    collector = Collector()
    for event in events:
        collector.add(event)
    (choice,) = collector.answer.choices
    return choice


def whole(events: list[Event], **options: bool) -> Json:
    collector = Collector()
    for event in events:
        collector.add(event)
    return orjson.loads(write_answer(collector.answer, REPLY, **options))


# -- written -----------------------------------------------------------------------------------------


def test_a_whole_answer_has_its_reasoning_and_its_calls() -> None:
    completion = ChatCompletion.model_validate(whole(WEATHER))
    (choice,) = completion.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me look."
    assert choice.message.reasoning_content == "The user wants the weather."
    first, second = choice.message.tool_calls
    assert (first.id, first.type) == ("call_a", "function")
    assert (first.function.name, first.function.arguments) == ("get_weather", '{"city": "Oslo"}')
    assert (second.function.name, second.function.arguments) == ("get_time", "")


def test_an_answer_of_calls_alone_has_no_content() -> None:
    message = whole(ONLY_CALLS)["choices"][0]["message"]
    assert message["content"] is None
    assert "reasoning_content" not in message
    assert deltas(ONLY_CALLS)[0] == {"role": "assistant", "content": None}


def test_a_call_streams_its_name_first_and_its_index_always() -> None:
    called = [delta["tool_calls"] for delta in deltas(WEATHER) if "tool_calls" in delta]
    assert called == [
        [
            {
                "index": 0,
                "id": "call_a",
                "type": "function",
                "function": {"name": "get_weather", "arguments": ""},
            }
        ],
        [{"index": 0, "function": {"arguments": '{"city":'}}],
        [{"index": 0, "function": {"arguments": ' "Oslo"}'}}],
        [
            {
                "index": 1,
                "id": "call_b",
                "type": "function",
                "function": {"name": "get_time", "arguments": ""},
            }
        ],
    ]


def test_reasoning_streams_in_a_field_of_its_own() -> None:
    thought = [delta.get("reasoning_content") for delta in deltas(WEATHER)]
    assert thought[1:3] == ["The user wants ", "the weather."]


def test_the_sdk_puts_a_stream_of_calls_together() -> None:
    state = ChatCompletionStreamState()
    for frame in frames(WEATHER, include_usage=True):
        state.handle_chunk(ChatCompletionChunk.model_validate(frame))
    (choice,) = state.get_final_completion().choices
    assert [call.function.name for call in choice.message.tool_calls] == ["get_weather", "get_time"]
    assert choice.message.tool_calls[0].function.arguments == '{"city": "Oslo"}'
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Let me look.")


@given(answers())
def test_what_a_stream_says_is_what_the_whole_answer_says(events: list[Event]) -> None:
    said = [(frame["choices"] or [{}])[0] for frame in frames(events)]
    for choice in whole(events)["choices"]:
        own = [each["delta"] for each in said if each.get("index") == choice["index"]]
        calls = [call for delta in own for call in delta.get("tool_calls", [])]
        message = choice["message"]
        assert "".join(delta.get("content") or "" for delta in own) == (message["content"] or "")
        thought = "".join(delta.get("reasoning_content", "") for delta in own)
        assert thought == message.get("reasoning_content", "")
        arguments = [""] * len(message.get("tool_calls", []))
        for call in calls:
            arguments[call["index"]] += call["function"]["arguments"]
        assert arguments == [
            call["function"]["arguments"] for call in message.get("tool_calls", [])
        ]


def test_scores_of_the_prompt_are_not_for_chats() -> None:
    assert StreamWriter(REPLY).write(PromptScored(0, ())) == b""


def test_an_empty_delta_writes_nothing() -> None:
    writer = StreamWriter(REPLY)
    assert writer.write(ReasoningDelta(0, "")) == writer.write(ToolCallDelta(0, 0, "")) == b""


# -- the form before tools -----------------------------------------------------------------------------


def test_who_asked_with_functions_gets_a_function_call() -> None:
    (choice,) = whole(WEATHER, legacy_calls=True)["choices"]
    expected = {"name": "get_weather", "arguments": '{"city": "Oslo"}'}
    assert choice["message"]["function_call"] == expected
    assert choice["finish_reason"] == "function_call"
    assert "tool_calls" not in choice["message"]


def test_a_function_call_streams_too() -> None:
    called = [
        delta["function_call"]
        for delta in deltas(WEATHER, legacy_calls=True)
        if "function_call" in delta
    ]
    assert called == [
        {"name": "get_weather", "arguments": ""},
        {"arguments": '{"city":'},
        {"arguments": ' "Oslo"}'},
    ]
    assert frames(WEATHER, legacy_calls=True)[-1]["choices"][0]["finish_reason"] == "function_call"


# -- read from other servers -----------------------------------------------------------------------------


def chunk(finish: str | None = None, **delta: Json) -> Json:
    return {"id": "up", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def call(**fields: Json) -> Json:
    return chunk(tool_calls=[fields])


def read(*chunks: Json) -> list[Event]:
    """What the chunks say, without the start and the usage."""
    reader = StreamReader()
    data = b"".join(b"data: %s\n\n" % orjson.dumps(each) for each in chunks)
    started, *events, finished = [*reader.feed(data), *reader.finish()]
    assert (type(started), type(finished)) == (Started, Finished)
    return events


TWO_CALLS = (ToolCall("a", "f", '{"x":1}'), ToolCall("b", "g", '{"y":2}'))
F = {"name": "f", "arguments": '{"x":1}'}
G = {"name": "g", "arguments": '{"y":2}'}


@pytest.mark.parametrize(
    "chunks",
    [
        [  # as OpenAI does it
            call(index=0, id="a", type="function", function={"name": "f", "arguments": ""}),
            call(index=0, function={"arguments": '{"x"'}),
            call(index=0, function={"arguments": ":1}"}),
            call(index=1, id="b", type="function", function=G),
        ],
        [call(index=0, id="a", function=F), call(index=1, id="b", function=G)],
        [chunk(tool_calls=[{"id": "a", "function": F}, {"id": "b", "function": G}])],  # no index
        [
            call(id="a", function={"name": "f", "arguments": '{"x"'}),
            call(function={"arguments": ":1}"}),
            call(id="b", function=G),
        ],
        [
            call(index=0, id="a", function=F),
            call(index=0, id="b", function=G),
        ],  # all the same index
        [  # the name repeated
            call(index=0, id="a", function={"name": "f", "arguments": '{"x"'}),
            call(index=0, id="a", function={"name": "f", "arguments": ":1}"}),
            call(index=1, id="b", function=G),
        ],
        [  # another id for every delta
            call(index=0, id="a", function={"name": "f", "arguments": '{"x"'}),
            call(index=0, id="c", function={"name": None, "arguments": ":1}"}),
            call(index=1, id="b", function=G),
        ],
        [  # the name after the arguments
            call(index=0, id="a", function={"arguments": '{"x":1}'}),
            call(index=0, function={"name": "f"}),
            call(index=1, id="b", function=G),
        ],
        [  # arguments as an object, indexes from 1
            call(index=1, id="a", function={"name": "f", "arguments": {"x": 1}}),
            call(index=2, id="b", function=G),
        ],
    ],
)
@pytest.mark.parametrize("reason", ["tool_calls", "stop", "function_call", "eos"])
def test_the_same_two_calls_are_read_however_a_server_streams_them(
    chunks: list[Json], reason: str
) -> None:
    events = read(*chunks, chunk(reason))
    found = collected([*events, Finished(Usage(0, 0))])
    assert found == Choice(calls=TWO_CALLS, reason="tool_calls")
    assert [event.index for event in events if isinstance(event, ToolCallStarted)] == [0, 1]


def test_calls_without_an_id_get_one_each() -> None:
    events = read(call(function=F), call(function=G), chunk("tool_calls"))
    ids = [event.id for event in events if isinstance(event, ToolCallStarted)]
    assert len({*ids}) == 2
    assert all(each.startswith("call_") for each in ids)


def test_the_form_before_tools_is_read_as_a_call() -> None:
    events = read(
        chunk(function_call={"name": "f", "arguments": ""}),
        chunk(function_call={"arguments": '{"x":1}'}),
        chunk("function_call"),
    )
    assert collected([*events, Finished(Usage(0, 0))]).calls == (
        ToolCall("call_up_0_0", "f", '{"x":1}'),
    )


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_is_read_by_either_name(name: str) -> None:
    events = read(chunk(**{name: "hm", "content": None}), chunk(content="so"), chunk("stop"))
    assert events == [ReasoningDelta(0, "hm"), TextDelta(0, "so"), ChoiceFinished(0, "stop")]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("max_tokens", "length"),
        ("content_filter", "stop"),
        ("tool_calls", "stop"),  # without a call
        ("whatever", "stop"),
    ],
)
def test_every_reason_to_finish_is_understood(reason: str, expected: str) -> None:
    assert read(chunk(content="a"), chunk(reason))[-1] == ChoiceFinished(0, expected)


@pytest.mark.parametrize(
    "chunks",
    [
        [call(index=0, id="a"), chunk("tool_calls")],  # never a name
        [call(index=0, id="a"), call(index=1, id="b", function=G), chunk("tool_calls")],
        [call(index=0, id="a", function={"name": 3})],
        [call(index="0", id="a", function=F)],
        [call(index=0, id="a", function={"name": "f", "arguments": [1]})],
        [chunk(tool_calls={})],
        [chunk(tool_calls=["f"])],
        [chunk(reasoning_content=["hm"])],
        [  # back to a call that was complete
            call(index=0, id="a", function=F),
            call(index=1, id="b", function=G),
            call(index=0, function={"arguments": "}"}),
        ],
        [call(index=0, id="a", function=F), chunk(content="so"), call(index=0, function=F)],
    ],
)
def test_calls_that_make_no_sense_are_malformed(chunks: list[Json]) -> None:
    with pytest.raises(UpstreamMalformed):
        read(*chunks)


def test_a_whole_answer_of_another_server_needs_little() -> None:
    message = {
        "reasoning": "hm",
        "tool_calls": [{"function": F}, {"id": "b", "index": 0, "function": G}],
    }
    body = orjson.dumps({"choices": [{"message": message}], "usage": {"prompt_tokens": 3}})
    found = collected(read_answer(body))
    assert (found.reasoning, found.reason) == ("hm", "tool_calls")
    assert [each.name for each in found.calls] == ["f", "g"]
