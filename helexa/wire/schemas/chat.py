"""The JSON schemas of a request for a chat completion."""

from helexa.conversation import Json
from helexa.wire import request, thinking
from helexa.wire.openai_chat.messages import MAX_TOOL_CALLS
from helexa.wire.openai_chat.request import MAX_CHOICES
from helexa.wire.schemas.sampling import drawing, form, labels
from helexa.wire.schemas.shapes import (
    ANY_OBJECT,
    BOOLEAN,
    STRING,
    all_nullable,
    any_of,
    integer,
    list_of,
    nullable,
    object_of,
    one_of,
    ref,
    text_of,
    typed,
)

DATA_URI: Json = {"type": "string", "pattern": "^data:image/"}


def chat_schemas() -> dict[str, Json]:
    return {
        "ChatRequest": chat_request(),
        **message_schemas(),
        "ToolCall": object_of(
            {"type": one_of("function")},
            id=STRING,
            function=object_of({"arguments": STRING}, name=STRING),
        ),
        "Tool": any_of(
            typed("function", function=ref("Function")),
            typed("custom", custom=object_of({"description": nullable(STRING)}, name=tool_name())),
            object_of(type=one_of("web_search", "mcp", "code_interpreter")),
        ),
        "Function": object_of(
            {
                "description": nullable(STRING),
                "parameters": nullable(ANY_OBJECT),
                "strict": nullable(BOOLEAN),
            },
            name=tool_name(),
        ),
        "ToolChoice": any_of(
            one_of("auto", "none", "required"),
            typed("function", function=object_of(name=tool_name())),
            typed("custom", custom=object_of(name=tool_name())),
            typed(
                "allowed_tools",
                allowed_tools=object_of(
                    {"mode": one_of("auto", "required")},
                    tools=list_of(
                        typed("function", function=object_of(name=tool_name())), minItems=1
                    ),
                ),
            ),
        ),
    }


def tool_name() -> Json:
    return text_of(1, request.MAX_NAME_CHARACTERS)


# -- messages ----------------------------------------------------------------------------------------


def message_schemas() -> dict[str, Json]:
    name = {"name": nullable(STRING)}
    content = {"content": ref("Content")} | name
    return {
        "Message": {
            "oneOf": [
                ref("SaidMessage"),
                ref("AssistantMessage"),
                ref("ToolMessage"),
                ref("FunctionMessage"),
            ]
        },
        "Content": nullable(any_of(STRING, list_of(ref("Part"), maxItems=request.MAX_PARTS))),
        "Part": any_of(
            object_of(type=one_of("text", "input_text", "output_text"), text=STRING),
            typed("refusal", refusal=STRING),
            typed("image_url", image_url=object_of(url=DATA_URI)),
        ),
        "SaidMessage": object_of(content, role=one_of("system", "developer", "user")),
        "AssistantMessage": object_of(
            content
            | {
                "refusal": nullable(STRING),
                "reasoning_content": nullable(STRING),
                "reasoning": nullable(STRING),
                "tool_calls": nullable(list_of(ref("ToolCall"), maxItems=MAX_TOOL_CALLS)),
                "function_call": nullable(object_of({"arguments": STRING}, name=STRING)),
            },
            role=one_of("assistant"),
        ),
        "ToolMessage": object_of(
            content | {"is_error": nullable(BOOLEAN)}, role=one_of("tool"), tool_call_id=STRING
        ),
        "FunctionMessage": object_of(
            {"content": ref("Content")}, role=one_of("function"), name=STRING
        ),
    }


# -- the request -------------------------------------------------------------------------------------


def chat_request() -> Json:
    tokens = integer(1, request.MAX_TOKENS)
    optional: dict[str, Json] = {
        "stream": BOOLEAN,
        "stream_options": object_of({"include_usage": nullable(BOOLEAN)}),
        "max_completion_tokens": tokens,
        "max_tokens": tokens,
        "n": integer(1, MAX_CHOICES),
        **labels(),
        **drawing(),
        "logprobs": BOOLEAN,
        "top_logprobs": integer(0, 20),
        "tools": list_of(ref("Tool"), maxItems=request.MAX_TOOLS),
        "tool_choice": ref("ToolChoice"),
        "parallel_tool_calls": BOOLEAN,
        "functions": list_of(ref("Function"), maxItems=request.MAX_TOOLS),
        "function_call": any_of(one_of("auto", "none"), object_of(name=tool_name())),
        **form(),
        **thinking_fields(),
        "modalities": {"const": ["text"]},
        "audio": {"type": "null"},
        "web_search_options": {"type": "null"},
    }
    wanted = object_of(
        all_nullable(optional),
        model=text_of(1, request.MAX_NAME_CHARACTERS),
        messages=list_of(ref("Message"), minItems=1, maxItems=request.MAX_MESSAGES),
    )
    scored = object_of(top_logprobs={"type": "integer", "minimum": 1})
    return wanted | {"if": scored, "then": object_of(logprobs={"const": True})}


def thinking_fields() -> dict[str, Json]:
    effort = text_of(0, thinking.MAX_EFFORT_CHARACTERS)
    tokens = integer(1, thinking.MAX_BUDGET_TOKENS)
    return {
        "reasoning_effort": effort,
        "enable_thinking": BOOLEAN,
        **{name: integer(-1, thinking.MAX_BUDGET_TOKENS) for name in thinking.BUDGETS},
        "reasoning": object_of(
            all_nullable(
                {"effort": effort, "max_tokens": tokens, "enabled": BOOLEAN, "exclude": BOOLEAN}
            )
        ),
        "thinking": object_of(
            {"budget_tokens": nullable(tokens)}, type=one_of("enabled", "adaptive", "disabled")
        ),
        "chat_template_kwargs": {
            "type": "object",
            "propertyNames": {"not": {"enum": sorted(thinking.RESERVED_KWARGS)}},
            "properties": {
                "enable_thinking": nullable(BOOLEAN),
                "reasoning_effort": nullable(effort),
            },
        },
    }
