"""Tools in chat requests: offered, chosen, called before, and in the form that came before them."""

import orjson
import pytest

from helexa.conversation import (
    Conversation,
    Json,
    Message,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from helexa.errors import InvalidRequest
from helexa.wire.fields import parse_json
from helexa.wire.openai_chat import ChatRequest, read_request, write_request

HELLO = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
NO_PARAMETERS = {"type": "object", "properties": {}}


def read(**fields: Json) -> ChatRequest:
    return read_request(parse_json(orjson.dumps(HELLO | fields)))


def conversation(**fields: Json) -> Conversation:
    return read(**fields).conversation


def tool(name: str, **more: Json) -> Json:
    return {"type": "function", "function": {"name": name} | more}


def named(name: str) -> Json:
    return {"type": "function", "function": {"name": name}}


F, G = tool("f"), tool("g")


# -- offered -----------------------------------------------------------------------------------------


def test_tools_are_read_with_their_schemas() -> None:
    offered = [tool("f", description="d", parameters={"a": 1}, strict=True), tool("g")]
    assert conversation(tools=offered).tools == (
        Tool("f", "d", {"a": 1}, strict=True),
        Tool("g", None, NO_PARAMETERS),
    )


def test_a_tool_without_a_type_is_a_function() -> None:
    assert conversation(tools=[{"function": {"name": "f"}}]).tools == (
        Tool("f", None, NO_PARAMETERS),
    )


def test_a_custom_tool_becomes_a_function_of_one_string() -> None:
    custom = {"type": "custom", "custom": {"name": "patch", "format": {"type": "text"}}}
    (found,) = conversation(tools=[custom]).tools
    assert (found.name, found.parameters["required"]) == ("patch", ["input"])
    assert found.parameters["properties"] == {"input": {"type": "string"}}


def test_a_tool_of_an_unknown_type_is_skipped_and_noted() -> None:
    found = conversation(tools=[{"type": "web_search"}, F, {"type": "x" * 10_000}])
    assert [each.name for each in found.tools] == ["f"]
    first, second = found.notes
    assert first == "tools[0]: a tool of type web_search was skipped"
    assert len(second) < 100


def test_a_thousand_tools_are_accepted() -> None:
    assert len(conversation(tools=[tool(f"tool_{i}") for i in range(1000)]).tools) == 1000


def test_tools_beyond_their_bounds_are_refused() -> None:
    large = {"type": "object", "properties": {"a": {"description": "x" * 10_000_000}}}
    wordy = tool("f", description="x" * 200_000)
    schema = "tools[0].function.parameters"
    for tools, param in (
        ([tool("f", parameters=large)], schema),
        ([wordy] * 30, "tools"),
        ([F] * 1025, "tools"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            read(tools=tools)
        assert refused.value.param == param


# -- chosen ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ToolChoice()),
        ("auto", ToolChoice()),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ("any", ToolChoice("required")),
        (named("g"), ToolChoice("required", ("g",))),
        ({"type": "custom", "custom": {"name": "f"}}, ToolChoice("required", ("f",))),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [named("f")]}},
            ToolChoice("auto", ("f",)),
        ),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [named("g"), named("f")]},
            },
            ToolChoice("required", ("g", "f")),
        ),
    ],
)
def test_every_way_to_choose_is_understood(choice: Json, expected: ToolChoice) -> None:
    assert conversation(tools=[F, G], tool_choice=choice).tool_choice == expected


def test_one_call_at_a_time_can_be_asked_for() -> None:
    found = conversation(tools=[F], parallel_tool_calls=False, tool_choice="required")
    assert found.tool_choice == ToolChoice("required", parallel=False)


@pytest.mark.parametrize("choice", ["auto", "none", None])
@pytest.mark.parametrize("tools", [[], None])
def test_a_choice_without_tools_is_harmless_unless_a_call_is_required(
    choice: Json, tools: Json
) -> None:
    assert conversation(tools=tools, tool_choice=choice).tools == ()


