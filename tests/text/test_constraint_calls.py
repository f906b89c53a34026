"""Calls that a grammar allows are read by the reader of their format, and are valid."""

import json
from typing import Any, get_args

import jsonschema
import pytest
from attrs import evolve
from constraint_walks import compiled, refusal, walk
from tokenizers import AddedToken
from tokenizers import Tokenizer as Library

from helexa.conversation import (
    Conversation,
    JsonSchema,
    Thinking,
    Tool,
    ToolChoice,
)
from helexa.errors import InvalidRequest
from helexa.text.constraint import compile_constraint
from helexa.text.markup import Markup, ToolFormat
from helexa.text.markup.outputs import Arguments, Call, Say, Think
from helexa.text.markup.reader import MarkupReader, markers_of
from helexa.text.tokenizer import Tokenizer

WEATHER = Tool(
    "get_weather",
    "The weather",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 1, "maximum": 14},
            "unit": {"$ref": "#/$defs/unit"},
            "alarms": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
            "place": {
                "type": "object",
                "properties": {"lat": {"type": "number"}, "note": {"type": ["string", "null"]}},
                "required": ["lat"],
                "additionalProperties": False,
            },
            "code": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{1,3}$"},
            "zone": {"anyOf": [{"enum": ["UTC", "CET"]}, {"type": "null"}]},
        },
        "required": ["city", "unit"],
        "additionalProperties": False,
        "$defs": {"unit": {"enum": ["C", "F"]}},
    },
    strict=True,
)
PING = Tool("ping", None, None)
SEEDS = range(12)
THINK = ("<think>", "</think>")
FORMATS: tuple[ToolFormat, ...] = get_args(ToolFormat)


@pytest.fixture(scope="module", params=["spelled", "special"])
def tokenizer(request: pytest.FixtureRequest, byte_level_library: Library) -> Tokenizer:
    """Markers are text like any other to the one, and tokens of their own to the other."""
    library = Library.from_str(byte_level_library.to_str())
    if request.param == "special":
        markers = {m for format in FORMATS for m in markers_of(Markup(format, THINK))}
        library.add_special_tokens([AddedToken(m, special=True) for m in sorted(markers)])
    return Tokenizer.parse(library.to_str().encode())


def asked(*tools: Tool, mode: Any = "required", **changes: Any) -> Conversation:
    choice = ToolChoice(mode, changes.pop("only", ()), changes.pop("parallel", True))
    return Conversation("m", tools=tools, tool_choice=choice, **changes)


def calls_in(text: str, conversation: Conversation, markup: Markup) -> list[tuple[str, Any]]:
    """Every call with its arguments; nothing else may stand beside them but thoughts."""
    reader = MarkupReader(markup, conversation.tools)
    calls: list[list[str]] = []
    for output in [*reader.push(text), *reader.finish()]:
        if isinstance(output, Call):
            calls.append([output.name, ""])
        elif isinstance(output, Arguments):
            calls[-1][1] += output.text
        assert not isinstance(output, Say), text
    return [(name, json.loads(arguments or "{}")) for name, arguments in calls]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("parallel", [False, True])
def test_a_forced_call_is_read_back_and_valid(
    format: ToolFormat, parallel: bool, tokenizer: Tokenizer
) -> None:
    markup, conversation = Markup(format), asked(WEATHER, PING, parallel=parallel)
    constraint = compiled(tokenizer, conversation, markup)
    lengths = set()
    for seed in SEEDS:
        if (text := walk(tokenizer, constraint, seed)) is None:
            continue
        calls = calls_in(text, conversation, markup)
        lengths.add(len(calls))
        for name, arguments in calls:
            if name == "get_weather":
                jsonschema.validate(arguments, WEATHER.parameters)
            else:
                assert (name, arguments) == ("ping", {})
    assert lengths if parallel else lengths == {1}
    assert 0 not in lengths


@pytest.mark.parametrize("format", FORMATS)
def test_a_named_tool_is_called_once_and_no_other_is(
    format: ToolFormat, tokenizer: Tokenizer
) -> None:
    markup, conversation = Markup(format), asked(WEATHER, PING, only=("ping",))
    constraint = compiled(tokenizer, conversation, markup)
    texts = [walk(tokenizer, constraint, seed) for seed in SEEDS]
    told = [calls_in(text, conversation, markup) for text in texts if text is not None]
    assert told
    assert all(calls == [("ping", {})] for calls in told)


@pytest.mark.parametrize("format", sorted(set(FORMATS) - {"harmony"}))
def test_a_model_may_think_before_it_calls(format: ToolFormat, tokenizer: Tokenizer) -> None:
    markup, conversation = Markup(format, THINK), asked(PING, thinking=Thinking(enabled=True))
    alone = compiled(tokenizer, conversation, Markup(format))
    call = next(text for seed in SEEDS if (text := walk(tokenizer, alone, seed)))
    thinks = compiled(tokenizer, conversation, markup)
    assert refusal(tokenizer, thinks, f"<think>Hm {{}}, I see.</think>\n\n{call}") is None
    assert refusal(tokenizer, thinks, f"{call}") is None
    inside = compiled(tokenizer, conversation, markup, "assistant\n<think>\n")
    assert refusal(tokenizer, inside, f"I see.</think>{call}") is None
    assert refusal(tokenizer, inside, f"{call}") is not None
    after = compiled(tokenizer, conversation, markup, "<think>\n\n</think>\n\n")
    assert refusal(tokenizer, after, f"{call}") is None
    assert refusal(tokenizer, after, f"<think></think>{call}") is not None


