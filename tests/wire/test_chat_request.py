from pathlib import Path

import orjson
import pytest
from chat_strategies import conversations, json_values
from hypothesis import given
from hypothesis import strategies as st

from helexa.conversation import (
    Conversation,
    Image,
    Json,
    Message,
    Reasoning,
    Sampling,
    Text,
    ToolCall,
    ToolResult,
)
from helexa.errors import HelexaError, InvalidRequest, MissingModelField
from helexa.wire.fields import parse_json
from helexa.wire.openai_chat import ChatRequest, read_request, write_request

RECORDED = Path(__file__).parent / "recorded"
HELLO = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def read(**fields: Json) -> ChatRequest:
    return read_request(parse_json(orjson.dumps(HELLO | fields)))


def read_message(**message: Json) -> Message:
    (found,) = read(messages=[message]).conversation.messages
    return found


# -- what is read ------------------------------------------------------------------------------------


def test_the_smallest_request_has_defaults_for_all_the_rest() -> None:
    request = read()
    assert not request.stream
    assert not request.include_usage
    assert request.conversation.messages == (Message("user", (Text("hi"),)),)
    assert request.conversation.sampling == Sampling()
    assert (request.conversation.max_tokens, request.conversation.n) == (None, 1)


def test_every_sampling_field_is_read() -> None:
    asked = Sampling(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.05,
        repetition_penalty=1.1,
        frequency_penalty=-1,
        presence_penalty=1,
        logit_bias=((50256, -100.0),),
        seed=7,
        stop=("END",),
        stop_token_ids=(2, 3),
        ignore_eos=True,
        top_logprobs=5,
    )
    found = read(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.05,
        repetition_penalty=1.1,
        frequency_penalty=-1,
        presence_penalty=1,
        logit_bias={"50256": -100},
        seed=7,
        stop="END",
        stop_token_ids=[2, 3],
        ignore_eos=True,
        logprobs=True,
        top_logprobs=5,
    )
    assert found.conversation.sampling == asked


def test_the_newer_name_of_max_tokens_wins() -> None:
    assert read(max_tokens=5, max_completion_tokens=7).conversation.max_tokens == 7
    assert read(max_tokens=5).conversation.max_tokens == 5


def test_a_top_k_of_minus_one_is_off() -> None:
    assert read(top_k=-1).conversation.sampling.top_k == 0


def test_logprobs_without_alternatives_are_logprobs() -> None:
    assert read(logprobs=True).conversation.sampling.top_logprobs == 0
    assert read(logprobs=False, top_logprobs=0).conversation.sampling.top_logprobs is None


def test_null_is_the_same_as_leaving_a_field_out() -> None:
    names = [
        "temperature",
        "top_p",
        "n",
        "stop",
        "tools",
        "tool_choice",
        "response_format",
        "stream",
    ]
    names += [
        "max_tokens",
        "logit_bias",
        "seed",
        "stream_options",
        "audio",
        "modalities",
        "functions",
        "parallel_tool_calls",
        "reasoning",
        "thinking",
        "structured_outputs",
        "guided_json",
    ]
    assert read(**dict.fromkeys(names)) == read()


def test_unknown_fields_are_ignored() -> None:
    assert read(user="me", metadata={"a": 1}, store=False, verbosity="low") == read()


@pytest.mark.parametrize("content", ["", None, [], [{"type": "text", "text": ""}]])
@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
def test_empty_content_is_accepted_from_anyone(role: str, content: Json) -> None:
    assert read_message(role=role, content=content) == Message(role, ())


def test_content_may_be_a_list_of_parts() -> None:
    uri = "data:image/png;base64,AAAA"
    parts = [{"type": "text", "text": "what is"}, {"type": "image_url", "image_url": {"url": uri}}]
    assert read_message(role="user", content=parts).parts == (Text("what is"), Image(uri))


def test_an_assistant_turn_has_thought_then_text_then_calls() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    found = read_message(
        role="assistant", content="so", reasoning_content="hm", tool_calls=[call], name="bot"
    )
    said = (Reasoning("hm"), Text("so"), ToolCall("c1", "f", '{"a":1}'))
    assert found == Message("assistant", said, "bot")


def test_arguments_that_are_an_object_become_its_text() -> None:
    call = {"id": "c1", "function": {"name": "f", "arguments": {"a": 1}}}
    (found,) = read_message(role="assistant", tool_calls=[call]).parts
    assert found == ToolCall("c1", "f", '{"a":1}')


def test_a_tool_message_is_the_result_of_its_call() -> None:
    found = read_message(role="tool", tool_call_id="c1", content="sunny")
    assert found == Message("tool", (ToolResult("c1", (Text("sunny"),)),))


def test_the_form_before_tools_is_understood_in_the_history() -> None:
    call = read_message(
        role="assistant", content=None, function_call={"name": "f", "arguments": "{}"}
    )
    result = read_message(role="function", name="f", content="1")
    assert call.parts == (ToolCall("f", "f", "{}"),)
    assert result == Message("tool", (ToolResult("f", (Text("1"),)),), "f")


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.json")), ids=lambda path: path.stem)
def test_what_real_clients_send_is_read_and_written_again(path: Path) -> None:
    body = parse_json(path.read_bytes())
    request = read_request(body)
    assert request.stream == body.get("stream", False)
    assert len(request.conversation.tools) == len(body.get("tools", []))
    assert (request.conversation.format is None) == ("response_format" not in body)
    again = write_request(
        request.conversation, stream=request.stream, include_usage=request.include_usage
    )
    assert read_request(parse_json(orjson.dumps(again))) == request


