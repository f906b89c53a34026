"""The OpenAPI 3.1 description that each listener serves of itself at /openapi.json."""

from typing import Literal

from helexa import __version__
from helexa.conversation import Json
from helexa.wire.schemas import ANY_OBJECT, list_of, ref, schemas

Listener = Literal["gateway", "node"]

ERRORS = {
    "400": "The request cannot be served as it stands; `param` names the field.",
    "401": "The key is missing or unknown.",
    "403": "The door is closed: a foreign Host or Origin.",
    "404": "There is no such path or model.",
    "415": "The body must be application/json, without a content encoding.",
    "429": "The account's share is used up for now.",
    "502": "Another server failed.",
    "503": "Busy, loading or short of memory; `Retry-After` says when to ask again.",
}
TITLES = {
    "gateway": "The API of a helexa fleet",
    "node": "One helexa node: its devices, its models, and their answers",
}


def description(listener: Listener) -> Json:
    own = gateway_paths() if listener == "gateway" else node_paths()
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLES[listener], "version": __version__},
        "paths": {**own, **shared_paths()},
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def shared_paths() -> dict[str, Json]:
    return {
        "/v1/chat/completions": {"post": chat()},
        "/v1/models": {"get": route("The models that can be served.", ref("ModelList"))},
        "/v1/models/{id}": {
            "get": route("One model, by id or alias.", ref("Model"), parameters=[model_id()])
        },
        "/openapi.json": {"get": route("This description.", ANY_OBJECT)},
    }


def gateway_paths() -> dict[str, Json]:
    return {
        "/": {"get": public(route("What answers here.", ANY_OBJECT))},
        "/health": {"get": public(route("Whether the gateway is up.", ANY_OBJECT))},
    }


def node_paths() -> dict[str, Json]:
    return {
        "/discovery": {"get": route("This host and its devices.", ref("Discovery"))},
        "/health": {
            "get": public(route("How it goes, and the load of each model.", ref("NodeHealth")))
        },
        "/version": {"get": route("The build that runs.", ANY_OBJECT)},
        "/models": {"get": route("The models of this node.", list_of(ref("NodeModel")))},
        "/models/load": {
            "post": route(
                "Load a model; answers once it is loaded, and joins a load in progress.",
                ref("NodeModel"),
                body=ref("LoadRequest"),
            )
        },
        "/models/unload": {
            "post": route(
                "Free a model; with `if_idle` only if nobody needs it (409 else).",
                ANY_OBJECT,
                body=ref("UnloadRequest"),
            )
        },
        "/models/{id}/endpoint": {
            "get": route("Where a model is served.", ref("Endpoint"), parameters=[model_id()])
        },
    }


def chat() -> Json:
    described = route(
        "An answer to a conversation, whole or as a stream of events.",
        ref("ChatCompletion"),
        body=ref("ChatRequest"),
    )
    described["responses"]["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    described["responses"]["422"] = failure("The model's chat template cannot render these tools.")
    return described


def route(
    summary: str, answer: Json, *, body: Json = None, parameters: list[Json] | None = None
) -> dict[str, Json]:
    success = {"description": "As asked.", "content": json_content(answer)}
    described: dict[str, Json] = {
        "summary": summary,
        "responses": {
            "200": success,
            **{status: failure(text) for status, text in ERRORS.items()},
            "default": failure("Any other error."),
        },
    }
    if body is not None:
        described["requestBody"] = {"required": True, "content": json_content(body)}
    if parameters is not None:
        described["parameters"] = parameters
    return described


def public(described: dict[str, Json]) -> Json:
    """A route that never asks for a key."""
    return described | {"security": [{}]}


def failure(text: str) -> Json:
    return {"description": text, "content": json_content(ref("Error"))}


def json_content(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def model_id() -> Json:
    text = "The id of a model; it may hold slashes."
    schema = {"type": "string", "minLength": 1}
    return {"name": "id", "in": "path", "required": True, "description": text, "schema": schema}