def test_harmony_thinks_on_its_own_channel(tokenizer: Tokenizer) -> None:
    markup, conversation = Markup("harmony"), asked(PING)
    constraint = compiled(tokenizer, conversation, markup)
    thought = "<|channel|>analysis<|message|>Let me see.<|end|><|start|>assistant"
    call = "<|channel|>commentary to=functions.ping <|constrain|>json<|message|>{}<|call|>"
    assert refusal(tokenizer, constraint, thought + call) is None
    assert refusal(tokenizer, constraint, "<|channel|>final<|message|>Hi") is not None
    reader = MarkupReader(markup, conversation.tools)
    assert Think in {type(output) for output in reader.push(thought + call)}


@pytest.mark.parametrize(
    "format", sorted(set(FORMATS) - {"harmony", "llama_json", "pythonic", "mistral"})
)
def test_a_strict_tool_leaves_text_free_until_it_is_called(
    format: ToolFormat, tokenizer: Tokenizer
) -> None:
    markup = Markup(format)
    conversation = asked(WEATHER, PING, mode="auto")
    constraint = compiled(tokenizer, conversation, markup)
    forced = compiled(tokenizer, asked(WEATHER, only=("get_weather",)), markup)
    assert refusal(tokenizer, constraint, "It is <b>sunny</b> {today}.") is None
    calls = [text for seed in SEEDS if (text := walk(tokenizer, forced, seed))]
    for call in calls:
        assert refusal(tokenizer, constraint, f"Let me see.\n{call}") is None
        assert refusal(tokenizer, constraint, call.replace("get_weather", "got")) is not None


def test_one_call_at_most_where_calls_are_not_parallel(tokenizer: Tokenizer) -> None:
    conversation = asked(evolve(PING, strict=True), mode="auto", parallel=False)
    constraint = compiled(tokenizer, conversation)
    call = '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>'
    assert refusal(tokenizer, constraint, "Well.") is None
    assert refusal(tokenizer, constraint, f"Well. {call}") is None
    assert refusal(tokenizer, constraint, f"{call}\n{call}") is not None


def test_llama_says_text_or_calls(tokenizer: Tokenizer) -> None:
    constraint = compiled(tokenizer, asked(WEATHER, mode="auto"), Markup("llama_json"))
    call = '{"name": "get_weather", "parameters": {"city": "Rome", "unit": "C"}}'
    assert refusal(tokenizer, constraint, call) is None
    assert refusal(tokenizer, constraint, call.replace('"C"', '"K"')) is not None
    assert refusal(tokenizer, constraint, "Rome is warm. {}") is None


@pytest.mark.parametrize("format", ["hermes", "llama_json", "mistral", "harmony"])
def test_tools_beside_a_schema_give_a_call_or_json(
    format: ToolFormat, tokenizer: Tokenizer
) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    conversation = asked(WEATHER, mode="auto", format=JsonSchema("x", schema))
    constraint = compiled(tokenizer, conversation, Markup(format))
    head = "<|channel|>final<|message|>" if format == "harmony" else ""
    assert refusal(tokenizer, constraint, head + '{"name": "Ada"}') is None
    alone = compiled(tokenizer, asked(WEATHER), Markup(format))
    call = next(text for seed in SEEDS if (text := walk(tokenizer, alone, seed)))
    assert refusal(tokenizer, constraint, call) is None
    assert refusal(tokenizer, constraint, head + "Hello") is not None


def test_nothing_is_enforced_where_nothing_is_asked(tokenizer: Tokenizer) -> None:
    lax = evolve(WEATHER, strict=False)
    for conversation in (
        asked(lax, mode="auto"),
        asked(WEATHER, mode="none"),
        asked(lax, mode="auto", parallel=False),
        Conversation("m"),
    ):
        assert compile_constraint(tokenizer, conversation, "", Markup()) is None


def test_a_tool_that_is_not_strict_is_called_though_its_schema_cannot_be_enforced(
    tokenizer: Tokenizer,
) -> None:
    odd = Tool(
        "odd",
        None,
        {
            "type": "object",
            "properties": {"a": {"not": {"type": "string"}}, "b": {"multipleOf": 1234567}},
        },
    )
    constraint = compiled(tokenizer, asked(odd))
    assert walk(tokenizer, constraint, 1) is not None
    with pytest.raises(InvalidRequest, match=r"tools\[1\].function.parameters.*'not'") as caught:
        compiled(tokenizer, asked(PING, evolve(odd, parameters={"not": {}}, strict=True)))
    assert caught.value.param == "tools[1].function.parameters"


@pytest.mark.parametrize("only", [("nobody",), ("ping", "nobody")])
def test_a_choice_of_a_tool_that_is_not_there_is_refused(
    only: tuple[str, ...], tokenizer: Tokenizer
) -> None:
    with pytest.raises(InvalidRequest, match="'nobody'") as caught:
        compiled(tokenizer, asked(PING, only=only))
    assert caught.value.param == "tool_choice"


def test_a_call_cannot_be_required_without_tools(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequest, match="no tools"):
        compiled(tokenizer, asked())
