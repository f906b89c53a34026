"""Requests as clients really send them, and every way to get them wrong."""

import base64
from pathlib import Path

import orjson
import pytest
from chat_strategies import json_values
from hypothesis import given, settings
from hypothesis import strategies as st

from helexa.conversation import (
    Conversation,
    Image,
    Json,
    JsonObject,
    JsonSchema,
    Message,
    Part,
    Reasoning,
    Regex,
    Sampling,
    Text,
    Thinking,
    ToolCall,
    ToolChoice,
    ToolResult,
    Usage,
)
from helexa.errors import HelexaError, InvalidRequest, MissingModelField
from helexa.responses import Responses
from helexa.wire.answer import Answer, Choice
from helexa.wire.exchange import Reply
from helexa.wire.fields import parse_json
from helexa.wire.openai_responses import ResponsesRequest, read_request, write_request

RECORDED = Path(__file__).parent / "recorded" / "responses"
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def read(**fields: Json) -> ResponsesRequest:
    body = {"model": "m", "input": "hi", **fields}
    return read_request(parse_json(orjson.dumps(body)))


def asked(**fields: Json) -> Conversation:
    return read(**fields).conversation


def parts(*items: Json) -> tuple[Part, ...]:
    """Those of the one message that the items make."""
    (message,) = asked(input=list(items)).messages
    return message.parts


# -- items -------------------------------------------------------------------------------------------


def test_a_string_is_what_the_user_says() -> None:
    request = read()
    assert request.conversation == Conversation("m", (Message("user", (Text("hi"),)),))
    assert not request.stream


def test_instructions_come_before_everything_else() -> None:
    messages = asked(
        instructions="Be brief.", input=[{"role": "developer", "content": "x"}]
    ).messages
    assert messages == (
        Message("system", (Text("Be brief."),)),
        Message("developer", (Text("x"),)),
    )


def test_a_message_needs_no_type_and_may_be_empty() -> None:
    said = asked(
        input=[
            {"role": "user", "content": []},
            {"role": "assistant"},
            {"role": "user", "content": ""},
        ]
    )
    assert said.messages == (Message("user", ()), Message("assistant", ()), Message("user", ()))


def test_content_of_every_type_is_read() -> None:
    text = base64.b64encode(b"a,b\n").decode()
    content = [
        {"type": "input_text", "text": "one"},
        {"type": "output_text", "text": "two", "annotations": []},
        {"type": "refusal", "refusal": "no"},
        {"type": "input_image", "image_url": PIXEL, "detail": "high"},
        {"type": "input_image", "image_url": {"url": PIXEL}},
        {"type": "input_file", "filename": "t.csv", "file_data": f"data:text/csv;base64,{text}"},
        {"type": "input_file", "file_data": text},
    ]
    assert parts({"role": "user", "content": content}) == (
        Text("one"),
        Text("two"),
        Text("no"),
        Image(PIXEL),
        Image(PIXEL),
        Text("t.csv:\na,b\n"),
        Text("a,b\n"),
    )


def test_what_an_assistant_thinks_says_and_calls_in_a_row_is_one_turn() -> None:
    items = [
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "ok"}],
        },
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":'},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": {"b": 1}},
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
        {
            "type": "function_call_output",
            "call_id": "c2",
            "output": [
                {"type": "input_text", "text": "two"},
                {"type": "input_image", "image_url": PIXEL},
            ],
        },
    ]
    turn = (
        Reasoning("hm"),
        Text("ok"),
        ToolCall("c1", "f", '{"a":'),
        ToolCall("c2", "g", '{"b":1}'),
    )
    assert asked(input=items).messages == (
        Message("assistant", turn),
        Message("tool", (ToolResult("c1", (Text("one"),)),)),
        Message("tool", (ToolResult("c2", (Text("two"), Image(PIXEL))),)),
    )


