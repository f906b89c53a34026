from pathlib import Path

import orjson
import pytest
from chat_strategies import json_values
from hypothesis import given
from hypothesis import strategies as st
from messages_strategies import bodies, canonical

from helexa.conversation import (
    Image,
    Json,
    JsonSchema,
    Message,
    Part,
    Reasoning,
    Sampling,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from helexa.errors import HelexaError, InvalidRequest, MissingModelField
from helexa.wire import openai_chat
from helexa.wire.anthropic import MessagesRequest, read_request
from helexa.wire.fields import parse_json

RECORDED = Path(__file__).parent / "recorded" / "messages"
HI: Json = {"role": "user", "content": "hi"}
HELLO: Json = {"model": "m", "max_tokens": 64, "messages": [HI]}
CITY: Json = {"name": "get_weather", "input_schema": {"type": "object"}}


def read(**fields: Json) -> MessagesRequest:
    return read_request(parse_json(orjson.dumps(HELLO | fields)))


def turn(role: str, *blocks: Json) -> Json:
    return {"role": role, "content": list(blocks)}


def read_turns(*turns: Json) -> tuple[Message, ...]:
    return read(messages=list(turns)).conversation.messages


def read_block(role: str, block: Json) -> tuple[Part, ...]:
    (found,) = read_turns(turn(role, block))
    return found.parts


# -- what is read ----------------------------------------------------------------------------------


def test_the_smallest_request_has_defaults_for_all_the_rest() -> None:
    request = read()
    conversation = request.conversation
    assert not request.stream
    assert conversation.messages == (Message("user", (Text("hi"),)),)
    assert conversation.sampling == Sampling()
    assert conversation.thinking == Thinking()
    assert (conversation.max_tokens, conversation.n, conversation.tools) == (64, 1, ())


def test_a_missing_max_tokens_leaves_the_length_to_the_model() -> None:
    assert read(max_tokens=None).conversation.max_tokens is None


def test_how_to_answer_is_read() -> None:
    found = read(temperature=0.5, top_p=0.9, top_k=40, stop_sequences=["END", "\n\n"], stream=True)
    assert found.stream
    assert found.conversation.sampling == Sampling(
        temperature=0.5, top_p=0.9, top_k=40, stop=("END", "\n\n")
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"metadata": {"user_id": "u"}},
        {"service_tier": "auto"},
        {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
        {"cache_control": {"type": "ephemeral"}},
        {"betas": ["x"], "anthropic_beta": ["y"], "speed": "fast", "inference_geo": "eu"},
        {"output_config": {"task_budget": {"type": "tokens", "total": 1}}},
        {"mcp_servers": [], "container": None},
    ],
    ids=str,
)
def test_what_means_nothing_here_is_accepted(fields: dict[str, Json]) -> None:
    assert read(**fields) == read()
    assert read(**fields).conversation.notes == ()


@pytest.mark.parametrize("key", ["mcp_servers", "container"])
def test_what_would_run_at_anthropic_is_skipped_with_a_note(key: str) -> None:
    (note,) = read(**{key: [{"type": "url", "url": "https://x"}]}).conversation.notes
    assert note.startswith(f"{key} was skipped")


def test_null_is_the_same_as_leaving_a_field_out() -> None:
    names = ["system", "tools", "tool_choice", "thinking", "output_config", "output_format"]
    names += ["temperature", "top_p", "top_k", "stop_sequences", "stream", "metadata"]
    assert read(**dict.fromkeys(names)) == read()


# -- turns -----------------------------------------------------------------------------------------


def test_the_system_prompt_comes_first_whether_text_or_blocks() -> None:
    hi = Message("user", (Text("hi"),))
    block = {"type": "text", "text": "be good", "cache_control": {"type": "ephemeral"}}
    said = Message("system", (Text("be good"),))
    assert read(system="be good").conversation.messages == (said, hi)
    assert read(system=[block]).conversation.messages == (said, hi)
    assert read(system="").conversation.messages == (hi,)
    assert read(system=[]).conversation.messages == (hi,)


