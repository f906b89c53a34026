"""Where something stands that is refused after its request was read: by each dialect's own names."""

from collections.abc import Callable

import pytest
from attrs import evolve

from helexa.conversation import Json
from helexa.errors import ContextLengthExceeded, InvalidRequest, ModelNotFound
from helexa.wire import anthropic, openai_chat, openai_completions, openai_responses
from helexa.wire.exchange import Exchange
from helexa.wire.places import put_in_place

SCHEMA: Json = {"type": "object"}
HI: list[Json] = [{"role": "user", "content": "hi"}]
FORM = {"type": "json_schema", "name": "n", "schema": SCHEMA}
CHAT, TEXTS = openai_chat.read_request, openai_completions.read_request
RESPONSES, MESSAGES = openai_responses.read_request, anthropic.read_request
SCHEMA_NAME = "response_format.json_schema.schema"
SECOND_TOOL = "tools[1].function.parameters"

Read = Callable[[Json], Exchange]
SPACE = {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "g"}]}

PLACES: list[tuple[Read, Json, str, str]] = [
    (CHAT, {}, "messages[1].content", "messages[1].content"),
    (
        CHAT,
        {"response_format": {"type": "json_schema", "json_schema": FORM}},
        SCHEMA_NAME,
        SCHEMA_NAME,
    ),
    (CHAT, {"response_format": FORM}, SCHEMA_NAME, "response_format.schema"),
    (CHAT, {"guided_json": SCHEMA}, SCHEMA_NAME, "guided_json"),
    (CHAT, {"regex": "a"}, "structured_outputs.regex", "regex"),
    (CHAT, {"ebnf": "a"}, "structured_outputs.grammar", "ebnf"),
    (CHAT, {"structured_outputs": {"choice": ["a"]}}, "structured_outputs.regex", "choice"),
    (
        CHAT,
        {
            "tools": [
                {"type": "custom", "custom": {"name": "a"}},
                {"type": "web_search"},
                {"type": "function", "function": {"name": "b"}},
            ]
        },
        SECOND_TOOL,
        "tools[2].function.parameters",
    ),
    (CHAT, {"functions": [{"name": "a"}, {"name": "b"}]}, SECOND_TOOL, "functions[1].parameters"),
    (TEXTS, {"guided_json": SCHEMA}, SCHEMA_NAME, "guided_json"),
    (TEXTS, {}, "prompt[0]", "prompt[0]"),
    (RESPONSES, {}, "messages", "input"),
    (RESPONSES, {}, "messages[1].content", "input"),
    (RESPONSES, {"text": {"format": FORM}}, SCHEMA_NAME, "text.format.schema"),
    (
        RESPONSES,
        {"tools": [{"type": "function", "name": "f"}, {"type": "web_search"}, SPACE]},
        SECOND_TOOL,
        "tools[2].tools[0].parameters",
    ),
    (MESSAGES, {}, "messages[1].content", "messages"),
    (
        MESSAGES,
        {"output_config": {"format": FORM}},
        SCHEMA_NAME,
        "output_config.format.schema",
    ),
    (
        MESSAGES,
        {
            "tools": [
                {"name": "f", "input_schema": SCHEMA},
                {"type": "web_search_20250305", "name": "w"},
                {"name": "g", "input_schema": SCHEMA},
            ]
        },
        SECOND_TOOL,
        "tools[2].input_schema",
    ),
]
BODIES: dict[Read, Json] = {
    CHAT: {"messages": HI},
    TEXTS: {"prompt": "hi"},
    RESPONSES: {"input": "hi"},
    MESSAGES: {"messages": HI},
}


def asked(read: Read, fields: Json) -> Exchange:
    return read({"model": "m", **BODIES[read], **fields})


@pytest.mark.parametrize(("read", "fields", "name", "place"), PLACES)
def test_each_dialect_hears_its_own_name_of_a_field(
    read: Read, fields: Json, name: str, place: str
) -> None:
    refused = InvalidRequest(f"{name} cannot be enforced", param=name)
    told = put_in_place(refused, asked(read, fields).places)
    assert told.param is not None
    assert told.param.endswith(place)
    if "." in name and place != "input":
        assert told.message.endswith(f"{place} cannot be enforced")


def test_a_request_to_make_a_conversation_short_has_the_places_of_its_response() -> None:
    body: Json = {"model": "m", "input": "hi"}
    assert openai_responses.read_compaction(body).places == RESPONSES(body).places


def test_a_sentence_about_messages_stays_one() -> None:
    refused = ContextLengthExceeded(
        "your messages have 9 tokens", param="messages", prompt_len=9, max=5
    )
    told = put_in_place(refused, {"messages": "input"})
    assert isinstance(told, ContextLengthExceeded)
    assert (told.param, told.message) == ("input", "your messages have 9 tokens")
    assert told.details == {"prompt_len": 9, "max": 5}


def test_what_has_the_same_name_everywhere_is_left_alone() -> None:
    for refused in (ModelNotFound("none", param="model"), InvalidRequest("no")):
        assert put_in_place(refused, {"messages": "input"}) is refused


def test_places_are_no_part_of_what_is_asked() -> None:
    request = asked(CHAT, {"guided_json": SCHEMA})
    assert isinstance(request, openai_chat.ChatRequest)
    assert evolve(request, places={}) == request
