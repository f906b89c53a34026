"""JSON by a schema, patterns and grammars: what is allowed, and that nothing else is."""

import json
import random
import re
from typing import Any

import jsonschema
import pytest
from constraint_walks import allowed_ids, compiled, ids_in, refusal, walk
from hypothesis import given, settings
from hypothesis import strategies as st

from helexa.conversation import Conversation, Format, Grammar, JsonObject, JsonSchema, Regex
from helexa.text.constraint.compiler import MAX_REMEMBERED, Compiler
from helexa.text.markup import Markup
from helexa.text.tokenizer import Tokenizer

SCHEMAS: dict[str, Any] = {
    "an object": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
        "required": ["name", "age"],
        "additionalProperties": False,
    },
    "references": {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "value": {"$ref": "#/$defs/value"},
                    "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                },
                "required": ["value", "next"],
                "additionalProperties": False,
            },
            "value": {"enum": [1, "two", None, [3], {"four": 4}]},
        },
        "$ref": "#/$defs/node",
    },
    "alternatives": {
        "anyOf": [
            {"const": {"kind": "none"}},
            {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
            {"type": "number", "minimum": -1.5, "exclusiveMaximum": 2},
        ]
    },
    "patterns": {
        "type": "object",
        "properties": {
            "code": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]+$"},
            "has_x": {"type": "string", "pattern": "x", "maxLength": 9},
            "day": {"type": "string", "format": "date"},
            "short": {"type": "string", "minLength": 1, "maxLength": 3},
        },
        "required": ["code", "has_x", "day", "short"],
        "additionalProperties": False,
    },
    "other properties": {
        "type": "object",
        "properties": {"id": {"type": "integer"}},
        "required": ["id"],
        "additionalProperties": {"type": "boolean"},
    },
    "patterns of properties": {
        "type": "object",
        "patternProperties": {"^n_[a-z]$": {"type": "integer"}},
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 2,
    },
    "tuples": {
        "type": "array",
        "prefixItems": [{"type": "integer"}, {"enum": ["a", "b"]}],
        "items": False,
        "minItems": 2,
    },
    "distinct alternatives": {
        "oneOf": [
            {"type": "object", "properties": {"k": {"const": "a"}}, "required": ["k"]},
            {"type": "object", "properties": {"k": {"const": "b"}}, "required": ["k"]},
        ]
    },
    "all of": {
        "allOf": [
            {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"b": {"type": "null"}}, "required": ["b"]},
        ],
        "type": "object",
        "maxProperties": 2,
    },
}


def answers(tokenizer: Tokenizer, form: Format) -> list[str]:
    constraint = compiled(tokenizer, Conversation("m", format=form))
    texts = [walk(tokenizer, constraint, seed) for seed in range(15)]
    found = [text for text in texts if text is not None]
    assert found
    return found


@pytest.mark.parametrize("name", SCHEMAS)
def test_whatever_a_schema_allows_is_valid_by_it(name: str, byte_level: Tokenizer) -> None:
    schema = SCHEMAS[name]
    for text in answers(byte_level, JsonSchema("x", schema, strict=True)):
        jsonschema.validate(json.loads(text), schema, format_checker=jsonschema.FormatChecker())


@pytest.mark.parametrize("name", SCHEMAS)
def test_pieces_that_know_no_bytes_do_as_well(name: str, pieces: Tokenizer) -> None:
    for text in answers(pieces, JsonSchema("x", SCHEMAS[name])):
        jsonschema.validate(json.loads(text), SCHEMAS[name])


def test_a_schema_allows_white_space_but_not_without_end(byte_level: Tokenizer) -> None:
    constraint = compiled(
        byte_level, Conversation("m", format=JsonSchema("x", SCHEMAS["an object"]))
    )
    told = {"name": "Ada", "age": 36}
    for indent in (None, 1, 4):
        assert refusal(byte_level, constraint, json.dumps(told, indent=indent)) is None
    assert refusal(byte_level, constraint, '{"name":"Ada","age":36}') is None
    assert refusal(byte_level, constraint, "{" + " " * 99 + '"name":"Ada","age":36}') is not None
    assert refusal(byte_level, constraint, '{"name":"Ada","age":36,"more":1}') is not None


