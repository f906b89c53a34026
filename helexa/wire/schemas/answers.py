"""The JSON schemas of errors, and of what chat and completions answer."""

from typing import get_args

from helexa.conversation import FinishReason, Json
from helexa.wire.schemas.shapes import (
    INTEGER,
    NUMBER,
    STRING,
    integer,
    list_of,
    nullable,
    object_of,
    one_of,
    ref,
    typed,
)

REASONS = (*get_args(FinishReason), "function_call")
TOKEN: dict[str, Json] = {"token": STRING, "bytes": list_of(integer(0, 255)), "logprob": NUMBER}


def answer_schemas() -> dict[str, Json]:
    return {
        "Error": object_of(error=ref("ErrorObject")),
        "ErrorObject": object_of(
            message=STRING,
            type=STRING,
            code=nullable(STRING),
            param=nullable(STRING),
            request_id=STRING,
        ),
        **chat_answer_schemas(),
        "TokenLogprob": object_of(**TOKEN, top_logprobs=list_of(object_of(**TOKEN))),
        "Usage": object_of(
            prompt_tokens=INTEGER,
            completion_tokens=INTEGER,
            total_tokens=INTEGER,
            prompt_tokens_details=object_of(cached_tokens=INTEGER),
            completion_tokens_details=object_of(reasoning_tokens=INTEGER),
        ),
    }


def chat_answer_schemas() -> dict[str, Json]:
    finish = one_of(*REASONS)
    logprobs = object_of(content=list_of(ref("TokenLogprob")))
    call = object_of({"arguments": STRING}, name=STRING)
    head: dict[str, Json] = {"id": STRING, "created": INTEGER, "model": STRING}
    said: dict[str, Json] = {"reasoning_content": STRING, "function_call": object_of()}
    delta = object_of(
        said
        | {
            "role": one_of("assistant"),
            "content": nullable(STRING),
            "tool_calls": list_of(
                object_of({"id": STRING, "function": object_of()}, index=INTEGER)
            ),
        }
    )
    return {
        "ChatCompletion": object_of(
            **head,
            object=one_of("chat.completion"),
            choices=list_of(ref("Choice")),
            usage=ref("Usage"),
        ),
        "Choice": object_of(
            {"logprobs": nullable(logprobs), "stop_reason": STRING},
            index=INTEGER,
            message=object_of(
                said | {"tool_calls": list_of(typed("function", id=STRING, function=call))},
                role=one_of("assistant"),
                content=nullable(STRING),
            ),
            finish_reason=finish,
        ),
        "ChatCompletionChunk": object_of(
            {"usage": ref("Usage")},
            **head,
            object=one_of("chat.completion.chunk"),
            choices=list_of(
                object_of(
                    {"logprobs": logprobs, "stop_reason": STRING},
                    index=INTEGER,
                    delta=delta,
                    finish_reason=nullable(finish),
                )
            ),
        ),
    }
