"""The words that the OpenAPI description of a route is written in."""

from helexa.conversation import Json
from helexa.wire.schemas.shapes import ref

ERRORS = {
    "400": "The request cannot be served as it stands; `param` names the field.",
    "401": "The key is missing or unknown.",
    "403": "The door is closed: a foreign Host or Origin.",
    "404": "There is no such path, model or response.",
    "405": "The path is there, but not for this method.",
    "408": "The body stopped coming.",
    "415": "The body must be application/json, without a content encoding.",
    "429": "The account's share is used up for now.",
    "502": "Another server failed.",
    "503": "Busy, loading or short of memory; `Retry-After` says when to ask again.",
}


def route(
    summary: str,
    answer: Json,
    *,
    body: Json = None,
    parameters: list[Json] | None = None,
    error: str = "Error",
) -> dict[str, Json]:
    """One method of a path; `error` names the shape of its refusals."""
    success = {"description": "As asked.", "content": json_content(answer)}
    described: dict[str, Json] = {
        "summary": summary,
        "responses": {
            "200": success,
            **{status: failure(text, error) for status, text in ERRORS.items()},
            "default": failure("Any other error.", error),
        },
    }
    if body is not None:
        described["requestBody"] = {"required": True, "content": json_content(body)}
    if parameters is not None:
        described["parameters"] = parameters
    return described


def generation(summary: str, answer: Json, body: Json, error: str = "Error") -> dict[str, Json]:
    """A route that answers a conversation, whole or as a stream."""
    described = route(summary, answer, body=body, error=error)
    described["responses"]["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    text = "The model's chat template cannot render this conversation."
    described["responses"]["422"] = failure(text, error)
    return described


def public(described: dict[str, Json]) -> Json:
    """A route that never asks for a key."""
    return described | {"security": [{}]}


def failure(text: str, error: str) -> Json:
    return {"description": text, "content": json_content(ref(error))}


def json_content(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def in_path(name: str, text: str) -> Json:
    schema = {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "description": text, "schema": schema}


def in_query(name: str, text: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": text, "schema": schema}
