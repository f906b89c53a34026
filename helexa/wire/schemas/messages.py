"""The JSON schemas of Anthropic's Messages, and of its lists of models and errors."""

from helexa.conversation import Json
from helexa.wire import request, sampling
from helexa.wire.anthropic import messages
from helexa.wire.anthropic.blocks import MAX_BLOCKS
from helexa.wire.schemas.shapes import (
    ANY_OBJECT,
    BOOLEAN,
    INTEGER,
    STRING,
    all_nullable,
    any_of,
    integer,
    list_of,
    nullable,
    number,
    object_of,
    one_of,
    ref,
    text_of,
    typed,
)


def messages_schemas() -> dict[str, Json]:
    return {
        "MessagesRequest": messages_request(),
        "CountRequest": messages_request(),
        **turn_schemas(),
        **tool_schemas(),
        **answer_schemas(),
        **list_schemas(),
    }


# -- what a client sends -------------------------------------------------------------------------------


def messages_request() -> Json:
    tokens = integer(1, request.MAX_TOKENS)
    form = typed("json_schema", schema=ANY_OBJECT)
    stop = text_of(1, sampling.MAX_STOP_CHARACTERS)
    optional: dict[str, Json] = {
        "max_tokens": tokens,
        "stream": BOOLEAN,
        "system": any_of(
            STRING, list_of(typed("text", text=STRING), maxItems=messages.MAX_SYSTEM_BLOCKS)
        ),
        "temperature": number(0, 2),
        "top_p": number(0, 1),
        "top_k": integer(0, sampling.MAX_TOKEN_ID),
        "stop_sequences": list_of(stop, maxItems=sampling.MAX_STOPS),
        "tools": list_of(ref("MessagesTool"), maxItems=request.MAX_TOOLS),
        "tool_choice": ref("MessagesToolChoice"),
        "thinking": object_of(
            {"budget_tokens": nullable(tokens), "display": nullable(STRING)},
            type=one_of("enabled", "adaptive", "between_tools", "disabled"),
        ),
        "output_config": object_of(all_nullable({"effort": STRING, "format": form})),
        "output_format": form,
        "metadata": object_of({"user_id": nullable(STRING)}),
    }
    return object_of(
        all_nullable(optional),
        model=text_of(1, request.MAX_NAME_CHARACTERS),
        messages=list_of(ref("Turn"), minItems=1, maxItems=request.MAX_MESSAGES),
    )


def turn_schemas() -> dict[str, Json]:
    said = [ref(name) for name in ("TextBlock", "ImageBlock", "DocumentBlock")]
    thought = [ref(name) for name in ("ToolUseBlock", "ThinkingBlock", "SealedBlock")]
    return {
        "Turn": any_of(
            turn("user", *said, ref("ToolResultBlock")),
            turn("assistant", *said, *thought),
            turn("system", ref("TextBlock")),
        ),
        "TextBlock": typed("text", text=STRING),
        "ImageBlock": typed(
            "image",
            source=any_of(
                typed("base64", media_type={"type": "string", "pattern": "^image/"}, data=STRING),
                typed("url", url={"type": "string", "pattern": "^data:image/"}),
            ),
        ),
        "DocumentBlock": typed(
            "document",
            all_nullable({"title": STRING, "context": STRING}),
            source=any_of(
                typed("text", data=STRING),
                typed("content", {"content": nullable(any_of(STRING, list_of(ref("TextBlock"))))}),
            ),
        ),
        "ToolUseBlock": typed(
            "tool_use", {"input": nullable(any_of(ANY_OBJECT, STRING))}, id=STRING, name=STRING
        ),
        "ToolResultBlock": typed(
            "tool_result",
            all_nullable(
                {
                    "content": any_of(STRING, list_of(any_of(ref("TextBlock"), ref("ImageBlock")))),
                    "is_error": BOOLEAN,
                }
            ),
            tool_use_id=STRING,
        ),
        "ThinkingBlock": typed("thinking", {"signature": nullable(STRING)}, thinking=STRING),
        "SealedBlock": typed("redacted_thinking", data=STRING),
    }


def turn(role: str, *blocks: Json) -> Json:
    content = any_of(STRING, list_of(any_of(*blocks), maxItems=MAX_BLOCKS))
    return object_of({"content": nullable(content)}, role=one_of(role))


def tool_schemas() -> dict[str, Json]:
    name = text_of(1, request.MAX_NAME_CHARACTERS)
    parallel = {"disable_parallel_tool_use": nullable(BOOLEAN)}
    return {
        "MessagesTool": any_of(
            object_of(
                {"type": {"enum": ["custom", None]}}
                | all_nullable({"description": STRING, "strict": BOOLEAN}),
                name=name,
                input_schema=ANY_OBJECT,
            ),
            object_of(
                {"input_schema": {"type": "null"}},
                type={
                    "type": "string",
                    "pattern": "^(bash|text_editor|memory|web_search)_[0-9]{8}$",
                },
                name=name,
            ),
        ),
        "MessagesToolChoice": any_of(
            object_of(parallel, type=one_of("auto", "any")),
            typed("tool", parallel, name=name),
            typed("none"),
        ),
    }


# -- what a client gets --------------------------------------------------------------------------------


def answer_schemas() -> dict[str, Json]:
    usage = object_of(
        input_tokens=INTEGER,
        output_tokens=INTEGER,
        cache_creation_input_tokens=INTEGER,
        cache_read_input_tokens=INTEGER,
        output_tokens_details=object_of(thinking_tokens=INTEGER),
    )
    blocks = any_of(
        typed("text", text=STRING),
        typed("thinking", thinking=STRING, signature=STRING),
        typed("tool_use", id=STRING, name=STRING, input=ANY_OBJECT),
    )
    return {
        "MessagesAnswer": typed(
            "message",
            id=STRING,
            role=one_of("assistant"),
            model=STRING,
            content=list_of(blocks, minItems=1),
            stop_reason=one_of("end_turn", "max_tokens", "tool_use", "stop_sequence"),
            stop_sequence=nullable(STRING),
            usage=usage,
        ),
        "CountedTokens": object_of(input_tokens=INTEGER),
        "MessagesError": typed("error", error=ref("ErrorObject"), request_id=STRING),
    }


def list_schemas() -> dict[str, Json]:
    return {
        "MessagesModel": typed(
            "model",
            {"max_input_tokens": INTEGER, "max_tokens": INTEGER},
            id=STRING,
            display_name=STRING,
            created_at=STRING,
        ),
        "MessagesModelList": object_of(
            data=list_of(ref("MessagesModel")),
            has_more=BOOLEAN,
            first_id=nullable(STRING),
            last_id=nullable(STRING),
        ),
    }
