"""Every field of a Responses or Messages request with every wrong type: refused by its path, or accepted."""

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
from helexa.wire import anthropic, openai_responses

PICTURE = "data:image/png;base64,AAAA"
PARAMETERS: Json = {"type": "object", "properties": {"a": {"type": "string"}}}
FUNCTION = {
    "type": "function",
    "name": "f",
    "description": "d",
    "parameters": PARAMETERS,
    "strict": True,
}
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "start: /a/"}
DRAWN = {
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
}
RESPONSE = {
    "model": "m",
    "instructions": "Be kind.",
    "input": [
        {"type": "message", "id": "a", "role": "developer", "content": "Be brief.", "name": "d"},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is this?"},
                {"type": "input_image", "image_url": PICTURE},
                {"type": "input_file", "filename": "a.txt", "file_data": "aGk="},
            ],
        },
        {
            "type": "reasoning",
            "id": "b",
            "summary": [{"type": "summary_text", "text": "hm"}],
            "content": [{"type": "reasoning_text", "text": "hm"}],
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "I look."},
                {"type": "refusal", "refusal": "No."},
            ],
        },
        {
            "type": "function_call",
            "id": "c",
            "call_id": "1",
            "name": "f",
            "namespace": "n",
            "arguments": "{}",
        },
        {"type": "custom_tool_call", "call_id": "2", "name": "g", "input": "x"},
        {"type": "local_shell_call", "call_id": "3", "action": {"command": ["ls"]}},
        {"type": "apply_patch_call", "call_id": "4", "operation": {"type": "delete"}},
        {"type": "function_call_output", "call_id": "1", "output": "a cat", "is_error": False},
        {
            "type": "custom_tool_call_output",
            "call_id": "2",
            "output": [{"type": "input_text", "text": "a dog"}],
        },
        {"type": "compaction", "encrypted_content": "x"},
    ],
    "tools": [
        FUNCTION,
        {"type": "custom", "name": "g", "description": "d", "format": GRAMMAR},
        {"type": "namespace", "name": "n", "description": "d", "tools": [{**FUNCTION}]},
    ],
    "tool_choice": {
        "type": "allowed_tools",
        "mode": "auto",
        "tools": [{"type": "function", "name": "f"}],
    },
    "parallel_tool_calls": True,
    "text": {
        "verbosity": "low",
        "format": {
            "type": "json_schema",
            "name": "n",
            "description": "d",
            "schema": {"a": 1},
            "strict": True,
        },
    },
    "reasoning": {"effort": "low", "summary": "auto"},
    "include": ["reasoning.encrypted_content"],
    "top_logprobs": 3,
    "max_output_tokens": 5,
    "max_tool_calls": 5,
    "truncation": "auto",
    "store": True,
    "stream": True,
    "stream_options": {"include_obfuscation": False},
    "background": False,
    "user": "u",
    "safety_identifier": "s",
    "prompt_cache_key": "k",
    "chat_template_kwargs": {"enable_thinking": True, "date": "x"},
    **DRAWN,
}
MESSAGE = {
    "model": "m",
    "system": [{"type": "text", "text": "Be kind."}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
                },
                {
                    "type": "document",
                    "title": "t",
                    "context": "c",
                    "source": {"type": "text", "data": "d"},
                },
                {
                    "type": "search_result",
                    "title": "t",
                    "source": "s",
                    "content": [{"type": "text", "text": "r"}],
                },
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "1", "name": "f", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "1",
                    "content": [{"type": "text", "text": "a cat"}],
                    "is_error": False,
                }
            ],
        },
        {"role": "system", "content": "Be brief."},
    ],
    "tools": [
        {"name": "f", "description": "d", "input_schema": PARAMETERS, "strict": True},
        {"type": "custom", "name": "g", "input_schema": PARAMETERS},
        {"type": "bash_20250124", "name": "bash"},
    ],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "max_tokens": 5,
    "stop_sequences": ["END"],
    "stream": True,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 40,
    "thinking": {"type": "enabled", "budget_tokens": 5, "display": "omitted"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"a": 1}}},
    "metadata": {"user_id": "u"},
}
BODIES = [
    pytest.param(openai_responses.read_request, RESPONSE, id="responses"),
    pytest.param(openai_responses.read_compaction, RESPONSE, id="compaction"),
    pytest.param(anthropic.read_request, MESSAGE, id="messages"),
]


@pytest.mark.parametrize(("read", "body"), BODIES)
def test_the_bodies_of_items_and_blocks_are_right_as_they_stand(read: Read, body: Json) -> None:
    assert refusal(read, body) is None


@pytest.mark.parametrize(("read", "body"), BODIES)
def test_every_wrong_type_in_items_and_blocks_is_refused_by_its_path(
    read: Read, body: Json
) -> None:
    check_every_wrong_type(read, body)


@given(st.data())
def test_whatever_stands_in_items_and_blocks_is_read_or_refused(data: st.DataObject) -> None:
    check_random_changes(BODIES, data)


@pytest.mark.parametrize("opening", ['{"a":', "["])
@pytest.mark.parametrize("depth", [90, 300, 1000])
def test_deep_nesting_in_items_and_blocks_is_read_or_refused(opening: str, depth: int) -> None:
    for read, body in (
        (openai_responses.read_request, RESPONSE),
        (anthropic.read_request, MESSAGE),
    ):
        check_deep_nesting(read, body, opening, depth)
