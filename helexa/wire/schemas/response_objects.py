"""The JSON schemas of what Responses answer: the response object, stored ones, and counts."""

from helexa.conversation import Json
from helexa.wire.schemas.shapes import (
    ANY_OBJECT,
    BOOLEAN,
    INTEGER,
    STRING,
    any_of,
    list_of,
    nullable,
    object_of,
    one_of,
    ref,
    typed,
)


def response_object_schemas() -> dict[str, Json]:
    usage = object_of(
        input_tokens=INTEGER,
        output_tokens=INTEGER,
        total_tokens=INTEGER,
        input_tokens_details=object_of(cached_tokens=INTEGER),
        output_tokens_details=object_of(reasoning_tokens=INTEGER),
    )
    return {
        "Response": object_of(
            id=STRING,
            object=one_of("response"),
            created_at=INTEGER,
            status=one_of("completed", "incomplete", "failed", "in_progress"),
            model=STRING,
            output=list_of(ref("OutputItem")),
            error=nullable(ANY_OBJECT),
            incomplete_details=nullable(object_of(reason=STRING)),
            usage=nullable(ref("ResponseUsage")),
        ),
        "ResponseUsage": usage,
        "OutputItem": any_of(
            typed(
                "message",
                id=STRING,
                status=STRING,
                role=one_of("assistant"),
                content=list_of(typed("output_text", text=STRING, annotations=list_of(ANY_OBJECT))),
            ),
            typed("reasoning", id=STRING, summary=list_of(ANY_OBJECT)),
            typed("function_call", id=STRING, call_id=STRING, name=STRING, arguments=STRING),
            typed("custom_tool_call", id=STRING, call_id=STRING, name=STRING, input=STRING),
            typed("compaction", id=STRING, encrypted_content=STRING),
        ),
        "Compaction": object_of(
            {"usage": ref("ResponseUsage")},
            id=STRING,
            object=one_of("response.compaction"),
            created_at=INTEGER,
            output=list_of(ANY_OBJECT),
        ),
        "ItemList": object_of(
            object=one_of("list"),
            data=list_of(ANY_OBJECT),
            first_id=nullable(STRING),
            last_id=nullable(STRING),
            has_more=BOOLEAN,
        ),
        "Deleted": object_of(id=STRING, object=STRING, deleted={"const": True}),
        "InputTokens": object_of(object=one_of("response.input_tokens"), input_tokens=INTEGER),
    }