def test_two_messages_of_an_assistant_stay_two() -> None:
    said = [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert len(asked(input=said).messages) == 2


def test_calls_of_tools_that_a_client_runs_itself_are_calls() -> None:
    action = {"type": "exec", "command": ["ls"], "env": {}}
    items = [
        {"type": "local_shell_call", "id": "ls_1", "call_id": "c1", "action": action},
        {"type": "local_shell_call_output", "id": "c1", "output": "files"},
        {"type": "shell_call", "call_id": "c2", "action": {"commands": ["ls"]}},
        {"type": "shell_call_output", "call_id": "c2", "output": [{"stdout": "x", "stderr": ""}]},
        {"type": "apply_patch_call", "call_id": "c3", "operation": {"type": "delete_file"}},
        {"type": "apply_patch_call_output", "call_id": "c3", "status": "completed"},
    ]
    found = [part for message in asked(input=items).messages for part in message.parts]
    assert found == [
        ToolCall("c1", "local_shell", '{"type":"exec","command":["ls"],"env":{}}'),
        ToolResult("c1", (Text("files"),)),
        ToolCall("c2", "shell", '{"commands":["ls"]}'),
        ToolResult("c2", (Text('[{"stdout":"x","stderr":""}]'),)),
        ToolCall("c3", "apply_patch", '{"type":"delete_file"}'),
        ToolResult("c3", ()),
    ]


def test_a_result_without_a_call_and_a_call_without_a_result_are_read() -> None:
    items = [
        {"type": "function_call_output", "call_id": "nobody", "output": None},
        {"type": "function_call", "id": "fc_1", "name": "f"},
    ]
    found = [part for message in asked(input=items).messages for part in message.parts]
    assert found == [ToolResult("nobody", ()), ToolCall("fc_1", "f", "")]


def test_items_that_are_not_known_are_skipped_and_noted() -> None:
    items = [
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA"},
        {"type": "compaction", "encrypted_content": "gAAAA"},
        {"role": "user", "content": "hi"},
    ]
    found = asked(input=items)
    assert found.messages == (Message("user", (Text("hi"),)),)
    assert [note.split(":")[0] for note in found.notes] == ["input[0]", "input[1]", "input[2]"]


def test_reasoning_is_read_from_its_content_before_its_summary() -> None:
    told = {
        "type": "reasoning",
        "content": [{"type": "reasoning_text", "text": "all of it"}],
        "summary": [{"type": "summary_text", "text": "some"}],
    }
    assert parts(told) == (Reasoning("all of it"),)


# -- tools -------------------------------------------------------------------------------------------

CODEX_TOOLS = [
    {"type": "function", "name": "wait", "parameters": {"type": "object"}, "strict": True},
    {
        "type": "custom",
        "name": "apply_patch",
        "description": "Edit files.",
        "format": {"type": "grammar", "syntax": "lark", "definition": "start: /x/"},
    },
    {
        "type": "namespace",
        "name": "agents",
        "description": "Other agents.",
        "tools": [
            {"type": "function", "name": "wait", "description": "Wait for one."},
            {"type": "function", "name": "close"},
            {"type": "tool_search"},
        ],
    },
    {"type": "function", "name": "agents__close"},
    {"type": "web_search", "external_web_access": True},
    {"type": "image_generation"},
    {"type": "mcp", "server_label": "x"},
    {"type": "local_shell"},
]


def test_tools_of_every_type_are_flattened_or_skipped_and_noted() -> None:
    found = asked(tools=CODEX_TOOLS)
    names = ["wait", "apply_patch", "agents__wait", "agents__close_2", "agents__close"]
    assert [tool.name for tool in found.tools] == names
    assert [tool.strict for tool in found.tools] == [True, False, False, False, False]
    patch, first, second = found.tools[1:4]
    assert (
        patch.description == "Edit files.\n\nThe input must follow this grammar (lark):\nstart: /x/"
    )
    assert patch.parameters["required"] == ["input"]
    assert first.description == "[agents] Other agents.\n\nWait for one."
    assert second.description is None
    skipped = ["tools[2].tools[2]", "tools[4]", "tools[5]", "tools[6]", "tools[7]"]
    assert [note.split(":")[0] for note in found.notes] == skipped


def test_calls_in_the_history_have_the_names_of_the_tools_that_are_offered() -> None:
    items = [
        {"type": "function_call", "call_id": "1", "name": "close", "namespace": "agents"},
        {"type": "function_call", "call_id": "2", "name": "gone", "namespace": "agents"},
        {"type": "custom_tool_call", "call_id": "3", "name": "apply_patch", "input": 'a "b"'},
        {"type": "custom_tool_call_output", "call_id": "3", "output": "done"},
    ]
    turn, result = asked(input=items, tools=CODEX_TOOLS).messages
    assert turn.parts == (
        ToolCall("1", "agents__close_2", ""),
        ToolCall("2", "agents__gone", ""),
        ToolCall("3", "apply_patch", '{"input":"a \\"b\\""}'),
    )
    assert result.parts == (ToolResult("3", (Text("done"),)),)


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        (None, ToolChoice()),
        ("auto", ToolChoice()),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ({"type": "function", "name": "wait"}, ToolChoice("required", ("wait",))),
        ({"type": "function", "function": {"name": "wait"}}, ToolChoice("required", ("wait",))),
        ({"type": "custom", "name": "apply_patch"}, ToolChoice("required", ("apply_patch",))),
        (
            {"type": "function", "name": "wait", "namespace": "agents"},
            ToolChoice("required", ("agents__wait",)),
        ),
        (
            {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "function", "name": "wait"}],
            },
            ToolChoice("auto", ("wait",)),
        ),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "custom", "name": "apply_patch"}],
            },
            ToolChoice("required", ("apply_patch",)),
        ),
        (
            {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "mcp", "server_label": "x"}],
            },
            ToolChoice("none"),
        ),
        ({"type": "web_search"}, ToolChoice()),
    ],
)
def test_every_tool_choice_is_read(choice: Json, wanted: ToolChoice) -> None:
    assert asked(tools=CODEX_TOOLS, tool_choice=choice).tool_choice == wanted


