"""Every field of a request with every wrong type: refused by its path, or accepted, never a crash."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wrong_values import (
    Read,
    check_deep_nesting,
    check_every_wrong_type,
    check_random_changes,
    refusal,
)

from helexa.conversation import Json
from helexa.errors import InvalidRequest
from helexa.wire import openai_chat, openai_completions
from helexa.wire.fields import parse_json

SAMPLING = {
    "max_tokens": 5,
    "n": 2,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "logit_bias": {"1": 2.5},
    "seed": 1,
    "stop": ["END"],
    "stop_token_ids": [2],
    "ignore_eos": True,
    "stream": True,
    "stream_options": {"include_usage": True},
}
FUNCTION = {
    "name": "f",
    "description": "d",
    "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
    "strict": True,
}
LABELS = {
    "user": "u",
    "safety_identifier": "s",
    "prompt_cache_key": "k",
    "metadata": {"a": 1},
    "store": False,
}
CHAT = {
    "model": "m",
    **LABELS,
    "messages": [
        {"role": "system", "content": "Be kind.", "name": "s"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ],
        },
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"id": "d", "type": "custom", "custom": {"name": "g", "input": "x"}},
            ],
            "function_call": {"name": "f", "arguments": "{}"},
        },
        {"role": "tool", "tool_call_id": "c", "content": "a cat", "is_error": False},
        {"role": "function", "name": "f", "content": "a dog"},
    ],
    "tools": [
        {"type": "function", "function": FUNCTION},
        {"type": "custom", "custom": {"name": "g", "description": "d"}},
    ],
    "tool_choice": {
        "type": "allowed_tools",
        "allowed_tools": {
            "mode": "auto",
            "tools": [{"type": "function", "function": {"name": "f"}}],
        },
    },
    "parallel_tool_calls": True,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "n", "description": "d", "schema": {"a": 1}, "strict": True},
    },
    "logprobs": True,
    "top_logprobs": 3,
    "reasoning_effort": "low",
    "enable_thinking": True,
    "thinking_budget": 5,
    "reasoning": {"effort": "low", "max_tokens": 5, "enabled": True, "exclude": False},
    "thinking": {"type": "enabled", "budget_tokens": 5},
    "chat_template_kwargs": {"enable_thinking": True, "reasoning_effort": "low", "date": "x"},
    "max_completion_tokens": 5,
    **SAMPLING,
}
LEGACY = {
    "model": "m",
    "messages": [{"role": "user", "content": "hi"}],
    "functions": [FUNCTION],
    "function_call": {"name": "f"},
    "structured_outputs": {"json": {"a": 1}},
}
GUIDED = {
    "model": "m",
    "messages": [{"role": "user", "content": "hi"}],
    "structured_outputs": {"choice": ["a", "b"]},
}
COMPLETION = {
    "model": "m",
    **LABELS,
    "prompt": ["a", [1, 2]],
    "echo": True,
    "logprobs": 3,
    "best_of": 2,
    "suffix": "",
    "guided_regex": "a+",
    **SAMPLING,
}
BODIES = [
    pytest.param(openai_chat.read_request, CHAT, id="chat"),
    pytest.param(openai_chat.read_request, LEGACY, id="functions"),
    pytest.param(openai_chat.read_request, GUIDED, id="guided"),
    pytest.param(openai_completions.read_request, COMPLETION, id="completions"),
]


@pytest.mark.parametrize(("read", "body"), BODIES)
def test_the_bodies_are_right_as_they_stand(read: Read, body: Json) -> None:
    assert refusal(read, body) is None


@pytest.mark.parametrize(("read", "body"), BODIES)
def test_every_wrong_type_in_every_field_is_refused_by_its_path(read: Read, body: Json) -> None:
    check_every_wrong_type(read, body)


@given(st.data())
def test_whatever_stands_anywhere_is_read_or_refused(data: st.DataObject) -> None:
    check_random_changes(BODIES, data)


@pytest.mark.parametrize("opening", ['{"a":', "["])
@pytest.mark.parametrize("depth", [90, 300, 1000])
def test_deep_nesting_is_read_or_refused_in_any_field(opening: str, depth: int) -> None:
    for body in (CHAT, COMPLETION):
        read = openai_chat.read_request if body is CHAT else openai_completions.read_request
        check_deep_nesting(read, body, opening, depth)


def test_a_body_nested_beyond_reason_is_not_json() -> None:
    with pytest.raises(InvalidRequest):
        parse_json(b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def test_large_requests_are_read() -> None:
    tools = [{"type": "function", "function": FUNCTION | {"name": f"f{i}"}} for i in range(1000)]
    long = [{"role": "user", "content": "x" * 2_000_000}, {"role": "assistant", "content": ""}]
    body = parse_json(
        orjson.dumps(CHAT | {"tools": tools, "messages": long * 10, "tool_choice": "auto"})
    )
    assert len(openai_chat.read_request(body).conversation.tools) == 1000
