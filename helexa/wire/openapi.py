"""The OpenAPI 3.1 description that each listener serves of itself at /openapi.json."""

from typing import Literal

from helexa import __version__
from helexa.conversation import Json
from helexa.wire.operations import generation, in_path, in_query, public, route
from helexa.wire.schemas import schemas
from helexa.wire.schemas.shapes import ANY_OBJECT, STRING, any_of, list_of, ref

Listener = Literal["gateway", "node"]

TITLES = {
    "gateway": "The API of a helexa fleet",
    "node": "One helexa node: its devices, its models, and their answers",
}
MODEL_ID = in_path("id", "The id of a model; it may hold slashes.")
RESPONSE_ID = in_path("id", "The id of a stored response.")
# What is passed on unread to nodes of kind `openai`.
PASSED_ON = {
    "/v1/embeddings": "Vectors of texts",
    "/v1/rerank": "Documents by their worth",
    "/rerank": "Documents by their worth",
    "/v1/audio/speech": "Text as speech",
    "/v1/audio/transcriptions": "Speech as text",
    "/v1/audio/translations": "Speech as English text",
    "/v1/images/generations": "A picture",
    "/v1/images/edits": "A picture, changed",
    "/v1/images/variations": "A picture, varied",
}
VERSION = {
    "name": "anthropic-version",
    "in": "header",
    "description": "Asks for Anthropic's shape.",
    "schema": STRING,
}


def description(listener: Listener) -> Json:
    own = gateway_paths() if listener == "gateway" else node_paths()
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLES[listener], "version": __version__},
        "paths": {
            **own,
            **openai_paths(),
            **responses_paths(),
            **messages_paths(),
            **models_paths(),
            "/openapi.json": {"get": route("This description.", ANY_OBJECT)},
        },
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": [{"key": []}, {"api-key": []}, {}],
    }


# -- what both listeners have -------------------------------------------------------------------------


def openai_paths() -> dict[str, Json]:
    return {
        "/v1/chat/completions": {
            "post": generation(
                "An answer to a conversation.", ref("ChatCompletion"), ref("ChatRequest")
            )
        },
        "/v1/completions": {
            "post": generation(
                "Texts, or token ids, gone on with.", ref("Completion"), ref("CompletionRequest")
            )
        },
    }


def responses_paths() -> dict[str, Json]:
    body, stored = ref("ResponseRequest"), [RESPONSE_ID]
    items = [
        RESPONSE_ID,
        in_query("order", "asc or desc, by default the latest first.", STRING),
        in_query("after", "The id of the item before the first one.", STRING),
        in_query("limit", "How many, at most 100.", STRING),
    ]
    return {
        "/v1/responses": {
            "post": generation("An answer as a list of items.", ref("Response"), body)
        },
        "/v1/responses/input_tokens": {
            "post": route("How long the prompt is.", ref("InputTokens"), body=body)
        },
        "/v1/responses/compact": {
            "post": route("A conversation, made short.", ref("Compaction"), body=body)
        },
        "/v1/responses/{id}": {
            "get": route("A stored response.", ref("Response"), parameters=stored),
            "delete": route("A response is forgotten.", ref("Deleted"), parameters=stored),
        },
        "/v1/responses/{id}/cancel": {
            "post": route(
                "Always refused: what is kept has ended.", ref("Response"), parameters=stored
            )
        },
        "/v1/responses/{id}/input_items": {
            "get": route("What a stored response answers.", ref("ItemList"), parameters=items)
        },
    }


def messages_paths() -> dict[str, Json]:
    error = "MessagesError"
    return {
        "/v1/messages": {
            "post": generation(
                "An answer as a list of blocks.",
                ref("MessagesAnswer"),
                ref("MessagesRequest"),
                error,
            )
        },
        "/v1/messages/count_tokens": {
            "post": route(
                "How long the prompt is.",
                ref("CountedTokens"),
                body=ref("CountRequest"),
                error=error,
            )
        },
    }


def models_paths() -> dict[str, Json]:
    lists = any_of(ref("ModelList"), ref("MessagesModelList"))
    entry = any_of(ref("Model"), ref("MessagesModel"))
    return {
        "/v1/models": {"get": route("The models that can be served.", lists, parameters=[VERSION])},
        "/v1/models/{id}": {
            "get": route("One model, by id or alias.", entry, parameters=[MODEL_ID, VERSION])
        },
    }


# -- what one of them has -----------------------------------------------------------------------------


def gateway_paths() -> dict[str, Json]:
    return {
        "/": {"get": public(route("What answers here.", ANY_OBJECT))},
        "/health": {"get": public(route("Whether the gateway is up.", ANY_OBJECT))},
        **{
            path: {
                "post": route(f"{what}, by an OpenAI-style server.", ANY_OBJECT, body=ANY_OBJECT)
            }
            for path, what in PASSED_ON.items()
        },
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
            "get": route("Where a model is served.", ref("Endpoint"), parameters=[MODEL_ID])
        },
        "/models/{id}/limit": {
            "get": route("What bounds a model's context.", ANY_OBJECT, parameters=[MODEL_ID])
        },
        "/models/{id}/entry": {
            "get": route(
                "What is known of a model whose files are here, loaded or not.",
                ref("NodeModel"),
                parameters=[MODEL_ID, in_query("source", "That of its files.", STRING)],
            )
        },
        "/logs": {
            "get": route(
                "The last log lines, or those from a number on.",
                ANY_OBJECT,
                parameters=[
                    in_query("lines", "How many.", STRING),
                    in_query("since", "The number of the first.", STRING),
                ],
            )
        },
        "/models/{id}/files": {
            "get": route(
                "The files of a model in this node's store, for other nodes.",
                ref("FileList"),
                parameters=[MODEL_ID],
            )
        },
        "/models/{id}/files/{file}": {"get": file_route()},
    }


def file_route() -> dict[str, Json]:
    file = in_path("file", "The name of one of its files.")
    described = route(
        "One of them, from the first byte of a Range.", {}, parameters=[MODEL_ID, file]
    )
    whole: Json = {"application/octet-stream": {"schema": {}}}
    described["responses"]["200"]["content"] = whole
    described["responses"]["206"] = {"description": "What is left of it.", "content": whole}
    return described
