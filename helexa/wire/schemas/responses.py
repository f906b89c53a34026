"""The JSON schemas of Responses: requests, and what they are made of."""

from helexa.conversation import Json
from helexa.wire.openai_responses import items, settings
from helexa.wire.request import MAX_NAME_CHARACTERS, MAX_PARTS, MAX_TOKENS, MAX_TOOLS
from helexa.wire.schemas.chat import DATA_URI, thinking_fields
from helexa.wire.schemas.sampling import drawing, form
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


def response_schemas() -> dict[str, Json]:
    return {
        "ResponseRequest": response_request(),
        **item_schemas(),
        **tool_schemas(),
    }


def response_request() -> Json:
    thinking = thinking_fields()
    others = {name: schema for name, schema in form().items() if name != "response_format"}
    optional: dict[str, Json] = {
        "input": any_of(STRING, list_of(ref("Item"), maxItems=items.MAX_ITEMS)),
        "instructions": STRING,
        "previous_response_id": {"type": "null"},
        "store": BOOLEAN,
        "stream": BOOLEAN,
        "max_output_tokens": integer(1, MAX_TOKENS),
        "max_tool_calls": integer(0, 2**53),
        "tools": list_of(ref("ResponseTool"), maxItems=MAX_TOOLS),
        "tool_choice": one_of("auto", "none"),
        "parallel_tool_calls": BOOLEAN,
        "text": object_of(all_nullable({"format": text_format(), "verbosity": STRING})),
        "include": list_of(STRING, maxItems=settings.MAX_INCLUDES),
        "truncation": one_of("auto", "disabled"),
        "metadata": {
            "type": "object",
            "maxProperties": settings.MAX_METADATA,
            "propertyNames": {"maxLength": MAX_NAME_CHARACTERS},
            "additionalProperties": STRING,
        },
        "background": {"const": False},
        "conversation": {"type": "null"},
        "prompt": {"type": "null"},
        "top_logprobs": integer(0, 20),
        "user": STRING,
        "safety_identifier": STRING,
        "prompt_cache_key": STRING,
        **drawing(),
        **others,
        **thinking,
    }
    reasoning = optional["reasoning"]
    reasoning["properties"] |= all_nullable({"summary": STRING, "generate_summary": STRING})
    return object_of(all_nullable(optional), model=text_of(1, MAX_NAME_CHARACTERS))


def text_format() -> Json:
    name = nullable(text_of(0, 512))
    strict = {"name": name, "description": nullable(STRING), "strict": nullable(BOOLEAN)}
    return any_of(
        object_of(type=one_of("text", "json_object")),
        object_of(
            strict | {"json_schema": {"type": "null"}},
            type=one_of("json_schema"),
            schema=ANY_OBJECT,
        ),
    )


# -- items ---------------------------------------------------------------------------------------------


def item_schemas() -> dict[str, Json]:
    call: dict[str, Json] = {"call_id": STRING}
    output = {"output": nullable(ref("ItemContent"))}
    named = all_nullable({"name": STRING, "namespace": STRING})
    return {
        "Item": any_of(
            object_of(
                {"type": {"enum": ["message", None]}, "content": nullable(ref("ItemContent"))}
                | all_nullable({"name": STRING}),
                role=one_of("system", "developer", "user", "assistant"),
            ),
            typed(
                "reasoning",
                all_nullable(
                    {
                        "summary": list_of(typed("summary_text", text=STRING)),
                        "content": list_of(typed("reasoning_text", text=STRING)),
                        "encrypted_content": STRING,
                    }
                ),
            ),
            typed(
                "function_call",
                {"arguments": nullable(any_of(STRING, ANY_OBJECT)), "namespace": nullable(STRING)},
                **call,
                name=STRING,
            ),
            typed(
                "custom_tool_call",
                all_nullable({"input": STRING, "namespace": STRING}),
                **call,
                name=STRING,
            ),
            typed("function_call_output", output | named, **call),
            typed("custom_tool_call_output", output | named, **call),
            typed("local_shell_call", call_id=STRING, action=ANY_OBJECT),
            typed("compaction", {"encrypted_content": nullable(STRING)}),
            typed("compaction_trigger"),
            typed("web_search_call"),
        ),
        "ItemContent": any_of(STRING, list_of(ref("ItemPart"), maxItems=MAX_PARTS)),
        "ItemPart": any_of(
            object_of(type=one_of("input_text", "output_text", "text"), text=STRING),
            typed("refusal", refusal=STRING),
            typed("input_image", {"file_id": {"type": "null"}}, image_url=DATA_URI),
        ),
    }


def tool_schemas() -> dict[str, Json]:
    name = text_of(1, MAX_NAME_CHARACTERS)
    about: dict[str, Json] = {"function": {"type": "null"}, "description": nullable(STRING)}
    return {
        "ResponseTool": any_of(
            ref("ResponseFunction"),
            ref("ResponseCustom"),
            typed(
                "namespace",
                {
                    "description": nullable(STRING),
                    "tools": nullable(
                        list_of(any_of(ref("ResponseFunction"), ref("ResponseCustom")), maxItems=8)
                    ),
                },
                name=name,
            ),
            object_of(type=one_of("web_search", "image_generation", "mcp", "local_shell")),
        ),
        "ResponseFunction": typed(
            "function",
            about | all_nullable({"parameters": ANY_OBJECT, "strict": BOOLEAN}),
            name=name,
        ),
        "ResponseCustom": typed(
            "custom",
            about
            | {
                "format": nullable(
                    any_of(
                        typed("text"),
                        typed(
                            "grammar",
                            {"grammar": {"type": "null"}},
                            syntax=one_of("lark", "regex"),
                            definition=STRING,
                        ),
                    )
                )
            },
            name=name,
        ),
    }
