"""The JSON schemas of what helexa reads and writes, for its own OpenAPI description."""

from typing import get_args

from helexa.conversation import FinishReason, Json
from helexa.fleet.entry import ModelStatus
from helexa.wire.openai_chat import request, sampling
from helexa.wire.openai_chat.messages import MAX_PARTS, MAX_TOOL_CALLS

STRING: Json = {"type": "string"}
BOOLEAN: Json = {"type": "boolean"}
INTEGER: Json = {"type": "integer", "minimum": 0}
NUMBER: Json = {"type": "number"}
ANY_OBJECT: Json = {"type": "object"}


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def object_of(optional: dict[str, Json] | None = None, /, **required: Json) -> Json:
    """An object with these properties, and any others."""
    properties = required | (optional or {})
    return {"type": "object", "required": list(required), "properties": properties}


def list_of(items: Json, **bounds: int) -> Json:
    return {"type": "array", "items": items, **bounds}


def one_of(*values: str) -> Json:
    return {"type": "string", "enum": list(values)}


def integer(low: int, high: int) -> Json:
    return {"type": "integer", "minimum": low, "maximum": high}


def number(low: float, high: float) -> Json:
    return {"type": "number", "minimum": low, "maximum": high}


def number_above(low: float, high: float) -> Json:
    return {"type": "number", "exclusiveMinimum": low, "maximum": high}


