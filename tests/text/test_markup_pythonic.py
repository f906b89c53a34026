"""Calls as Python writes them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markup_reading import PING, WEATHER, called, outputs_of, read

from helexa.conversation import Json, Tool
from helexa.text.markup import Arguments
from helexa.text.markup.literals import literal_as_json

F = Tool("f", None, {})
TOOLS: Json = {"tools": (F, PING, WEATHER)}
PARIS = ("get_weather", '{"city": "Paris", "days": 3}')


@pytest.mark.parametrize(
    "text",
    [
        "[get_weather(city='Paris', days=3), ping()]",
        '[get_weather(city="Paris", days=3),\n ping( )]',
        "<|python_start|>[get_weather(city='Paris', days=3), ping()]<|python_end|>",
        "<|python_start|>get_weather(city='Paris', days=3)\nping()<|python_end|>",
        "<|tool_call_start|>[get_weather(city='Paris', days=3), ping()]<|tool_call_end|>",
        "<function_calls>\nget_weather(city='Paris', days=3)\nping()\n</function_calls>",
        "[get_weather('Paris', 3), ping()]",
        "[get_weather('Paris', days=3,), ping(),]",
    ],
)
def test_two_calls_in_their_forms(text: str) -> None:
    told = read("pythonic", text, **TOOLS)
    assert (told.text, told.calls) == ("", called(PARIS, ("ping", "{}")))


@pytest.mark.parametrize(
    "text",
    [
        "<|python_start|>{}; {}<|python_end|>",
        "<|python_start|>[{}, {}]<|python_end|>",
        "{}\n{}",
        "[{}, {}]",
    ],
)
def test_some_models_are_asked_for_json(text: str) -> None:
    call = '{"name": "ping", "parameters": {}}'
    told = read("pythonic", text.replace("{}", call), **TOOLS)
    assert (told.text, told.calls) == ("", called(("ping", "{}"), ("ping", "{}")))


def test_text_around_calls_is_kept() -> None:
    told = read("pythonic", "Let me see.\n[ping()]\nDone [1].", **TOOLS)
    assert (told.text, told.calls) == ("Let me see.Done [1].", called(("ping", "{}")))


@pytest.mark.parametrize(
    ("literal", "meant"),
    [
        (
            "'Martha\\'s \\\"cool\\\" \\n \\x41\\u00e9\\U0001F600 \\d'",
            'Martha\'s "cool" \n Aé😀 \\d',
        ),
        ("'''it's\n\"two\" lines'''", 'it\'s\n"two" lines'),
        ('"""x"""', "x"),
        ("''", ""),
        ("37", 37),
        ("-1.5e3", -1500.0),
        ("1_000", 1000),
        ("0x1f", 31),
        (".5", 0.5),
        ("True", True),
        ("false", False),
        ("None", None),
        ("{}", {}),
        ("[]", []),
        ("()", []),
        ("(1, 2,)", [1, 2]),
        (
            "{'a': {'b': [True, None]}, 3: 'x', None: 1}",
            {"a": {"b": [True, None]}, "3": "x", "null": 1},
        ),
    ],
)
def test_a_literal_becomes_json(literal: str, meant: Json) -> None:
    ((name, arguments, is_whole),) = read("pythonic", f"[f(a={literal})]", **TOOLS).calls
    assert (name, is_whole) == ("f", True)
    assert json.loads(arguments) == {"a": meant}


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_what_python_writes_is_what_json_says(value: Json) -> None:
    written = literal_as_json(repr(value))
    assert written is not None
    assert json.loads(written) == value


@pytest.mark.parametrize(
    "text", ["", "[", "f", "{1 2}", "[1 2]", "'a", "1 2", "[" * 100, "{'a' 1}"]
)
def test_what_is_no_literal_has_no_json(text: str) -> None:
    assert literal_as_json(text) is None


def test_a_string_comes_as_it_is_generated() -> None:
    outputs = outputs_of("pythonic", "[get_weather(city='a long name', days=1)]", **TOOLS)
    assert sum(isinstance(output, Arguments) for output in outputs) > len("a long name")


@pytest.mark.parametrize("value", ["b'z'", "1e999", "g(1)", "x", "'x 'y'", "1 + 1", "[1, g(')')]"])
def test_a_call_that_is_no_literal_does_not_harm_its_neighbours(value: str) -> None:
    told = read("pythonic", f"[f(x={value}), get_weather(city='Paris', days=3)]", **TOOLS)
    (name, arguments, is_whole), *others = told.calls
    assert (name, is_whole) == ("f", False)
    assert str(arguments).startswith('{"x": ')
    if value != "'x 'y'":  # a quote too many takes what follows with it
        assert others == called(PARIS)


@pytest.mark.parametrize(
    "text",
    [
        "How can I help you today?",
        "[nobody(a=1)]",
        "[1, 2, 3]",
        "[a link](https://example.org)",
        "see [f(a=1)]",
        "<|python_start|>print 1",
        "<function_calls>\nno\n</function_calls>",
        "[f",
        "[",
        "hello world[A(A=\t)A(A=,\t",
    ],
)
def test_what_is_no_call_is_text(text: str) -> None:
    told = read("pythonic", text, **TOOLS)
    assert (told.text, told.calls) == (text, [])


def test_a_call_that_breaks_off_keeps_what_was_written() -> None:
    assert read("pythonic", "[f(a='x', b='ha", **TOOLS).calls == [
        ["f", '{"a": "x", "b": "ha', False]
    ]
