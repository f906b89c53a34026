"""What a chat request asks of the answer's form and of the model's thinking."""

import re

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.conversation import (
    Conversation,
    Format,
    Grammar,
    Json,
    JsonObject,
    JsonSchema,
    Regex,
    Thinking,
)
from helexa.errors import InvalidRequest
from helexa.wire.fields import parse_json
from helexa.wire.format import quote
from helexa.wire.openai_chat import read_request, write_request

HELLO = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
DEEP = parse_json(b'{"a":' * 150 + b"{}" + b"}" * 150)
DEEPEST = parse_json(b'{"a":' * 1000 + b"{}" + b"}" * 1000)


def read(**fields: Json) -> Conversation:
    return read_request(HELLO | fields).conversation


# -- the form of the answer ------------------------------------------------------------------------


def named(**fields: Json) -> Json:
    return {"type": "json_schema", "json_schema": fields}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {}}, None),
        ({"response_format": {"type": "json_object"}}, JsonObject()),
        (
            {"response_format": named(name="city", schema=SCHEMA, strict=True, description="d")},
            JsonSchema("city", SCHEMA, "d", True),
        ),
        ({"response_format": named(schema=SCHEMA)}, JsonSchema("answer", SCHEMA)),
        (
            {"response_format": {"type": "json_object", "schema": SCHEMA}},
            JsonSchema("answer", SCHEMA),
        ),
        (
            {"response_format": {"type": "json_schema", "schema": SCHEMA}},
            JsonSchema("answer", SCHEMA),
        ),
        ({"structured_outputs": {}}, None),
        ({"structured_outputs": {"json": SCHEMA}}, JsonSchema("answer", SCHEMA)),
        ({"structured_outputs": {"json_object": True}}, JsonObject()),
        ({"structured_outputs": {"regex": "[a-z]+"}}, Regex("[a-z]+")),
        ({"structured_outputs": {"grammar": 'start: "a"'}}, Grammar('start: "a"')),
        ({"structured_outputs": {"choice": ["yes", "no"]}}, Regex("(yes|no)")),
        ({"guided_json": SCHEMA}, JsonSchema("answer", SCHEMA)),
        ({"guided_json": orjson.dumps(SCHEMA).decode()}, JsonSchema("answer", SCHEMA)),
        ({"guided_regex": "a|b"}, Regex("a|b")),
        ({"guided_grammar": 'root ::= "a"'}, Grammar('root ::= "a"')),
        ({"guided_choice": ["a.b", "c"]}, Regex("(a\\.b|c)")),
        ({"json_schema": SCHEMA}, JsonSchema("answer", SCHEMA)),
        ({"grammar": 'root ::= "a"'}, Grammar('root ::= "a"')),
        ({"regex": "a"}, Regex("a")),
        ({"ebnf": 'root ::= "a"'}, Grammar('root ::= "a"')),
        ({"response_format": {"type": "text"}, "guided_regex": "a"}, Regex("a")),
        ({"guided_regex": "a", "structured_outputs": {"regex": "a"}}, Regex("a")),
    ],
    ids=str,
)
def test_the_form_is_read_by_any_of_its_names(
    fields: dict[str, Json], expected: Format | None
) -> None:
    assert read(**fields).format == expected


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": 3}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": named()}, "response_format.json_schema.schema"),
        ({"response_format": named(schema=[])}, "response_format.json_schema.schema"),
        ({"response_format": named(schema=DEEP)}, "response_format.json_schema.schema"),
        ({"response_format": named(schema=DEEPEST)}, "response_format.json_schema.schema"),
        (
            {"response_format": named(schema={"description": "x" * 10_000_000})},
            "response_format.json_schema.schema",
        ),
        ({"response_format": named(schema={}, name=1)}, "response_format.json_schema.name"),
        ({"response_format": named(schema={}, strict="y")}, "response_format.json_schema.strict"),
        ({"structured_outputs": []}, "structured_outputs"),
        ({"structured_outputs": {"regex": 1}}, "structured_outputs.regex"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
        ({"structured_outputs": {"structural_tag": "{}"}}, "structured_outputs.structural_tag"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_choice": ["a", 1]}, "guided_choice[1]"),
        ({"guided_choice": ["x" * 40_000, "y" * 40_000]}, "guided_choice"),
        ({"guided_json": "[]"}, "guided_json"),
        ({"guided_json": True}, "guided_json"),
        ({"guided_regex": "x" * 100_000}, "guided_regex"),
        ({"guided_regex": "a", "guided_json": {}}, "guided_regex"),
        (
            {"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}},
            "structured_outputs.regex",
        ),
    ],
)
def test_a_form_that_is_wrong_is_refused_by_its_path(fields: dict[str, Json], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(**fields)
    assert refused.value.param == param
    assert len(refused.value.message) < 200


@given(st.text(max_size=10))
def test_a_quoted_text_matches_itself_alone(text: str) -> None:
    assert re.fullmatch(quote(text), text)
    assert not re.fullmatch(quote(text), text + "a")


# -- thinking --------------------------------------------------------------------------------------


SHOWN = Thinking(True, shown=True)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Thinking()),
        ({"reasoning_effort": "low"}, Thinking(True, "low", shown=True)),
        ({"reasoning_effort": "none"}, Thinking(False, "none")),
        ({"enable_thinking": True}, SHOWN),
        ({"enable_thinking": False}, Thinking(False)),
        ({"enable_thinking": True, "thinking_budget": 99}, Thinking(True, None, 99, True)),
        ({"thinking_budget": 99}, Thinking(None, None, 99)),
        ({"thinking_token_budget": 0}, Thinking(None, None, 0)),
        ({"thinking_budget_tokens": 7}, Thinking(None, None, 7)),
        ({"reasoning_budget_tokens": -1}, Thinking()),
        ({"chat_template_kwargs": {"thinking_budget": 5}}, Thinking(None, None, 5)),
        ({"reasoning_effort": "high", "enable_thinking": False}, Thinking(False, "high")),
        ({"chat_template_kwargs": {"enable_thinking": True}}, SHOWN),
        (
            {"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": False}},
            Thinking(False),
        ),
        ({"chat_template_kwargs": {"reasoning_effort": "low"}}, Thinking(None, "low")),
        ({"reasoning": {}}, Thinking()),
        ({"reasoning": {"effort": "high"}}, Thinking(True, "high", shown=True)),
        ({"reasoning": {"effort": "none"}}, Thinking(False, "none")),
        ({"reasoning": {"enabled": True}}, SHOWN),
        ({"reasoning": {"max_tokens": 2000}}, Thinking(True, None, 2000, True)),
        ({"reasoning": {"effort": "low", "exclude": True}}, Thinking(True, "low")),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, Thinking(True, None, 5, True)),
        ({"thinking": {"type": "disabled", "budget_tokens": 0}}, Thinking(False)),
        ({"thinking": {"type": "adaptive"}}, SHOWN),
        ({"thinking": {"type": "disabled"}}, Thinking(False)),
        ({"thinking": {}}, Thinking()),
    ],
    ids=str,
)
def test_wishes_about_thinking_are_read_by_any_of_their_names(
    fields: dict[str, Json], expected: Thinking
) -> None:
    assert read(**fields).thinking == expected


