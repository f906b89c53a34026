"""The JSON schemas of text completions."""

from helexa.conversation import Json
from helexa.wire.openai_chat.request import MAX_CHOICES
from helexa.wire.openai_completions import request
from helexa.wire.request import MAX_NAME_CHARACTERS, MAX_TOKENS
from helexa.wire.sampling import MAX_TOKEN_ID, MAX_TOP_LOGPROBS
from helexa.wire.schemas.sampling import drawing, form, labels
from helexa.wire.schemas.shapes import (
    BOOLEAN,
    INTEGER,
    NUMBER,
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
)


def completion_schemas() -> dict[str, Json]:
    scores = object_of(
        tokens=list_of(STRING),
        token_logprobs=list_of(nullable(NUMBER)),
        top_logprobs=list_of(nullable({"type": "object", "additionalProperties": NUMBER})),
        text_offset=list_of(INTEGER),
    )
    return {
        "CompletionRequest": completion_request(),
        "Completion": object_of(
            id=STRING,
            object=one_of("text_completion"),
            created=INTEGER,
            model=STRING,
            choices=list_of(
                object_of(
                    {"logprobs": nullable(scores), "stop_reason": STRING},
                    index=INTEGER,
                    text=STRING,
                    finish_reason=one_of("stop", "length"),
                )
            ),
            usage=ref("Usage"),
        ),
    }


def completion_request() -> Json:
    tokens = integer(1, MAX_TOKENS)
    ids = list_of(integer(0, MAX_TOKEN_ID), minItems=1, maxItems=request.MAX_PROMPT_IDS)
    text = {"type": "string", "minLength": 1}
    optional: dict[str, Json] = {
        "stream": BOOLEAN,
        "stream_options": object_of({"include_usage": nullable(BOOLEAN)}),
        "max_tokens": tokens,
        "max_completion_tokens": tokens,
        "n": integer(1, MAX_CHOICES),
        "echo": BOOLEAN,
        "logprobs": integer(0, MAX_TOP_LOGPROBS),
        "suffix": {"const": ""},
        **labels(),
        **drawing(),
        **form(),
    }
    return object_of(
        all_nullable(optional),
        model=text_of(1, MAX_NAME_CHARACTERS),
        prompt=any_of(
            text,
            ids,
            list_of(text, minItems=1, maxItems=request.MAX_PROMPTS),
            list_of(ids, minItems=1, maxItems=request.MAX_PROMPTS),
        ),
    )