def test_a_lenient_schema_takes_no_notice_of_what_cannot_be_enforced(
    byte_level: Tokenizer,
) -> None:
    schema = {"type": "object", "not": {"required": ["a"]}, "properties": {"b": {}}}
    for text in answers(byte_level, JsonSchema("x", schema, strict=False)):
        assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize("schema", [True, {}])
def test_a_schema_that_says_nothing_allows_any_json(schema: Any, byte_level: Tokenizer) -> None:
    for text in answers(byte_level, JsonSchema("x", schema)):
        json.loads(text)


def test_a_json_object_is_an_object(byte_level: Tokenizer) -> None:
    assert all(isinstance(json.loads(t), dict) for t in answers(byte_level, JsonObject()))


@pytest.mark.parametrize(
    "pattern",
    ["[a-c]{2,4}", "^(yes|no)$", r"\d{3}-\d{2}", "a/b\n+", "", r"(?i)on|off", "é+", r"[^a\n]{1,5}"],
)
def test_text_matches_a_pattern_as_a_whole(pattern: str, byte_level: Tokenizer) -> None:
    for text in answers(byte_level, Regex(pattern)):
        assert re.fullmatch(pattern, text), text


def test_a_grammar_is_kept_to(byte_level: Tokenizer) -> None:
    lark = 'start: NUMBER (SIGN NUMBER)*\nSIGN: " + " | " - "\nNUMBER: /[0-9]{1,3}/'
    for text in answers(byte_level, Grammar(lark)):
        assert re.fullmatch(r"\d{1,3}( [+-] \d{1,3})*", text)


def test_a_model_may_think_before_json(byte_level: Tokenizer) -> None:
    markup = Markup(think=("<think>", "</think>"))
    constraint = compiled(byte_level, Conversation("m", format=JsonObject()), markup)
    assert refusal(byte_level, constraint, '<think>Which? {"a"</think>\n\n{"a": 1}') is None
    assert refusal(byte_level, constraint, '{"a": 1}') is None
    assert refusal(byte_level, constraint, 'Well: {"a": 1}') is not None


def test_no_special_token_is_allowed_within_an_answer(byte_level: Tokenizer) -> None:
    matcher = compiled(byte_level, Conversation("m", format=Regex("(?s:.*)"))).matcher()
    ids, may_end = allowed_ids(matcher)
    assert may_end
    assert not byte_level.special_ids & set(ids)
    assert max(ids) < byte_level.num_ids


def test_matchers_of_one_constraint_go_their_own_ways(byte_level: Tokenizer) -> None:
    constraint = compiled(byte_level, Conversation("m", format=Regex("aa|bb")))
    first, second = constraint.matcher(), constraint.matcher()
    (a,), (b,) = byte_level.encode("a"), byte_level.encode("b")
    first.accept(a)
    second.accept(b)
    assert a in allowed_ids(first)[0]
    assert b in allowed_ids(second)[0]
    assert b not in allowed_ids(first)[0]
    assert constraint.matcher().allowed() == constraint.matcher().allowed()


def test_what_was_compiled_is_remembered_within_bounds(byte_level: Tokenizer) -> None:
    def ask(pattern: str) -> Any:
        return compiled(byte_level, Conversation("m", format=Regex(pattern)))

    compiler = byte_level.compiler
    assert isinstance(compiler, Compiler)
    first = ask("first")
    assert ask("first") is first
    for i in range(MAX_REMEMBERED):
        ask(f"number {i}")
    assert len(compiler._compiled) == MAX_REMEMBERED
    assert ask("first") is not first


@settings(max_examples=30)
@given(st.sampled_from(sorted(SCHEMAS.keys() - {"references"})), st.integers(0, 40), st.integers())
def test_whatever_is_open_is_closed_in_a_few_tokens(
    byte_level: Tokenizer, name: str, steps: int, seed: int
) -> None:
    constraint = compiled(byte_level, Conversation("m", format=JsonSchema("x", SCHEMAS[name])))
    chance, matcher, written = random.Random(seed), constraint.matcher(), b""
    for step in range(steps + 120):
        bits, may_end = matcher.allowed()
        if (may_end and step >= steps) or not any(bits):
            break
        id = chance.choice(ids_in(bits if step < steps else matcher.closing(bits)))
        matcher.accept(id)
        written += byte_level.token_bytes(id)
    jsonschema.validate(json.loads(written), SCHEMAS[name])
