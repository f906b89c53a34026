"""The cases of the Open Responses compliance tests, against the fields that its schema requires."""

import orjson
import pytest
from responses_grammar import check, read_events

from helexa.conversation import (
    ChoiceFinished,
    Event,
    Finished,
    Image,
    Json,
    Message,
    Text,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from helexa.wire.answer import Collector
from helexa.wire.exchange import Reply
from helexa.wire.fields import parse_json
from helexa.wire.openai_responses import ResponsesRequest, read_request

REPLY = Reply("req_AbC123", "m", 1_700_000_000)
USAGE = Finished(Usage(9, 5, 2, 1))
SAYS: list[Event] = [TextDelta(0, "Hello there."), ChoiceFinished(0, "stop"), USAGE]
CALLS: list[Event] = [
    ToolCallStarted(0, 0, "call_1", "get_weather"),
    ToolCallDelta(0, 0, '{"location":"San Francisco, CA"}'),
    ChoiceFinished(0, "tool_calls"),
    USAGE,
]
PIXEL = "data:image/png;base64,iVBORw0KGgo="
FILE = "data:application/pdf;base64,JVBERi0xLjEKKFRpdGxlOiBIZWxsbykgVGoK"  # one in plain letters
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a place",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}},
}
NUMBER, NOTHING = (int, float), type(None)
RESPONSE = {
    "id": str,
    "object": str,
    "created_at": int,
    "completed_at": (int, NOTHING),
    "status": str,
    "incomplete_details": (dict, NOTHING),
    "model": str,
    "previous_response_id": (str, NOTHING),
    "instructions": (str, list, NOTHING),
    "output": list,
    "error": (dict, NOTHING),
    "tools": list,
    "tool_choice": (str, dict),
    "truncation": str,
    "parallel_tool_calls": bool,
    "text": dict,
    "top_p": NUMBER,
    "presence_penalty": NUMBER,
    "frequency_penalty": NUMBER,
    "top_logprobs": int,
    "temperature": NUMBER,
    "reasoning": (dict, NOTHING),
    "user": (str, NOTHING),
    "usage": (dict, NOTHING),
    "max_output_tokens": (int, NOTHING),
    "max_tool_calls": (int, NOTHING),
    "store": bool,
    "background": bool,
    "service_tier": str,
    "metadata": dict,
    "safety_identifier": (str, NOTHING),
    "prompt_cache_key": (str, NOTHING),
}


def says(role: str, content: Json) -> Json:
    return {"type": "message", "role": role, "content": content}


CASES: dict[str, tuple[Json, list[Event]]] = {
    "a text": ({"input": [says("user", "Say hello.")]}, SAYS),
    "a system prompt": (
        {"input": [says("system", "You are a pirate."), says("user", "Say hello.")]},
        SAYS,
    ),
    "a tool": ({"input": [says("user", "How is the weather?")], "tools": [WEATHER]}, CALLS),
    "a picture": (
        {
            "input": [
                says(
                    "user",
                    [
                        {"type": "input_text", "text": "What is this?"},
                        {"type": "input_image", "image_url": PIXEL},
                    ],
                )
            ]
        },
        SAYS,
    ),
    "a file": (
        {
            "input": [
                says(
                    "user",
                    [
                        {"type": "input_text", "text": "What is its title?"},
                        {"type": "input_file", "filename": "a.pdf", "file_data": FILE},
                    ],
                )
            ]
        },
        SAYS,
    ),
    "a tool that must be called": (
        {
            "input": "How is the weather?",
            "tools": [WEATHER],
            "tool_choice": {"type": "function", "name": "get_weather"},
        },
        CALLS,
    ),
    "several turns": (
        {
            "input": [
                says("user", "My name is Alice."),
                says("assistant", "Hello Alice!"),
                says("user", "What is my name?"),
            ]
        },
        SAYS,
    ),
}


def read(body: Json) -> ResponsesRequest:
    return read_request(parse_json(orjson.dumps({"model": "m", **body})))


def check_response(response: Json) -> None:
    for name, types in RESPONSE.items():
        assert isinstance(response[name], types), name
    assert {"effort", "summary"} <= response["reasoning"].keys()
    assert "type" in response["text"]["format"]
    for tool in response["tools"]:
        assert {"type", "name", "description", "parameters", "strict"} <= tool.keys()
    for item in response["output"]:
        assert {"type", "id", "status"} <= item.keys()


@pytest.mark.parametrize(("body", "events"), CASES.values(), ids=CASES)
def test_a_whole_response_has_every_field(body: Json, events: list[Event]) -> None:
    collector = Collector()
    for event in events:
        collector.add(event)
    assert collector.answer is not None
    response = orjson.loads(read(body).whole(collector.answer, REPLY))
    check_response(response)
    assert response["status"] == "completed"
    wanted = "function_call" if "tools" in body else "message"
    assert [item["type"] for item in response["output"]] == [wanted]


@pytest.mark.parametrize(("body", "events"), CASES.values(), ids=CASES)
def test_every_response_in_a_stream_has_every_field(body: Json, events: list[Event]) -> None:
    writer = read(body | {"stream": True}).writer(REPLY)
    stream = b"".join(map(writer.write, events))
    check(stream)
    for event in read_events(stream):
        if "response" in event:
            check_response(event["response"])


def test_what_was_asked_is_told_again() -> None:
    body: dict[str, Json] = {
        "instructions": "Be brief.",
        "max_output_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "tool_choice": "required",
        "tools": [WEATHER | {"strict": True}],
        "parallel_tool_calls": False,
        "truncation": "auto",
        "metadata": {"a": "b"},
        "user": "me",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "reasoning": {"effort": "low", "summary": "auto"},
        "text": {"verbosity": "low", "format": {"type": "json_object"}},
        "top_logprobs": 3,
        "max_tool_calls": 2,
    }
    writer = read(body | {"input": "hi"}).writer(REPLY)
    told = read_events(b"".join(map(writer.write, SAYS)))[0]["response"]
    assert {name: told[name] for name in body} == body


def test_a_picture_and_its_question_are_one_message() -> None:
    body, _ = CASES["a picture"]
    (message,) = read(body).conversation.messages
    assert message == Message("user", (Text("What is this?"), Image(PIXEL)))
