"""The description that the listeners serve of themselves says what the code does."""

import json
from collections.abc import Callable

import jsonschema_rs
import orjson
import pytest
import schemathesis
from chat_strategies import answers, conversations
from hypothesis import HealthCheck, given, settings
from test_model_lists import LOADED, UNKNOWN

from helexa.conversation import Conversation, Event, Finished, Json
from helexa.errors import ContextLengthExceeded, InvalidRequest
from helexa.wire import anthropic, openai_chat, openai_completions, openai_responses
from helexa.wire.answer import Answer, Collector
from helexa.wire.envelope import status_and_body
from helexa.wire.exchange import Exchange, Reply
from helexa.wire.fields import parse_json
from helexa.wire.models import write_list, write_named, write_node_entry
from helexa.wire.openai_chat import write_request
from helexa.wire.openapi import PASSED_ON, description

GATEWAY = schemathesis.openapi.from_dict(description("gateway"))
INFERENCE = {
    "POST /v1/chat/completions",
    "POST /v1/completions",
    "POST /v1/responses",
    "POST /v1/responses/input_tokens",
    "POST /v1/responses/compact",
    "GET /v1/responses/{id}",
    "DELETE /v1/responses/{id}",
    "GET /v1/responses/{id}/input_items",
    "POST /v1/responses/{id}/cancel",
    "POST /v1/messages",
    "POST /v1/messages/count_tokens",
    "GET /v1/models",
    "GET /v1/models/{id}",
    "GET /openapi.json",
}
ROUTES = {
    "gateway": INFERENCE | {"GET /", "GET /health"} | {f"POST {path}" for path in PASSED_ON},
    "node": INFERENCE
    | {
        "GET /discovery",
        "GET /health",
        "GET /version",
        "GET /models",
        "POST /models/load",
        "POST /models/unload",
        "GET /models/{id}/endpoint",
        "GET /models/{id}/files",
        "GET /models/{id}/files/{file}",
        "GET /models/{id}/limit",
        "GET /models/{id}/entry",
        "GET /logs",
    },
}
REPLY = Reply("req_1", "m", 1)
READERS: dict[str, Callable[[Json], Exchange]] = {
    "/v1/chat/completions": openai_chat.read_request,
    "/v1/completions": openai_completions.read_request,
    "/v1/responses": openai_responses.read_request,
    "/v1/messages": anthropic.read_request,
    "/v1/messages/count_tokens": anthropic.read_request,
}
# What no schema can say: how one part of a request depends on another.
BETWEEN_FIELDS = (
    "no tool is offered",
    "of the tools of the request",
    "of a tool that is offered",
    "must not be set together with",
    "`input` is required",
)


def valid(name: str, value: Json) -> bool:
    """Whether a value has the described shape `name`."""
    components = {"components": description("gateway")["components"]}
    schema = {"$ref": f"#/components/schemas/{name}"} | components
    return jsonschema_rs.Draft202012Validator(schema).is_valid(value)


def is_possible(events: list[Event]) -> bool:
    usage = next(event.usage for event in events if isinstance(event, Finished))
    return usage.cached_tokens <= usage.prompt_tokens


def collected(events: list[Event]) -> Answer:
    collector = Collector()
    for event in events:
        collector.add(event)
    assert collector.answer is not None
    return collector.answer


def refusal_of(read: Callable[[Json], Exchange], body: Json) -> str | None:
    try:
        read(body)
    except InvalidRequest as refused:
        return refused.message
    return None


@pytest.mark.parametrize("listener", ["gateway", "node"])
def test_each_listener_describes_its_routes(listener: str) -> None:
    paths = description(listener)["paths"]
    found = {f"{verb.upper()} {path}" for path, verbs in paths.items() for verb in verbs}
    assert found == ROUTES[listener]


@pytest.mark.parametrize("listener", ["gateway", "node"])
def test_every_reference_leads_somewhere(listener: str) -> None:
    whole = description(listener)
    schemas = whole["components"]["schemas"]
    for part in orjson.dumps(whole).decode().split('"#/components/schemas/')[1:]:
        assert part.split('"')[0] in schemas
    for schema in schemas.values():
        jsonschema_rs.Draft202012Validator(schema | {"components": whole["components"]})


@pytest.mark.parametrize("path", READERS)
def test_every_request_that_the_description_allows_is_read(path: str) -> None:
    @settings(max_examples=50, suppress_health_check=list(HealthCheck))
    @given(GATEWAY[path]["POST"].as_strategy())
    def check(case: schemathesis.Case) -> None:
        refusal = refusal_of(READERS[path], parse_json(json.dumps(case.body).encode()))
        assert refusal is None or any(reason in refusal for reason in BETWEEN_FIELDS), refusal

    check()


@given(conversations)
def test_every_request_of_ours_is_allowed_by_the_description(conversation: Conversation) -> None:
    assert valid("ChatRequest", write_request(conversation, stream=True))


@given(answers())
def test_every_chat_answer_has_the_described_shape(events: list[Event]) -> None:
    exchange = openai_chat.read_request({"model": "m", "messages": [{"role": "user"}]})
    assert valid("ChatCompletion", orjson.loads(exchange.whole(collected(events), REPLY)))
    writer = exchange.writer(REPLY)
    stream = b"".join(map(writer.write, events))
    for frame in stream.split(b"\n\n"):
        if frame.startswith(b"data: {"):
            assert valid("ChatCompletionChunk", orjson.loads(frame.removeprefix(b"data: ")))


@pytest.mark.parametrize(
    ("path", "name", "body"),
    [
        ("/v1/completions", "Completion", {"prompt": "hi", "logprobs": 2}),
        ("/v1/responses", "Response", {"input": "hi"}),
        ("/v1/messages", "MessagesAnswer", {"messages": [{"role": "user", "content": "hi"}]}),
    ],
)
def test_every_answer_has_the_described_shape(path: str, name: str, body: Json) -> None:
    exchange = READERS[path]({"model": "m"} | body)

    @settings(max_examples=30)
    @given(answers().filter(is_possible))
    def check(events: list[Event]) -> None:
        assert valid(name, orjson.loads(exchange.whole(collected(events), REPLY)))

    check()


def test_every_list_of_models_has_the_described_shape() -> None:
    entries = [LOADED, UNKNOWN]
    assert valid("ModelList", write_list(entries))
    assert valid("MessagesModelList", write_list(entries, "anthropic"))
    assert valid("Model", write_named(LOADED.id, entries))
    assert valid("MessagesModel", write_named(LOADED.id, entries, "anthropic"))
    assert all(valid("NodeModel", write_node_entry(entry)) for entry in entries)


def test_an_error_has_the_described_shape() -> None:
    error = ContextLengthExceeded("too long", max=3)
    assert valid("Error", orjson.loads(status_and_body(error, "req_1")[2]))
    assert valid("MessagesError", orjson.loads(status_and_body(error, "req_1", "anthropic")[2]))