def test_the_system_may_speak_between_the_turns() -> None:
    found = read_turns(
        HI, {"role": "system", "content": "now"}, {"role": "assistant", "content": "a"}
    )
    assert [message.role for message in found] == ["user", "system", "assistant"]


def test_turns_of_one_side_in_a_row_are_one_turn() -> None:
    again = turn("user", {"type": "text", "text": "there"})
    assert read_turns(HI, again) == (Message("user", (Text("hi"), Text("there"))),)


def test_results_of_tools_come_before_what_else_their_turn_says() -> None:
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "sunny", "is_error": False}
    failed = {"type": "tool_result", "tool_use_id": "t2", "is_error": True}
    found = read_turns(turn("user", result, {"type": "text", "text": "go on"}, failed))
    assert found == (
        Message("tool", (ToolResult("t1", (Text("sunny"),)),)),
        Message("tool", (ToolResult("t2", (), is_error=True),)),
        Message("user", (Text("go on"),)),
    )


def test_a_result_holds_text_pictures_and_documents() -> None:
    blocks = [
        {"type": "text", "text": "a"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
        {
            "type": "search_result",
            "title": "T",
            "source": "S",
            "content": [{"type": "text", "text": "c"}],
        },
        {"type": "tool_reference", "tool_name": "Grep"},
    ]
    block = {"type": "tool_result", "tool_use_id": "t", "content": blocks}
    (result,) = read_block("user", block)
    said = (Text("a"), Image("data:image/png;base64,AA=="))
    assert result == ToolResult("t", (*said, Text("T"), Text("S"), Text("c"), Text("Grep")))


@pytest.mark.parametrize("content", ["", None, [], [{"type": "text", "text": ""}]])
@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_empty_content_is_accepted_from_anyone(role: str, content: Json) -> None:
    assert read_turns({"role": role, "content": content}) == (Message(role, ()),)


def test_a_last_turn_of_the_assistant_is_the_beginning_of_the_answer_unless_it_is_empty() -> None:
    begun = {"role": "assistant", "content": "Once"}
    assert read_turns(HI, begun)[-1] == Message("assistant", (Text("Once"),))
    assert read_turns(HI, {"role": "assistant", "content": ""})[-1].role == "user"


@pytest.mark.parametrize("signature", ["", "hlx1.AA*=", "hlx1.gA==", "aGVsZXhh", "somebody else's"])
def test_a_thought_that_cannot_be_unsealed_is_none(signature: str) -> None:
    block = {"type": "thinking", "thinking": "", "signature": signature}
    assert read_block("assistant", block) == ()


def test_only_thoughts_that_are_not_to_be_shown_are_sealed() -> None:
    assert read(thinking={"type": "adaptive", "display": "omitted"}).sealed
    assert not read(thinking={"type": "adaptive", "display": "summarized"}).sealed
    assert not read(thinking={"type": "adaptive"}).sealed
    assert not read().sealed


def test_an_assistants_turn_keeps_its_order() -> None:
    found = read_turns(
        turn(
            "assistant",
            {"type": "thinking", "thinking": "hm", "signature": "abc"},
            {"type": "text", "text": "so"},
            {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
            {"type": "text", "text": "and"},
        )
    )
    said = (Reasoning("hm"), Text("so"), ToolCall("t1", "f", '{"a":1}'), Text("and"))
    assert found == (Message("assistant", said),)


@pytest.mark.parametrize(
    ("given_input", "arguments"),
    [({"a": 1}, '{"a":1}'), ({}, "{}"), (None, "{}"), ('{"a": ', '{"a": ')],
)
def test_the_input_of_a_call_may_be_half_written_or_missing(
    given_input: Json, arguments: str
) -> None:
    block = {"type": "tool_use", "id": "t", "name": "f", "input": given_input}
    assert read_block("assistant", block) == (ToolCall("t", "f", arguments),)


def test_a_result_without_its_call_is_accepted() -> None:
    block = {"type": "tool_result", "tool_use_id": "nobody", "content": "x"}
    assert read_block("user", block) == (ToolResult("nobody", (Text("x"),)),)


# -- pictures and documents ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        {"type": "base64", "media_type": "image/png", "data": "AA=="},
        {"type": "url", "url": "data:image/png;base64,AA=="},
    ],
)
def test_a_picture_comes_in_the_request(source: Json) -> None:
    block = {"type": "image", "source": source}
    assert read_block("user", block) == (Image("data:image/png;base64,AA=="),)