def nullable(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def schemas() -> dict[str, Json]:
    return {**request_schemas(), **answer_schemas(), **model_schemas(), **node_schemas()}


# -- what a client sends ----------------------------------------------------------------------------


def request_schemas() -> dict[str, Json]:
    return {
        "ChatRequest": chat_request(),
        "Message": {"oneOf": [ref("SaidMessage"), ref("AssistantMessage"), ref("ToolMessage")]},
        "Content": nullable(
            {
                "anyOf": [
                    STRING,
                    list_of(object_of(type=one_of("text"), text=STRING), maxItems=MAX_PARTS),
                ]
            }
        ),
        "SaidMessage": object_of(
            {"content": ref("Content"), "name": nullable(STRING)},
            role=one_of("system", "developer", "user"),
        ),
        "AssistantMessage": object_of(
            {
                "content": ref("Content"),
                "name": nullable(STRING),
                "reasoning_content": nullable(STRING),
                "reasoning": nullable(STRING),
                "tool_calls": nullable(list_of(ref("ToolCall"), maxItems=MAX_TOOL_CALLS)),
                "function_call": nullable(object_of({"arguments": STRING}, name=STRING)),
            },
            role=one_of("assistant"),
        ),
        "ToolMessage": object_of(
            {"content": ref("Content"), "name": nullable(STRING)},
            role=one_of("tool"),
            tool_call_id=STRING,
        ),
        "ToolCall": object_of(
            {"type": one_of("function")},
            id=STRING,
            function=object_of({"arguments": STRING}, name=STRING),
        ),
        "Tool": object_of(
            type=one_of("function"),
            function=object_of(
                {"description": nullable(STRING), "parameters": nullable(ANY_OBJECT)},
                name={"type": "string", "minLength": 1, "maxLength": request.MAX_NAME_CHARACTERS},
            ),
        ),
    }


def chat_request() -> Json:
    tokens = integer(1, request.MAX_TOKENS)
    token_id = integer(0, sampling.MAX_TOKEN_ID)
    stop = {"type": "string", "minLength": 1, "maxLength": sampling.MAX_STOP_CHARACTERS}
    optional: dict[str, Json] = {
        "stream": BOOLEAN,
        "stream_options": object_of({"include_usage": nullable(BOOLEAN)}),
        "max_completion_tokens": tokens,
        "max_tokens": tokens,
        "n": integer(1, request.MAX_CHOICES),
        "temperature": number(0, 2),
        "top_p": number_above(0, 1),
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
        "stop": {"anyOf": [stop, list_of(stop, maxItems=sampling.MAX_STOPS)]},
        "stop_token_ids": list_of(token_id, maxItems=sampling.MAX_STOP_IDS),
        "ignore_eos": BOOLEAN,
        "logprobs": BOOLEAN,
        "top_logprobs": integer(0, 20),
        "tools": list_of(ref("Tool"), maxItems=request.MAX_TOOLS),
        "tool_choice": one_of("auto", "none"),
        "response_format": object_of(type=one_of("text")),
        "modalities": {"const": ["text"]},
        "audio": {"type": "null"},
        "web_search_options": {"type": "null"},
        "functions": {"type": "null"},
        "reasoning_effort": STRING,
        "enable_thinking": BOOLEAN,
        "chat_template_kwargs": {
            "type": "object",
            "propertyNames": {"not": {"enum": sorted(request.RESERVED_KWARGS)}},
        },
    }
    wanted = object_of(
        {name: nullable(schema) for name, schema in optional.items()},
        model={"type": "string", "minLength": 1, "maxLength": request.MAX_NAME_CHARACTERS},
        messages=list_of(ref("Message"), minItems=1, maxItems=request.MAX_MESSAGES),
    )
    scored = object_of(top_logprobs={"type": "integer", "minimum": 1})
    return wanted | {"if": scored, "then": object_of(logprobs={"const": True})}


# -- what a client gets -------------------------------------------------------------------------------


def answer_schemas() -> dict[str, Json]:
    token = {"token": STRING, "bytes": list_of(integer(0, 255)), "logprob": NUMBER}
    finish = one_of(*get_args(FinishReason))
    logprobs = object_of(content=list_of(ref("TokenLogprob")))
    return {
        "Error": object_of(error=ref("ErrorObject")),
        "ErrorObject": object_of(
            message=STRING,
            type=STRING,
            code=nullable(STRING),
            param=nullable(STRING),
            request_id=STRING,
        ),
        "ChatCompletion": object_of(
            id=STRING,
            object=one_of("chat.completion"),
            created=INTEGER,
            model=STRING,
            choices=list_of(ref("Choice")),
            usage=ref("Usage"),
        ),
        "Choice": object_of(
            {"logprobs": nullable(logprobs), "stop_reason": STRING},
            index=INTEGER,
            message=object_of(role=one_of("assistant"), content=STRING),
            finish_reason=finish,
        ),
        "ChatCompletionChunk": object_of(
            {"usage": ref("Usage")},
            id=STRING,
            object=one_of("chat.completion.chunk"),
            created=INTEGER,
            model=STRING,
            choices=list_of(
                object_of(
                    {"logprobs": logprobs, "stop_reason": STRING},
                    index=INTEGER,
                    delta=object_of({"role": one_of("assistant"), "content": STRING}),
                    finish_reason=nullable(finish),
                )
            ),
        ),
        "TokenLogprob": object_of(**token, top_logprobs=list_of(object_of(**token))),
        "Usage": object_of(
            prompt_tokens=INTEGER,
            completion_tokens=INTEGER,
            total_tokens=INTEGER,
            prompt_tokens_details=object_of(cached_tokens=INTEGER),
            completion_tokens_details=object_of(reasoning_tokens=INTEGER),
        ),
    }


# -- models ----------------------------------------------------------------------------------------


def model_schemas() -> dict[str, Json]:
    price = {"type": "number", "minimum": 0}
    status = one_of(*get_args(ModelStatus))
    abilities: dict[str, Json] = {
        "capabilities": list_of(STRING),
        "tool_call": BOOLEAN,
        "reasoning": BOOLEAN,
    }
    known: dict[str, Json] = {
        "limit": object_of(context=INTEGER, input=INTEGER, output=INTEGER),
        "limit_estimated": BOOLEAN,
        "cost": object_of({"cache_read": price, "cache_write": price}, input=price, output=price),
    }
    return {
        "ModelList": object_of(object=one_of("list"), data=list_of(ref("Model"))),
        "Model": object_of(
            {**known, "context_length": INTEGER},
            id=STRING,
            object=one_of("model"),
            created=INTEGER,
            owned_by=STRING,
            loaded=BOOLEAN,
            status=status,
            feasible_on=list_of(STRING),
            locations=list_of(object_of(node=STRING, status=status)),
            **abilities,
        ),
        "NodeModel": object_of(
            known,
            id=STRING,
            harness=STRING,
            status=status,
            devices=list_of(INTEGER),
            vram_used_mb=INTEGER,
            **abilities,
        ),
    }


# -- the node ----------------------------------------------------------------------------------------


def node_schemas() -> dict[str, Json]:
    reading = nullable(NUMBER)
    return {
        "Discovery": object_of(
            {
                "kernel": STRING,
                "driver_version": STRING,
                "cuda_version": STRING,
                "cuda_unavailable_reason": STRING,
            },
            hostname=STRING,
            os=STRING,
            devices=list_of(ref("Device")),
            harnesses=list_of(STRING),
            max_prompt_tokens=INTEGER,
        ),
        "Device": object_of(
            index=INTEGER,
            name=STRING,
            uuid=STRING,
            vram_total_mb=INTEGER,
            compute_capability=nullable(STRING),
        ),
        "NodeHealth": object_of(
            uptime_secs=NUMBER,
            devices=list_of(
                object_of(
                    index=INTEGER,
                    vram_used_mb=reading,
                    vram_free_mb=reading,
                    utilization_percent=reading,
                    temperature_c=reading,
                    power_w=reading,
                )
            ),
            activation=object_of(
                state=one_of("starting", "loading", "ready"),
                loading=list_of(STRING),
                pending=list_of(STRING),
                failed=list_of(STRING),
            ),
            models=list_of(object_of(id=STRING, in_flight=INTEGER, queue_depth=INTEGER)),
        ),
        "LoadRequest": object_of(
            {
                "harness": nullable(STRING),
                "quant": nullable(STRING),
                "tensor_parallel": nullable(integer(1, 64)),
                "devices": nullable(list_of(INTEGER)),
                "source": nullable(STRING),
            },
            model_id={"type": "string", "minLength": 1},
        ),
        "UnloadRequest": object_of(
            {"if_idle": nullable(BOOLEAN)}, model_id={"type": "string", "minLength": 1}
        ),
        "Endpoint": object_of(url=STRING),
    }