def test_what_else_the_template_may_read_is_passed_on() -> None:
    own = {"enable_thinking": True, "reasoning_effort": "low", "date": "today", "documents": [1]}
    found = read(chat_template_kwargs=own)
    assert dict(found.template_kwargs) == {"date": "today", "documents": [1]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning_effort": 3}, "reasoning_effort"),
        ({"reasoning_effort": "x" * 100}, "reasoning_effort"),
        ({"enable_thinking": "yes"}, "enable_thinking"),
        ({"thinking_budget": -2}, "thinking_budget"),
        ({"reasoning": "high"}, "reasoning"),
        ({"reasoning": {"effort": 1}}, "reasoning.effort"),
        ({"reasoning": {"max_tokens": 0}}, "reasoning.max_tokens"),
        ({"reasoning": {"exclude": "no"}}, "reasoning.exclude"),
        ({"thinking": True}, "thinking"),
        ({"thinking": {"type": "maybe"}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": "x"}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens"),
        (
            {"chat_template_kwargs": {"enable_thinking": "yes"}},
            "chat_template_kwargs.enable_thinking",
        ),
        ({"chat_template_kwargs": {"a": DEEP}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"a": "x" * 2_000_000}}, "chat_template_kwargs"),
        *(
            ({"chat_template_kwargs": {name: None}}, "chat_template_kwargs")
            for name in ("messages", "tools", "chat_template", "add_generation_prompt")
        ),
    ],
)
def test_wishes_that_are_wrong_are_refused_by_their_path(
    fields: dict[str, Json], param: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(**fields)
    assert refused.value.param == param


def test_thinking_is_written_in_the_names_that_most_servers_know() -> None:
    def written(thinking: Thinking) -> Json:
        body = write_request(Conversation("m", thinking=thinking))
        return {key: value for key, value in body.items() if key not in ("model", "messages")}

    assert written(Thinking()) == {}
    assert written(Thinking(True, "low", shown=True)) == {"reasoning_effort": "low"}
    assert written(SHOWN) == {"chat_template_kwargs": {"enable_thinking": True}}
    assert written(Thinking(True)) == {
        "chat_template_kwargs": {"enable_thinking": True},
        "reasoning": {"exclude": True},
    }