def test_a_document_is_what_it_says_under_its_title() -> None:
    text = {"type": "text", "media_type": "text/plain", "data": "words"}
    found = read_block("user", {"type": "document", "title": "T", "context": "C", "source": text})
    assert found == (Text("T"), Text("C"), Text("words"))
    blocks = {"type": "content", "content": [{"type": "text", "text": "words"}]}
    assert read_block("user", {"type": "document", "source": blocks}) == (Text("words"),)
    assert read_block("user", {"type": "document", "source": blocks | {"content": "words"}}) == (
        Text("words"),
    )


@pytest.mark.parametrize(
    "block",
    [
        {"type": "redacted_thinking", "data": "sealed"},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
        {"type": "mcp_tool_use", "id": "s", "name": "f", "server_name": "x", "input": {}},
        {"type": "container_upload", "file_id": "f"},
        {"type": "of_the_future", "anything": [1, 2]},
    ],
    ids=lambda block: block["type"],
)
def test_a_block_that_cannot_be_read_here_is_skipped_with_a_note(block: Json) -> None:
    conversation = read(
        messages=[HI, turn("assistant", block, {"type": "text", "text": "so"})]
    ).conversation
    assert conversation.messages[1] == Message("assistant", (Text("so"),))
    (note,) = conversation.notes
    assert note == f"messages[1].content[0]: a block of type {block['type']} was skipped"


def test_what_was_compacted_is_kept_in_its_short_form() -> None:
    assert read_block("assistant", {"type": "compaction", "content": "short"}) == (Text("short"),)


# -- tools -----------------------------------------------------------------------------------------


def test_a_tool_is_its_name_and_schema() -> None:
    other = CITY | {"type": "custom", "name": "g", "description": "d", "strict": True}
    found = read(tools=[CITY, other | {"defer_loading": True}]).conversation
    schema = {"type": "object"}
    assert found.tools == (Tool("get_weather", None, schema), Tool("g", "d", schema, strict=True))
    assert found.tool_choice == ToolChoice()


@pytest.mark.parametrize(
    ("kind", "name", "argument"),
    [
        ("bash_20250124", "bash", "command"),
        ("text_editor_20250124", "str_replace_editor", "old_str"),
        ("text_editor_20250728", "str_replace_based_edit_tool", "insert_line"),
        ("memory_20250818", "memory", "new_path"),
    ],
)
def test_a_tool_that_its_client_runs_is_offered_with_its_known_arguments(
    kind: str, name: str, argument: str
) -> None:
    (tool,) = read(tools=[{"type": kind, "name": name}]).conversation.tools
    assert tool.name == name
    assert argument in tool.parameters["properties"]
    assert tool.description


@pytest.mark.parametrize(
    "kind",
    [
        "web_search_20250305",
        "computer_20250124",
        "code_execution_20250825",
        "mcp_toolset",
        "bash_x",
    ],
)
def test_a_tool_that_runs_elsewhere_is_skipped_with_a_note(kind: str) -> None:
    conversation = read(tools=[CITY, {"type": kind, "name": "x"}]).conversation
    assert [tool.name for tool in conversation.tools] == ["get_weather"]
    assert conversation.notes == (f"tools[1]: a tool of type {kind} was skipped",)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, ToolChoice()),
        ({"type": "auto", "disable_parallel_tool_use": True}, ToolChoice(parallel=False)),
        ({"type": "any"}, ToolChoice("required")),
        ({"type": "none"}, ToolChoice("none")),
        (
            {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True},
            ToolChoice("required", ("get_weather",), parallel=False),
        ),
    ],
    ids=str,
)
def test_whether_a_tool_must_be_called_is_read(choice: Json, expected: ToolChoice) -> None:
    assert read(tools=[CITY], tool_choice=choice).conversation.tool_choice == expected


