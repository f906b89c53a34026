"""Schemas, patterns and grammars that were made to do harm: refused in time, with a reason."""

import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from attrs import evolve
from constraint_walks import allowed_ids, compiled
from hypothesis import given, settings
from hypothesis import strategies as st

from helexa.conversation import Conversation, Format, Grammar, JsonSchema, Regex, Tool, ToolChoice
from helexa.errors import HelexaError, InvalidRequest
from helexa.text.constraint import bounds, trial
from helexa.text.tokenizer import Tokenizer

SECONDS = 30.0  # of this process, for one of them: no thread of the node is kept that long


def nested(count: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = {"type": "string"}
    for _ in range(count):
        value = wrap(value)
    return value


def chain(count: int, wrap: Callable[[Any], Any]) -> Any:
    links = {f"a{i}": wrap({"$ref": f"#/$defs/a{i + 1}"}) for i in range(count)}
    return {"$defs": {**links, f"a{count}": {"type": "string"}}, "$ref": "#/$defs/a0"}


def named(count: int) -> list[str]:
    return [f"p{i}" for i in range(count)]


REFUSED: dict[str, tuple[Any, str]] = {
    "not": ({"not": {"type": "string"}}, "'not'"),
    "if": ({"if": {"type": "string"}, "then": {"minLength": 1}}, "'if', 'then'"),
    "uniqueItems": ({"type": "array", "uniqueItems": True}, "'uniqueItems'"),
    "unevaluated": ({"type": "object", "unevaluatedProperties": False}, "'unevaluatedProperties'"),
    "within": ({"type": "object", "properties": {"a": {"not": {}}}}, "'not'"),
    "look-around": ({"type": "string", "pattern": "(?=a)b"}, "'pattern'"),
    "back-reference": ({"type": "string", "pattern": r"(a)\1"}, "'pattern'"),
    "open group": ({"type": "string", "pattern": "(a"}, "'pattern'"),
    "deep group": ({"type": "string", "pattern": "(" * 9999 + ")" * 9999}, "'pattern'"),
    "format": ({"type": "string", "format": "nonsense"}, "'format'"),
    "overlap": (
        {"type": "object", "patternProperties": {"^a": {"type": "null"}, "b$": {"const": 1}}},
        "'patternProperties'",
    ),
    "oneOf": (
        {"oneOf": [{"type": "object", "properties": {n: {}}} for n in "ab"]},
        "'oneOf'",
    ),
    "remote": ({"$ref": "http://example.com/schema.json"}, r"'\$ref'"),
    "file": ({"$ref": "file:///etc/passwd"}, r"'\$ref'"),
    "lost": ({"$ref": "#/$defs/nowhere"}, "cannot be enforced"),
    "itself": ({"$ref": "#"}, "nothing can fulfil it"),
    "each other": (
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        "nothing can fulfil it",
    ),
    "false": (False, "nothing can fulfil it"),
    "wrong types": ({"type": 5, "properties": [], "required": "x"}, "cannot be enforced"),
    "a list": ([], "must be a JSON schema"),
    "a huge range": ({"type": "integer", "minimum": -(10**300)}, "'minimum'"),
    "a huge enumeration": ({"enum": named(200_000)}, "holds more than 20000 values"),
    "a huge word": ({"const": "x" * 100_000}, "more than 65536 characters"),
    "properties": (
        {"type": "object", "properties": {key: {} for key in named(9999)}},
        "'properties'",
    ),
    "required": ({"type": "object", "required": named(9999)}, "'required'"),
    "a multiple": ({"type": "integer", "multipleOf": 99_999_999}, "'multipleOf'"),
    "nested": (nested(5000, lambda inner: {"items": inner}), "nested deeper than 100"),
    "a chain": (chain(3000, lambda link: link), "nested too deep"),
    "a chain of objects": (
        chain(2000, lambda link: {"properties": {"a": link}}),
        "nested too deep",
    ),
    "products": (
        {"allOf": [{"anyOf": [{"required": [f"{i}{j}"]} for j in range(4)]} for i in range(12)]},
        "cannot be enforced",
    ),
}

ALLOWED: dict[str, Any] = {
    "many words": {"enum": named(5000)},
    "many properties": {
        "type": "object",
        "properties": {key: {"type": "null"} for key in named(1000)},
    },
    "many items": {"type": "array", "items": {"const": 1}, "minItems": 10**9},
    "a long string": {"type": "string", "minLength": 10**6, "maxLength": 10**9},
    "an exponential pattern": {"type": "string", "pattern": "(a|b)*a(a|b){30}"},
    "a repeated pattern": {"type": "string", "pattern": "(((a{100}){100}){100}){100}"},
    "a wide pattern": {"type": "string", "pattern": r"\p{L}{1,3000}\w{1,3000}"},
    "no characters": {"enum": ["a\0b", "\0"], "pattern": "a\0b|\0"},
    "doubling": {
        "$defs": {
            **{f"a{i}": {"anyOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(40)},
            "a40": {"type": "null"},
        },
        "$ref": "#/$defs/a0",
    },
    "nested arrays": nested(45, lambda inner: {"type": "array", "items": inner, "minItems": 1000}),
}

GRAMMARS = {
    "nothing": "",
    "no such rule": "start: nowhere",
    "a chain of rules": "start: r0\n" + "\n".join(f"r{i}:r{i + 1}" for i in range(4000)),
    "a chain of words": "start: R0\n" + "\n".join(f"R{i}:R{i + 1}" for i in range(4000)),
    "brackets": "start: " + "(" * 9999,
    "a file": "%import .etc.passwd\nstart: passwd",
    "another kind": '{"grammars": [{"json_schema": {}}]}',
    "a zero": 'start: "a\0b"',
    "too long": "start: /" + "x" * 70_000 + "/",
    "a slow number": 'start: %json {"type": "integer", "multipleOf": 99999999}',
}

PATTERNS = ["(a", "(?=a)", r"(a)\1", "a\\", r"\p{Foo}", "a$b", "(" * 999 + ")" * 999, "x" * 70_000]


def ask(tokenizer: Tokenizer, form: Format) -> None:
    """Compile, and take a few steps."""
    began = time.process_time()
    try:
        matcher = compiled(tokenizer, Conversation("m", format=form)).matcher()
        for _ in range(20):
            ids, _ = allowed_ids(matcher)
            if not ids:
                break
            matcher.accept(ids[0])
    finally:
        assert time.process_time() - began < SECONDS


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_enforced_is_refused_by_name(name: str, byte_level: Tokenizer) -> None:
    schema, reason = REFUSED[name]
    with pytest.raises(InvalidRequest, match=reason) as caught:
        ask(byte_level, JsonSchema("x", schema, strict=True))
    assert caught.value.param == "response_format.json_schema.schema"
    assert len(caught.value.message) < 500
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_only_large_is_done(name: str, byte_level: Tokenizer) -> None:
    ask(byte_level, JsonSchema("x", ALLOWED[name]))


@pytest.mark.parametrize("name", GRAMMARS)
def test_a_bad_grammar_is_refused(
    name: str, byte_level: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "SECONDS", 3.0)
    with pytest.raises(InvalidRequest) as caught:
        ask(byte_level, Grammar(GRAMMARS[name]))
    assert caught.value.param == "structured_outputs.grammar"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_bad_pattern_is_refused(pattern: str, byte_level: Tokenizer) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ask(byte_level, Regex(pattern))
    assert caught.value.param == "structured_outputs.regex"


def test_a_grammar_that_asks_too_much_of_a_step_fails_its_sequence_alone(
    byte_level: Tokenizer,
) -> None:
    with pytest.raises(HelexaError, match="cannot be kept any longer"):
        ask(byte_level, Grammar('start: a{1000000000}\na: "x"{1000000}'))


def test_a_thousand_tools_are_compiled_or_refused(byte_level: Tokenizer) -> None:
    properties = {f"p{i}": {"type": "string", "description": "x" * 500} for i in range(20)}
    tools = tuple(
        Tool(f"t{i}", None, {"type": "object", "properties": properties}) for i in range(1000)
    )
    asked = Conversation("m", tools=tools, tool_choice=ToolChoice("required"))
    began = time.process_time()
    compiled(byte_level, asked)  # by their names alone: they are not strict
    strict = evolve(asked, tools=tuple(evolve(tool, strict=True) for tool in tools))
    with pytest.raises(InvalidRequest, match="KiB together"):
        compiled(byte_level, strict)
    assert time.process_time() - began < SECONDS


def test_no_trial_outlives_its_time(byte_level: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    children = []

    class Child(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            children.append(self)

    monkeypatch.setattr(subprocess, "Popen", Child)
    monkeypatch.setattr(trial, "SECONDS", 0.001)
    with pytest.raises(InvalidRequest, match="takes more than"):
        ask(byte_level, Regex("never seen before"))
    assert [child.returncode for child in children] == [-signal.SIGKILL]


KEYWORDS = (
    "type properties items anyOf oneOf allOf not enum const pattern required minItems maxLength minimum "
    "multipleOf $ref $defs additionalProperties format x-guidance"
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYWORDS.split()),
            inner | st.sampled_from(["string", "object", "array", "integer", "#", "#/$defs/a"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60)
@given(json_values)
def test_no_schema_does_worse_than_to_be_refused(byte_level: Tokenizer, schema: Any) -> None:
    with suppress(HelexaError):
        ask(byte_level, JsonSchema("x", schema))


@given(st.integers(0, 300), st.sampled_from(["items", "properties"]))
def test_the_depth_of_a_schema_is_counted(depth: int, keyword: str) -> None:
    schema = nested(depth, lambda inner: {keyword: inner})
    levels = depth + 2  # the innermost schema, and its word
    if levels > bounds.MAX_DEPTH:
        with pytest.raises(InvalidRequest, match="nested deeper"):
            bounds.check_schema(schema, "schema")
    else:
        bounds.check_schema(schema, "schema")