@pytest.mark.parametrize(
    ("choice", "param"),
    [
        ("maybe", "tool_choice"),
        (True, "tool_choice"),
        ([], "tool_choice"),
        ({}, "tool_choice.type"),
        ({"type": "function"}, "tool_choice.function"),
        (named("h"), "tool_choice.function.name"),
        (named(""), "tool_choice.function.name"),
        ({"type": "mcp", "server_label": "x"}, "tool_choice.type"),
        ({"type": "allowed_tools"}, "tool_choice.allowed_tools"),
        ({"type": "allowed_tools", "allowed_tools": {}}, "tool_choice.allowed_tools.tools"),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "none", "tools": [named("f")]}},
            "tool_choice.allowed_tools.mode",
        ),
        (
            {"type": "allowed_tools", "allowed_tools": {"tools": [named("h")]}},
            "tool_choice.allowed_tools.tools[0].function.name",
        ),
        (
            {"type": "allowed_tools", "allowed_tools": {"tools": [{"type": "mcp"}]}},
            "tool_choice.allowed_tools.tools[0].type",
        ),
    ],
    ids=str,
)
def test_a_choice_that_cannot_be_made_is_refused_by_its_path(choice: Json, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(tools=[F, G], tool_choice=choice)
    assert refused.value.param == param


@pytest.mark.parametrize("tools", [None, [], [{"type": "web_search"}]])
def test_a_call_cannot_be_required_where_no_tool_can_be_called(tools: Json) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(tools=tools, tool_choice="required")
    assert refused.value.param == "tool_choice"


# -- the form before tools -----------------------------------------------------------------------------


def test_functions_are_tools_of_which_one_is_called() -> None:
    request = read(functions=[{"name": "f", "parameters": {"a": 1}}], function_call={"name": "f"})
    assert request.legacy_calls
    assert request.conversation.tools == (Tool("f", None, {"a": 1}),)
    assert request.conversation.tool_choice == ToolChoice("required", ("f",), parallel=False)


def test_tools_come_before_functions() -> None:
    request = read(tools=[F], functions=[{"name": "g"}])
    assert not request.legacy_calls
    assert [each.name for each in request.conversation.tools] == ["f"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"functions": {}}, "functions"),
        ({"functions": [{}]}, "functions[0].name"),
        ({"functions": [{"name": "f"}], "function_call": "always"}, "function_call"),
        ({"functions": [{"name": "f"}], "function_call": {"name": "g"}}, "function_call.name"),
    ],
)
def test_functions_that_are_wrong_are_refused_by_their_path(
    fields: dict[str, Json], param: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(**fields)
    assert refused.value.param == param


# -- histories as clients replay them --------------------------------------------------------------------


def history(*messages: Json) -> tuple[Message, ...]:
    return conversation(messages=[*messages]).messages


def called(**call: Json) -> Json:
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def test_half_written_arguments_are_kept_as_they_are() -> None:
    (message,) = history(called(id="c", function={"name": "f", "arguments": '{"path": "/et'}))
    assert message.parts == (ToolCall("c", "f", '{"path": "/et'),)


def test_a_call_may_lack_its_id_its_type_and_its_arguments() -> None:
    (message,) = history(called(function={"name": "f"}))
    assert message.parts == (ToolCall("", "f", ""),)


def test_a_call_of_a_custom_tool_is_a_call_with_one_string() -> None:
    (message,) = history(called(id="c", type="custom", custom={"name": "patch", "input": "a\nb"}))
    assert message.parts == (ToolCall("c", "patch", '{"input":"a\\nb"}'),)


def test_results_without_their_calls_are_accepted() -> None:
    found = history({"role": "tool", "tool_call_id": "gone", "content": "42"})
    assert found == (Message("tool", (ToolResult("gone", (Text("42"),)),)),)


def test_a_result_may_name_its_tool_in_place_of_its_call() -> None:
    (found,) = history({"role": "tool", "name": "f", "content": "42"})
    assert found.parts == (ToolResult("f", (Text("42"),)),)


def test_a_result_may_be_a_list_of_parts_or_empty() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    listed, empty, missing = history(
        {"role": "tool", "tool_call_id": "c", "content": parts},
        {"role": "tool", "tool_call_id": "c", "content": ""},
        {"role": "tool", "tool_call_id": "c"},
    )
    assert listed.parts == (ToolResult("c", (Text("a"), Text("b"))),)
    assert empty == missing == Message("tool", (ToolResult("c", ()),))


def test_what_an_sdk_dumps_of_an_answer_is_accepted_back() -> None:
    dumped = {
        "role": "assistant",
        "content": None,
        "refusal": "I will not.",
        "annotations": None,
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    assert history(dumped) == (Message("assistant", (Text("I will not."),)),)


# -- written -----------------------------------------------------------------------------------------


def test_a_choice_is_written_in_the_shortest_form() -> None:
    offered = (Tool("f", None, {}, strict=True), Tool("g", "d", {}))

    def written(choice: ToolChoice) -> Json:
        return write_request(Conversation("m", tools=offered, tool_choice=choice))

    assert "tool_choice" not in written(ToolChoice())
    assert written(ToolChoice("none"))["tool_choice"] == "none"
    assert written(ToolChoice("required", ("f",)))["tool_choice"] == named("f")
    assert written(ToolChoice("auto", ("f",)))["tool_choice"]["type"] == "allowed_tools"
    assert written(ToolChoice(parallel=False))["parallel_tool_calls"] is False
    strict, plain = written(ToolChoice())["tools"]
    assert strict["function"]["strict"] is True
    assert plain["function"] == {"name": "g", "description": "d", "parameters": {}}