# -- thinking and format ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"thinking": {"type": "disabled"}}, Thinking(enabled=False)),
        ({"thinking": {"type": "disabled", "budget_tokens": 0}}, Thinking(enabled=False)),
        ({"thinking": {"type": "adaptive"}}, Thinking(enabled=True, shown=True)),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2048}},
            Thinking(enabled=True, budget=2048, shown=True),
        ),
        (
            {"thinking": {"type": "adaptive", "display": "omitted"}},
            Thinking(enabled=True, shown=True),
        ),
        ({"output_config": {"effort": "high"}}, Thinking(effort="high")),
        (
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}},
            Thinking(enabled=True, effort="max", shown=True),
        ),
    ],
    ids=str,
)
def test_thinking_is_read(fields: dict[str, Json], expected: Thinking) -> None:
    assert read(**fields).conversation.thinking == expected


@pytest.mark.parametrize("place", ["output_config", "output_format"])
def test_the_form_of_the_answer_is_a_schema_that_is_always_kept(place: str) -> None:
    wanted = {"type": "json_schema", "schema": {"type": "object"}}
    fields = {place: {"format": wanted} if place == "output_config" else wanted}
    assert read(**fields).conversation.format == JsonSchema(
        "answer", {"type": "object"}, strict=True
    )


# -- what real clients send ------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.json")), ids=lambda path: path.stem)
def test_what_real_clients_send_is_read_with_nothing_left_out(path: Path) -> None:
    body = parse_json(path.read_bytes())
    request = read_request(body)
    assert request.stream == body.get("stream", False)
    assert len(request.conversation.tools) == len(body.get("tools", []))
    assert request.conversation.notes == ()
    assert there_and_back(request) == canonical_messages(request)


def test_claude_codes_request_is_read() -> None:
    request = read_request(parse_json((RECORDED / "claude_code_tool_result.json").read_bytes()))
    conversation = request.conversation
    assert [message.role for message in conversation.messages] == [
        "system",
        "user",
        "system",
        "assistant",
        "tool",
    ]
    assert len(conversation.messages[0].parts) == 3
    assert conversation.messages[3].parts[0].name == "Bash"
    assert conversation.messages[4].parts[0].content == (Text("TOOL-RAN-42"),)
    assert conversation.thinking == Thinking(enabled=True, effort="high", shown=True)
    assert (conversation.max_tokens, len(conversation.tools)) == (32000, 24)


# -- there and back --------------------------------------------------------------------------------


def there_and_back(request: MessagesRequest) -> tuple[Message, ...]:
    """The messages after chat completions have carried the conversation; the rest must be the same."""
    conversation = request.conversation
    body = parse_json(orjson.dumps(openai_chat.write_request(conversation)))
    again = openai_chat.read_request(body).conversation
    assert again.tools == conversation.tools
    assert again.tool_choice == conversation.tool_choice
    assert again.format == conversation.format
    assert again.thinking == conversation.thinking
    assert again.sampling == conversation.sampling
    assert (again.model, again.max_tokens, again.n) == (
        conversation.model,
        conversation.max_tokens,
        conversation.n,
    )
    return again.messages


def canonical_messages(request: MessagesRequest) -> tuple[Message, ...]:
    return tuple(canonical(message) for message in request.conversation.messages)


@given(bodies)
def test_a_conversation_is_the_same_after_chat_completions_carried_it(body: Json) -> None:
    request = read_request(parse_json(orjson.dumps(body)))
    assert there_and_back(request) == canonical_messages(request)


@given(bodies)
def test_a_note_stands_for_every_block_that_is_left_out(body: Json) -> None:
    conversation = read_request(body).conversation
    blocks = [block for turn in body["messages"] for block in turn["content"]]
    sealed = [
        block
        for block in blocks
        if isinstance(block, dict) and block["type"] == "redacted_thinking"
    ]
    assert len(conversation.notes) == len(sealed)


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [None, ""])
def test_a_request_without_a_model_is_told_so(model: str | None) -> None:
    with pytest.raises(MissingModelField):
        read(model=model)


def blocks(*blocks: Json, role: str = "user") -> dict[str, Json]:
    return {"messages": [turn(role, *blocks)]}


def source(kind: str, **fields: Json) -> dict[str, Json]:
    return blocks({"type": kind, "source": fields})