def test_no_tools_need_no_choice() -> None:
    assert asked(tools=[], tool_choice="auto").tool_choice == ToolChoice()
    assert asked(tools=[{"type": "web_search"}], tool_choice="required").tool_choice == ToolChoice()
    assert not asked(parallel_tool_calls=False).tool_choice.parallel


# -- settings ----------------------------------------------------------------------------------------


def test_the_form_of_the_answer_is_read() -> None:
    schema = {"type": "object"}
    form = {"type": "json_schema", "name": "city", "schema": schema, "strict": True}
    assert asked(text={"format": form}).format == JsonSchema("city", schema, strict=True)
    assert asked(text={"format": {"type": "json_object"}}).format == JsonObject()
    assert asked(text={"format": {"type": "text"}, "verbosity": "low"}).format is None
    assert asked(structured_outputs={"regex": "a+"}).format == Regex("a+")


@pytest.mark.parametrize(
    ("reasoning", "wanted"),
    [
        (None, Thinking()),
        ({}, Thinking()),
        ({"effort": None, "summary": None}, Thinking()),
        ({"effort": "none"}, Thinking(False, "none")),
        ({"effort": "high"}, Thinking(True, "high", shown=True)),
        ({"summary": "auto"}, Thinking(True, shown=True)),
        ({"effort": "none", "summary": "auto"}, Thinking(False, "none")),
    ],
)
def test_reasoning_is_asked_for_by_effort_or_summary(reasoning: Json, wanted: Thinking) -> None:
    assert asked(reasoning=reasoning).thinking == wanted


def test_sampling_is_read_with_the_extensions_of_chat() -> None:
    found = asked(
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        seed=1,
        stop=["x"],
        max_output_tokens=1,
        chat_template_kwargs={"date": "today"},
    )
    assert found.sampling == Sampling(temperature=0.5, top_p=0.9, top_k=5, seed=1, stop=("x",))
    assert found.max_tokens == 1
    assert found.template_kwargs == (("date", "today"),)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, None),
        ({"top_logprobs": 0}, None),
        ({"top_logprobs": 2}, 2),
        ({"include": ["message.output_text.logprobs"]}, 0),
        ({"include": ["message.output_text.logprobs"], "top_logprobs": 3}, 3),
        ({"include": ["file_search_call.results"]}, None),
    ],
)
def test_scores_are_asked_for_in_include_or_by_number(fields: Json, wanted: int | None) -> None:
    assert asked(**fields).sampling.top_logprobs == wanted


def test_truncation_is_accepted_and_said_to_cut_nothing() -> None:
    assert asked(truncation="disabled").notes == ()
    (note,) = asked(truncation="auto").notes
    assert note.startswith("truncation")


def test_what_is_not_known_is_not_looked_at() -> None:
    found = asked(client_metadata={"a": 1}, service_tier="auto", stream_options={"x": 1}, new=[1])
    assert found == asked()


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.json")), ids=lambda path: path.stem)
def test_what_real_clients_send_is_read(path: Path) -> None:
    body = parse_json(path.read_bytes())
    request = read_request(body)
    assert request.stream == body.get("stream", False)
    assert (request.conversation.format is None) == ("text" not in body)
    again = read_request(parse_json(orjson.dumps(write_request(request.conversation))))
    assert again.conversation == request.conversation


