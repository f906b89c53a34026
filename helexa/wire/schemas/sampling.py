"""The JSON schemas of what chat and completions share: labels, how an answer is drawn, its form."""

from helexa.conversation import Json
from helexa.wire import format, sampling
from helexa.wire.schemas.shapes import (
    ANY_OBJECT,
    BOOLEAN,
    STRING,
    any_of,
    integer,
    list_of,
    nullable,
    number,
    number_above,
    object_of,
    one_of,
    text_of,
)


def labels() -> dict[str, Json]:
    """What a client notes on a request for itself."""
    texts = {key: STRING for key in ("user", "safety_identifier", "prompt_cache_key")}
    return {**texts, "metadata": ANY_OBJECT, "store": BOOLEAN}


def drawing() -> dict[str, Json]:
    token_id = integer(0, sampling.MAX_TOKEN_ID)
    stop = text_of(1, sampling.MAX_STOP_CHARACTERS)
    return {
        "temperature": number(0, 2),
        "top_p": number(0, 1),
        "top_k": integer(-1, sampling.MAX_TOKEN_ID),
        "min_p": number(0, 1),
        "repetition_penalty": number_above(0, 10),
        "frequency_penalty": number(-2, 2),
        "presence_penalty": number(-2, 2),
        "logit_bias": {
            "type": "object",
            "propertyNames": {"pattern": f"^{sampling.TOKEN_ID.pattern}$"},
            "additionalProperties": number(-100, 100),
            "maxProperties": sampling.MAX_BIASES,
        },
        "seed": integer(-(2**63), 2**63 - 1),
        "stop": any_of(stop, list_of(stop, maxItems=sampling.MAX_STOPS)),
        "stop_token_ids": list_of(token_id, maxItems=sampling.MAX_STOP_IDS),
        "ignore_eos": BOOLEAN,
    }


def form() -> dict[str, Json]:
    """The form that the answer must have; at most one of these."""
    pattern = text_of(0, format.MAX_PATTERN_CHARACTERS)
    words = list_of(text_of(0, 256), minItems=1, maxItems=200)
    kinds: dict[str, Json] = {
        "json": ANY_OBJECT,
        "regex": pattern,
        "grammar": pattern,
        "choice": words,
    }
    return {
        "response_format": ref_formats(),
        "structured_outputs": object_of(
            {name: nullable(schema) for name, schema in kinds.items()}
            | {"json_object": nullable(BOOLEAN), "structural_tag": {"type": "null"}}
        ),
        **{name: kinds[kind] for name, kind in format.OTHER_NAMES.items()},
    }


def ref_formats() -> Json:
    schema = object_of(
        {
            "name": nullable(text_of(0, format.MAX_SCHEMA_NAME_CHARACTERS)),
            "description": nullable(STRING),
            "strict": nullable(BOOLEAN),
        },
        schema=ANY_OBJECT,
    )
    return any_of(
        object_of(type=one_of("text")),
        object_of({"schema": nullable(ANY_OBJECT)}, type=one_of("json_object")),
        object_of({"schema": {"type": "null"}}, type=one_of("json_schema"), json_schema=schema),
    )