AT = "messages[0].content"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 3}, "model"),
        ({"model": "m" * 1000}, "model"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "64"}, "max_tokens"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [HI] * 5000}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [HI | {"role": "tool"}]}, "messages[0].role"),
        ({"messages": [HI, HI | {"content": 3}]}, "messages[1].content"),
        (blocks(3), f"{AT}[0]"),
        (blocks({}), f"{AT}[0].type"),
        (blocks({"type": 3}), f"{AT}[0].type"),
        (blocks({"type": "text"}), f"{AT}[0].text"),
        (blocks({"type": "text", "text": 1}), f"{AT}[0].text"),
        (blocks({"type": "image"}), f"{AT}[0].source"),
        (source("image", type="url", url="https://example.org/cat.png"), f"{AT}[0].source.url"),
        (source("image", type="url", url="file:///etc/passwd"), f"{AT}[0].source.url"),
        (source("image", type="file", file_id="f"), f"{AT}[0].source.file_id"),
        (source("image", type="disc"), f"{AT}[0].source.type"),
        (source("image", type="base64", data="AA=="), f"{AT}[0].source.media_type"),
        (
            source("image", type="base64", media_type="text/html", data=""),
            f"{AT}[0].source.media_type",
        ),
        (source("image", type="base64", media_type="image/png"), f"{AT}[0].source.data"),
        (source("document", type="base64", data="JVBERi0="), f"{AT}[0].source.data"),
        (source("document", type="url", url="https://x/y.pdf"), f"{AT}[0].source.url"),
        (source("document", type="file", file_id="f"), f"{AT}[0].source.file_id"),
        (source("document", type="disc"), f"{AT}[0].source.type"),
        (source("document", type="text"), f"{AT}[0].source.data"),
        (source("document", type="content", content=3), f"{AT}[0].source.content"),
        (blocks({"type": "document", "title": 3, "source": {}}), f"{AT}[0].title"),
        (blocks({"type": "tool_result"}), f"{AT}[0].tool_use_id"),
        (blocks({"type": "tool_result", "tool_use_id": "t", "content": 3}), f"{AT}[0].content"),
        (blocks({"type": "tool_result", "tool_use_id": "t", "is_error": 1}), f"{AT}[0].is_error"),
        (
            blocks(
                {
                    "type": "tool_result",
                    "tool_use_id": "t",
                    "content": [{"type": "image", "source": {"type": "url", "url": "http://x"}}],
                }
            ),
            f"{AT}[0].content[0].source.url",
        ),
        (
            blocks(
                {
                    "type": "tool_result",
                    "tool_use_id": "t",
                    "content": [{"type": "tool_use", "id": "a", "name": "b"}],
                }
            ),
            f"{AT}[0].content",
        ),
        (blocks({"type": "tool_result", "tool_use_id": "t"}, role="assistant"), AT),
        (blocks({"type": "tool_use", "id": "t", "name": "f"}), AT),
        (blocks({"type": "thinking", "thinking": "hm"}), AT),
        (blocks({"type": "tool_use", "name": "f"}, role="assistant"), f"{AT}[0].id"),
        (blocks({"type": "tool_use", "id": "t"}, role="assistant"), f"{AT}[0].name"),
        (
            blocks({"type": "tool_use", "id": "t", "name": "f", "input": []}, role="assistant"),
            f"{AT}[0].input",
        ),
        (blocks({"type": "thinking"}, role="assistant"), f"{AT}[0].thinking"),
        (
            blocks({"type": "thinking", "thinking": "", "signature": 3}, role="assistant"),
            f"{AT}[0].signature",
        ),
        ({"system": 3}, "system"),
        ({"system": ["be good"]}, "system[0]"),
        ({"system": [{"type": "image"}]}, "system[0].type"),
        ({"system": [{"type": "text"}]}, "system[0].text"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"stop_sequences": ["a"] * 17}, "stop_sequences"),
        ({"stop_sequences": ["a", ""]}, "stop_sequences[1]"),
        ({"stop_sequences": ["x" * 1000]}, "stop_sequences[0]"),
        ({"stream": "yes"}, "stream"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"user_id": 3}}, "metadata.user_id"),
        ({"tools": {}}, "tools"),
        ({"tools": [3]}, "tools[0]"),
        ({"tools": [CITY] * 2000}, "tools"),
        ({"tools": [CITY | {"type": 3}]}, "tools[0].type"),
        ({"tools": [CITY | {"name": None}]}, "tools[0].name"),
        ({"tools": [CITY | {"name": ""}]}, "tools[0].name"),
        ({"tools": [CITY | {"description": 3}]}, "tools[0].description"),
        ({"tools": [CITY | {"strict": 3}]}, "tools[0].strict"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [CITY | {"input_schema": []}]}, "tools[0].input_schema"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [{"type": "bash_20250124", "name": 3}]}, "tools[0].name"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": {}}, "tool_choice.type"),
        ({"tool_choice": {"type": "maybe"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "any"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "tool"}, "tools": [CITY]}, "tool_choice.name"),
        ({"tool_choice": {"type": "tool", "name": "ghost"}, "tools": [CITY]}, "tool_choice.name"),
        (
            {
                "tool_choice": {"type": "tool", "name": "web_search"},
                "tools": [{"type": "web_search_20250305", "name": "web_search"}],
            },
            "tool_choice.name",
        ),
        (
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": "no"}},
            "tool_choice.disable_parallel_tool_use",
        ),
        ({"thinking": True}, "thinking"),
        ({"thinking": {}}, "thinking.type"),
        ({"thinking": {"type": "hard"}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "display": 3}}, "thinking.display"),
        ({"output_config": []}, "output_config"),
        ({"output_config": {"effort": 3}}, "output_config.effort"),
        ({"output_config": {"effort": "x" * 99}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "regex"}}}, "output_config.format.type"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"output_format": {"type": "json_schema", "schema": []}}, "output_format.schema"),
        ({"output_format": 3}, "output_format"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_cannot_be_served_is_refused_by_its_path(fields: dict[str, Json], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(**fields)
    assert refused.value.param == param
    assert refused.value.status == 400


def test_a_schema_nested_without_end_is_refused() -> None:
    deep = parse_json(b'{"a":' * 200 + b"{}" + b"}" * 200)
    with pytest.raises(InvalidRequest) as refused:
        read(tools=[CITY | {"input_schema": deep}])
    assert refused.value.param == "tools[0].input_schema"


def test_ten_megabytes_of_schema_are_refused() -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(tools=[CITY | {"input_schema": {"enum": ["x" * 1000] * 10_000}}])
    assert refused.value.param == "tools[0].input_schema"
    with pytest.raises(InvalidRequest) as refused:
        read(tools=[CITY | {"input_schema": {"enum": ["x" * 1000] * 1000}}] * 5)
    assert refused.value.param == "tools"


def test_a_thousand_tools_are_read() -> None:
    tools = [CITY | {"name": f"tool_{i}"} for i in range(1000)]
    assert len(read(tools=tools).conversation.tools) == 1000


def refused(body: Json) -> HelexaError | None:
    try:
        read_request(body)
    except HelexaError as error:
        return error
    return None


FIELDS = [*HELLO, "system", "tools", "tool_choice", "thinking", "output_config", "stop_sequences"]


@given(st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_whatever_is_sent_is_read_or_refused_in_words(fields: dict[str, Json]) -> None:
    error = refused(HELLO | fields)
    assert error is None or (error.status == 400 and error.message)


KINDS = ["text", "image", "document", "search_result", "thinking", "tool_use", "tool_result", "new"]
BLOCK_FIELDS = ["text", "source", "content", "thinking", "id", "name", "input", "tool_use_id"]


@given(
    st.sampled_from(["user", "assistant", "system"]),
    st.sampled_from(KINDS),
    st.dictionaries(st.sampled_from(BLOCK_FIELDS), json_values),
)
def test_whatever_a_block_holds_is_read_or_refused_in_words(
    role: str, kind: str, fields: dict[str, Json]
) -> None:
    error = refused(HELLO | {"messages": [turn(role, {"type": kind} | fields)]})
    assert error is None or (error.param and error.param.startswith(AT))
