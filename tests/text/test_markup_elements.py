"""Calls with an element per argument: Qwen3-Coder and GLM, coerced by the declared types."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markup_reading import PING, called, outputs_of, read, schema_of

from helexa.conversation import Json, Tool
from helexa.text.markup import Arguments

PARAMETERS = schema_of(
    {
        "string": {"type": "string"},
        "integer": {"type": "integer"},
        "number": {"type": "float"},
        "boolean": {"type": "boolean"},
        "object": {"type": "object"},
        "array": {"type": "array", "items": {"type": "string"}},
        "null": {"type": "null"},
        "any": {},
        "odd": True,
        "choice": {"enum": ["red", "blue"]},
        "level": {"enum": [1, 2]},
        "const": {"const": 5},
        "maybe_string": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "maybe_integer": {"type": ["integer", "null"]},
        "nullable": {"type": "integer", "nullable": True},
        "mixed": {"oneOf": [{"type": "string"}, {"type": "integer"}]},
        "all": {"allOf": [{"description": "x"}, {"type": "integer"}]},
        "referred": {"$ref": "#/$defs/point"},
        "endless": {"$ref": "#/properties/endless"},
        "shaped": {"properties": {"a": {}}},
        "listed": {"items": {}},
        "unheard_of": {"type": "varchar"},
    }
) | {"$defs": {"point": {"type": "object"}}}
TOOL = Tool("f", None, PARAMETERS)
TOOLS: Json = {"tools": (TOOL, PING)}


def qwen(key: str, value: str) -> str:
    return (
        f"<tool_call>\n<function=f>\n<parameter={key}>\n{value}\n</parameter>\n"
        "</function>\n</tool_call>"
    )


def glm(key: str, value: str) -> str:
    return f"<tool_call>f\n<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n</tool_call>"


def value_of(text: str, format: str) -> Json:
    ((name, arguments, is_whole),) = read(format, text, **TOOLS).calls
    assert (name, is_whole) == ("f", True)
    (value,) = json.loads(arguments).values()
    return value


@pytest.mark.parametrize(
    ("key", "written", "meant"),
    [
        ("string", "Paris", "Paris"),
        ("string", "42", "42"),
        ("string", "", ""),
        ("string", "null", "null"),
        ("string", ' "quoted" \\n <b> & é 😀', ' "quoted" \\n <b> & é 😀'),
        ("string", "a\n\n  b\n", "a\n\n  b\n"),
        ("integer", "42", 42),
        ("integer", " -7 ", -7),
        ("integer", "3.0", 3),
        ("integer", "123456789012345678901234567890", 123456789012345678901234567890),
        ("integer", "many", "many"),
        ("integer", "3.5", "3.5"),
        ("integer", "true", "true"),
        ("number", "3.14", 3.14),
        ("number", "7", 7),
        ("number", "1e3", 1000.0),
        ("boolean", "true", True),
        ("boolean", "False", False),
        ("boolean", "1", "1"),
        ("object", '{"a": {"b": [1]}}', {"a": {"b": [1]}}),
        ("object", "{'a': True, 'b': None, 3: (1, 'x')}", {"a": True, "b": None, "3": [1, "x"]}),
        ("object", "{broken", "{broken"),
        ("object", "[1]", "[1]"),
        ("array", '["a", "b"]', ["a", "b"]),
        ("array", "['a']", ["a"]),
        ("array", "a, b", "a, b"),
        ("null", "null", None),
        ("any", "5", 5),
        ("any", "[1, 2]", [1, 2]),
        ("any", "words", "words"),
        ("odd", "true", True),
        ("choice", "red", "red"),
        ("level", "2", 2),
        ("const", "5", 5),
        ("maybe_string", "null", None),
        ("maybe_string", "None", None),
        ("maybe_string", "nullify", "nullify"),
        ("maybe_string", "5", "5"),
        ("maybe_string", "", ""),
        ("maybe_integer", "5", 5),
        ("maybe_integer", "null", None),
        ("maybe_integer", "x", "x"),
        ("nullable", "null", None),
        ("mixed", "5", 5),
        ("mixed", "five", "five"),
        ("all", "5", 5),
        ("referred", '{"x": 1}', {"x": 1}),
        ("endless", "5", 5),
        ("shaped", '{"a": 1}', {"a": 1}),
        ("listed", "[1]", [1]),
        ("unheard_of", "5", "5"),
        ("undeclared", "5", "5"),
    ],
)
@pytest.mark.parametrize("format", ["qwen_xml", "glm"])
def test_a_value_is_what_the_schema_declares_else_a_string(
    format: str, key: str, written: str, meant: Json
) -> None:
    text = qwen(key, written) if format == "qwen_xml" else glm(key, written)
    found = value_of(text, format)
    assert (found, type(found)) == (meant, type(meant))


def test_several_parameters_of_several_calls() -> None:
    one = (
        "<function=f>\n<parameter=string>\na\n</parameter>\n<parameter=integer>\n2\n</parameter>\n"
        "</function>"
    )
    text = f"Both:\n<tool_call>\n{one}\n</tool_call>\n<tool_call>\n{one}\n</tool_call>\nDone"
    told = read("qwen_xml", text, **TOOLS)
    arguments = '{"string": "a", "integer": 2}'
    assert told.calls == called(("f", arguments), ("f", arguments))
    assert told.text == "Both:Done"
    again = read("qwen_xml", f"<tool_call>\n{one}\n{one}\n</tool_call>", **TOOLS)
    assert again.calls == told.calls


@pytest.mark.parametrize(
    "text",
    [
        "<function=ping>\n</function>",
        "<tool_call><function=ping></function></tool_call>",
        '<tool_call>\n<function="ping">\n</function>\n</tool_call>',
        "<tool_call>\n<function=ping>\n</tool_call>",
        "<tool_call>\n<function=ping>{}</function>\n</tool_call>",
        '<tool_call>{"name": "ping", "arguments": {}}</tool_call>',
    ],
)
def test_a_call_without_parameters_in_its_forms(text: str) -> None:
    told = read("qwen_xml", text, **TOOLS)
    assert (told.text, told.calls) == ("", called(("ping", "{}")))


def test_a_parameter_that_is_not_closed_ends_where_the_next_begins() -> None:
    text = (
        "<tool_call>\n<function=f>\n<parameter=string>\na\n<parameter=integer>\n2\n</function>\n"
        "</tool_call>"
    )
    assert read("qwen_xml", text, **TOOLS).calls == called(("f", '{"string": "a", "integer": 2}'))


def test_markup_inside_a_value_is_its_text() -> None:
    value = "<tool_call> </function> <parameter=x> <think> </arg_valu"
    assert value_of(qwen("string", value), "qwen_xml") == value
    assert value_of(glm("string", value), "glm") == value


def test_a_string_comes_as_it_is_generated() -> None:
    text = qwen("string", "line one\nline two")
    told = [
        output.text
        for output in outputs_of("qwen_xml", text, **TOOLS)
        if isinstance(output, Arguments)
    ]
    assert max(map(len, told)) <= len('{"string": ')
    assert len(told) > len("line one")


@pytest.mark.parametrize("cut", [True, False])
def test_a_string_that_breaks_off_stays_open(cut: bool) -> None:
    text = "<tool_call>\n<function=f>\n<parameter=string>\nhalf"
    assert read("qwen_xml", text, cut=cut, **TOOLS).calls == [["f", '{"string": "half', False]]
    text = "<tool_call>f\n<arg_key>integer</arg_key>\n<arg_value>12"
    assert read("glm", text, cut=cut, **TOOLS).calls == [["f", '{"integer": 12', False]]


def test_a_call_whose_end_is_forgotten_is_whole_unless_it_was_cut_off() -> None:
    text = "<tool_call>\n<function=f>\n<parameter=string>\na\n</parameter>\n"
    assert read("qwen_xml", text, **TOOLS).calls == called(("f", '{"string": "a"}'))
    assert read("qwen_xml", text, cut=True, **TOOLS).calls == [["f", '{"string": "a"', False]]


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>\n<function=f",
        "<tool_call>\n<function=>\n</function>\n</tool_call>",
        "<function=nobody>\n</function>",
        "see <function=f> there",
        "<tool_call>words</tool_call>",
        "<parameter=a>b</parameter>",
    ],
)
def test_what_is_no_function_is_text(text: str) -> None:
    told = read("qwen_xml", text, **TOOLS)
    assert (told.text, told.calls) == (text, [])


# -- GLM -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>f\n<arg_key>string</arg_key>\n<arg_value>a</arg_value>\n</tool_call>",
        "<tool_call>f<arg_key>string</arg_key><arg_value>a</arg_value></tool_call>",
        "<tool_call>\nf\n<arg_key> string </arg_key><arg_value>a</arg_value>",
    ],
)
def test_glm_with_and_without_line_breaks(text: str) -> None:
    told = read("glm", text, **TOOLS)
    assert (told.text, told.calls) == ("", called(("f", '{"string": "a"}')))


@pytest.mark.parametrize("text", ["<tool_call>ping</tool_call>", "<tool_call>ping\n</tool_call>"])
def test_glm_calls_without_arguments(text: str) -> None:
    told = read("glm", f" \n {text}\n{text} Now.", **TOOLS)
    assert (told.text, told.calls) == ("Now.", called(("ping", "{}"), ("ping", "{}")))


@pytest.mark.parametrize(
    "text", ["<tool_call>nobody</tool_call>", "<tool_call>two words</tool_call>", "<tool_call>f"]
)
def test_what_is_no_call_of_glm_is_text(text: str) -> None:
    told = read("glm", text, **TOOLS)
    assert (told.text, told.calls) == (text, [])


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    ),
    st.text(),
)
def test_no_schema_however_odd_makes_it_fail(parameters: Json, value: str) -> None:
    tool = Tool("f", None, {"properties": {"a": parameters}} | ({"x": parameters}))
    text = f"<tool_call>f<arg_key>a</arg_key><arg_value>{value}</arg_value></tool_call>"
    ((_, arguments, is_whole),) = read("glm", text, tools=(tool,)).calls
    assert is_whole
    assert "a" in json.loads(arguments)