def test_codex_gets_its_tools_and_its_reasoning() -> None:
    found = read_request(
        parse_json((RECORDED / "codex_tool_result.json").read_bytes())
    ).conversation
    assert [message.role for message in found.messages][-2:] == ["assistant", "tool"]
    assert "multi_agent_v1__spawn_agent" in [tool.name for tool in found.tools]
    assert found.thinking == Thinking(True, shown=True)
    assert found.notes == ("tools[8]: a tool of type web_search was skipped",)


# -- what is refused ---------------------------------------------------------------------------------

WRONG: list[tuple[Json, str]] = [
    ({"input": 3}, "input"),
    ({"input": {}}, "input"),
    ({"input": None}, "input"),
    ({"input": []}, "input"),
    ({"input": [{"type": "web_search_call"}]}, "input"),
    ({"input": ["hi"]}, "input[0]"),
    ({"input": [{}]}, "input[0].type"),
    ({"input": [{"type": 3}]}, "input[0].type"),
    ({"input": [{"type": "message"}]}, "input[0].role"),
    ({"input": [{"role": "critic"}]}, "input[0].role"),
    ({"input": [{"role": "user", "content": 3}]}, "input[0].content"),
    ({"input": [{"role": "user", "content": [3]}]}, "input[0].content[0]"),
    ({"input": [{"role": "user", "content": [{}]}]}, "input[0].content[0].type"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        "input[0].content[0].type",
    ),
    (
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": 1}]}]},
        "input[0].content[0].text",
    ),
    (
        {
            "input": [
                {"role": "user", "content": [{"type": "input_image", "image_url": "http://x"}]}
            ]
        },
        "input[0].content[0].image_url",
    ),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
        "input[0].content[0].file_id",
    ),
    (
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "http://x"}]}]},
        "input[0].content[0].file_url",
    ),
    (
        {
            "input": [
                {"role": "user", "content": [{"type": "input_file", "file_data": "JVBERi0=!"}]}
            ]
        },
        "input[0].content[0].file_data",
    ),
    ({"input": [{"type": "function_call"}]}, "input[0].name"),
    ({"input": [{"type": "function_call", "name": "f", "arguments": 3}]}, "input[0].arguments"),
    ({"input": [{"type": "function_call_output", "call_id": 3}]}, "input[0].call_id"),
    ({"input": [{"type": "function_call_output", "output": 3}]}, "input[0].output"),
    ({"input": [{"type": "custom_tool_call", "name": "f", "input": {}}]}, "input[0].input"),
    (
        {"input": [{"type": "reasoning", "summary": "x", "encrypted_content": 3}]},
        "input[0].encrypted_content",
    ),
    ({"input": [{"type": "item_reference", "id": "msg_x_1"}]}, "input[0].id"),
    ({"instructions": []}, "instructions"),
    ({"model": 3}, "model"),
    ({"tools": {}}, "tools"),
    ({"tools": [{}]}, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ({"tools": [{"type": "function", "name": ""}]}, "tools[0].name"),
    ({"tools": [{"type": "function", "name": "f", "parameters": []}]}, "tools[0].parameters"),
    ({"tools": [{"type": "function", "name": "f", "strict": 1}]}, "tools[0].strict"),
    ({"tools": [{"type": "custom", "name": "f", "format": "x"}]}, "tools[0].format"),
    (
        {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "function"}]}]},
        "tools[0].tools[0].name",
    ),
    ({"tool_choice": "maybe"}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "name": "g"}}, "tool_choice.name"),
    ({"parallel_tool_calls": "yes"}, "parallel_tool_calls"),
    ({"text": "json"}, "text"),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
    ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
    ({"text": {"format": {"type": "json_object"}}, "guided_regex": "a"}, "guided_regex"),
    ({"text": {"verbosity": 3}}, "text.verbosity"),
    ({"reasoning": "high"}, "reasoning"),
    ({"reasoning": {"effort": 3}}, "reasoning.effort"),
    ({"reasoning": {"summary": True}}, "reasoning.summary"),
    ({"include": "all"}, "include"),
    ({"include": [3]}, "include[0]"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"temperature": 3}, "temperature"),
    ({"top_p": 1.1}, "top_p"),
    ({"top_logprobs": 21}, "top_logprobs"),
    ({"truncation": "middle"}, "truncation"),
    ({"metadata": {"a": 1}}, "metadata.a"),
    ({"store": "no"}, "store"),
    ({"stream": 1}, "stream"),
    ({"stream_options": 1}, "stream_options"),
    ({"previous_response_id": 3}, "previous_response_id"),
    ({"background": True}, "background"),
    ({"background": "yes"}, "background"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"prompt": {"id": "p"}}, "prompt"),
    ({"n": 2}, "n"),
    ({"max_tool_calls": -1}, "max_tool_calls"),
    ({"prompt_cache_key": 3}, "prompt_cache_key"),
    ({"user": 3}, "user"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG, ids=[param for _, param in WRONG])