# -- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [None, ""])
def test_a_request_without_a_model_is_told_so(model: str | None) -> None:
    with pytest.raises(MissingModelField) as refused:
        read(model=model)
    assert refused.value.code == "missing_model_field"


IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
CALL = {"id": "c", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 3}, "model"),
        ({"model": "m" * 1000}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": HELLO["messages"] * 10_000}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role"),
        ({"messages": [*HELLO["messages"], {"role": "user", "content": 3}]}, "messages[1].content"),
        ({"messages": [{"role": "user", "content": [3]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{}]}]}, "messages[0].content[0].type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]},
            "messages[0].content[0].text",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": [IMAGE]}]},
            "messages[0].content[0].image_url.url",
        ),
        ({"messages": [{"role": "user", "name": 1}]}, "messages[0].name"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].name"),
        ({"messages": [{"role": "assistant", "tool_calls": {}}]}, "messages[0].tool_calls"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [CALL | {"id": 1}]}]},
            "messages[0].tool_calls[0].id",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [CALL | {"type": "shell"}]}]},
            "messages[0].tool_calls[0].type",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [CALL | {"function": {"name": 1}}]}]},
            "messages[0].tool_calls[0].function.name",
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [CALL | {"function": {"name": "f", "arguments": 3}}],
                    }
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
        ),
        ({"temperature": 9}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_k": 1.5}, "top_k"),
        ({"min_p": 2}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"presence_penalty": -3}, "presence_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1e30}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"n": 0}, "n"),
        ({"n": 9}, "n"),
        ({"seed": "x"}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stop": ["x" * 1000]}, "stop[0]"),
        ({"stop": 3}, "stop"),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
        ({"stop_token_ids": list(range(65))}, "stop_token_ids"),
        ({"ignore_eos": "yes"}, "ignore_eos"),
        ({"logit_bias": []}, "logit_bias"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"top_logprobs": 5}, "top_logprobs"),
        ({"logprobs": 5}, "logprobs"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": [], "stream": True}, "stream_options"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
            "tools[0].function.parameters",
        ),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "alloy"}}, "audio"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"enable_thinking": "yes"}, "enable_thinking"),
        ({"reasoning_effort": 3}, "reasoning_effort"),
        ({"chat_template_kwargs": []}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"tools": []}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"chat_template": ""}}, "chat_template_kwargs"),
    ],
    ids=str,
)
def test_what_cannot_be_served_is_refused_by_its_path(fields: dict[str, Json], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(**fields)
    assert refused.value.param == param
    assert refused.value.status == 400


def test_a_schema_nested_without_end_is_refused() -> None:
    deep = parse_json(b'{"a":' * 200 + b"{}" + b"}" * 200)
    with pytest.raises(InvalidRequest) as refused:
        read(tools=[{"type": "function", "function": {"name": "f", "parameters": deep}}])
    assert refused.value.param == "tools[0].function.parameters"


# -- there and back ----------------------------------------------------------------------------------


@given(conversations)
def test_a_conversation_written_and_read_is_the_same(conversation: Conversation) -> None:
    body = parse_json(orjson.dumps(write_request(conversation, stream=True, include_usage=True)))
    request = read_request(body)
    assert request.conversation == conversation
    assert request.stream
    assert request.include_usage


def test_results_beside_other_words_become_messages_of_their_own() -> None:
    results = (ToolResult("a", (Text("1"),)), ToolResult("b", ()))
    mixed = Message("user", (*results, Text("go on")))
    body = write_request(Conversation("m", (mixed,)))
    assert body["messages"] == [
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": ""},
        {"role": "user", "content": "go on"},
    ]


def refused(body: Json) -> HelexaError | None:
    try:
        read_request(body)
    except HelexaError as error:
        return error
    return None


FIELDS = [
    *HELLO,
    "temperature",
    "stop",
    "tools",
    "tool_choice",
    "logit_bias",
    "n",
    "stream_options",
]


@given(st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_whatever_is_sent_is_read_or_refused_in_words(fields: dict[str, Json]) -> None:
    error = refused(HELLO | fields)
    assert error is None or (error.status == 400 and error.message)


MESSAGE_FIELDS = ["content", "tool_calls", "name", "tool_call_id", "function_call", "reasoning"]


@given(
    st.sampled_from(["user", "assistant", "tool", "function"]),
    st.dictionaries(st.sampled_from(MESSAGE_FIELDS), json_values),
)
def test_whatever_a_message_holds_is_read_or_refused_in_words(
    role: str, fields: dict[str, Json]
) -> None:
    error = refused(HELLO | {"messages": [{"role": role} | fields]})
    assert error is None or (error.param and error.param.startswith("messages[0]"))


def test_a_conversation_that_goes_on_with_texts_is_no_chat() -> None:
    for other in (Conversation("m", texts=("once",)), Conversation("m", prompt_logprobs=0)):
        with pytest.raises(InvalidRequest):
            write_request(other)