def test_a_field_that_is_wrong_is_named(fields: Json, param: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        read(**fields)
    assert refusal.value.param == param
    assert refusal.value.status == 400


def test_a_request_without_a_model_says_so() -> None:
    with pytest.raises(MissingModelField):
        read(model=None)


def test_what_is_said_of_pictures_on_the_network_is_why() -> None:
    content = [{"type": "input_image", "image_url": "https://example.org/a.png"}]
    with pytest.raises(InvalidRequest, match="not fetched from the network"):
        read(input=[{"role": "user", "content": content}])


def test_a_thousand_tools_are_read_and_too_many_are_refused() -> None:
    tools = [{"type": "function", "name": f"f{i}"} for i in range(1000)]
    assert len(asked(tools=tools).tools) == 1000
    spaces = [{"type": "namespace", "name": f"n{i}", "tools": tools} for i in range(2)]
    with pytest.raises(InvalidRequest, match="at most 1024 tools in all"):
        read(tools=spaces)


DEEP = orjson.loads(b'{"type":"x","a":' * 400 + b"1" + b"}" * 400)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [DEEP]}, "tools"),
        ({"input": [DEEP]}, "input"),
        ({"text": {"more": DEEP}}, "text"),
        ({"reasoning": DEEP}, "reasoning"),
        ({"tool_choice": DEEP}, "tool_choice"),
    ],
)
def test_deep_nesting_is_refused(fields: Json, param: str) -> None:
    body = {"model": "m", "input": "hi", **fields}
    with pytest.raises(InvalidRequest, match="nested deeper") as refusal:
        read_request(body)
    assert refusal.value.param == param


@pytest.mark.parametrize("item", [{"role": "user", "content": "hi"}, {"type": "unknown"}])
@pytest.mark.parametrize("item_id", [7, {"a": 1}, ["b"]])
def test_the_id_of_an_item_is_a_string(item: Json, item_id: Json) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        read(input=[{**item, "id": item_id}])
    assert refusal.value.param == "input[0].id"


def test_a_schema_that_nests_too_deep_is_refused() -> None:
    schema: Json = {}
    for _ in range(150):
        schema = {"a": schema}
    with pytest.raises(InvalidRequest, match="nested deeper"):
        read(tools=[{"type": "function", "name": "f", "parameters": schema}])


FIELDS = st.sampled_from(
    [*sorted({param.split(".")[0].split("[")[0] for _, param in WRONG}), "structured_outputs"]
)
TYPES = st.sampled_from(
    [
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "local_shell_call",
        "shell_call_output",
        "item_reference",
        "compaction",
        "namespace",
        "custom",
        "function",
        "input_text",
        "input_image",
        "input_file",
        "allowed_tools",
        "json_schema",
    ]
)
KEYS = st.sampled_from(
    [
        "type",
        "role",
        "content",
        "name",
        "id",
        "call_id",
        "output",
        "arguments",
        "input",
        "summary",
        "encrypted_content",
        "tools",
        "format",
        "function",
        "namespace",
        "parameters",
        "text",
        "action",
        "schema",
        "mode",
    ]
)
SHAPES = st.recursive(
    json_values | TYPES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner | TYPES, max_size=5),
    max_leaves=12,
)


@settings(max_examples=40)  # every type in every field is tried elsewhere
@given(
    st.dictionaries(FIELDS, SHAPES | st.lists(st.dictionaries(KEYS, SHAPES | TYPES)), max_size=5)
)
def test_no_request_is_more_than_refused(fields: dict[str, Json]) -> None:
    body = parse_json(orjson.dumps({"model": "m", "input": "hi", **fields}))
    try:
        request = read_request(body, Responses().of("me", lambda: 0.0))
    except HelexaError as refusal:
        told = (refusal.status < 500, bool(refusal.param))
        assert told == (True, True)
    else:
        answer = Answer((Choice("yes"),), Usage(1, 1))
        assert orjson.loads(request.whole(answer, Reply("req_a", "m", 0)))["status"] == "completed"
