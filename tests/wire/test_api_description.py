import json

import jsonschema_rs
import orjson
import pytest
import schemathesis
from chat_strategies import answers, conversations
from hypothesis import given, settings
from test_model_lists import LOADED, UNKNOWN

from helexa.conversation import Conversation, Event, Json
from helexa.errors import ContextLengthExceeded
from helexa.wire.answer import Collector
from helexa.wire.envelope import status_and_body
from helexa.wire.fields import parse_json
from helexa.wire.models import write_list, write_node_entry
from helexa.wire.openai_chat import StreamWriter, read_request, write_answer, write_request
from helexa.wire.openapi import description

GATEWAY = schemathesis.openapi.from_dict(description("gateway"))
CHAT = GATEWAY["/v1/chat/completions"]["POST"]

ROUTES = {
    "gateway": {
        "GET /",
        "GET /health",
        "GET /v1/models",
        "GET /v1/models/{id}",
        "POST /v1/chat/completions",
        "GET /openapi.json",
    },
    "node": {
        "GET /discovery",
        "GET /health",
        "GET /version",
        "GET /models",
        "POST /models/load",
        "POST /models/unload",
        "GET /models/{id}/endpoint",
        "GET /v1/models",
        "GET /v1/models/{id}",
        "POST /v1/chat/completions",
        "GET /openapi.json",
    },
}


def valid(name: str, value: Json) -> bool:
    """Whether a value has the described shape `name`."""
    components = {"components": description("gateway")["components"]}
    schema = {"$ref": f"#/components/schemas/{name}"} | components
    return jsonschema_rs.Draft202012Validator(schema).is_valid(value)


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


@settings(max_examples=30)
@given(CHAT.as_strategy())
def test_every_request_that_the_description_allows_is_read(case: schemathesis.Case) -> None:
    read_request(parse_json(json.dumps(case.body).encode()))


@given(conversations.filter(lambda found: "image_url" not in str(write_request(found))))
def test_every_request_of_ours_is_allowed_by_the_description(conversation: Conversation) -> None:
    assert valid("ChatRequest", write_request(conversation, stream=True))


@given(answers())
def test_every_answer_has_the_described_shape(events: list[Event]) -> None:
    collector, writer, stream = Collector(), StreamWriter("chatcmpl-1", "m", 1), b""
    for event in events:
        collector.add(event)
        stream += writer.write(event)
    completion = write_answer(collector.answer, id="chatcmpl-1", model="m", created=1)
    assert valid("ChatCompletion", orjson.loads(completion))
    frames = [line for line in stream.split(b"\n\n") if line.startswith(b"data: {")]
    for frame in frames:
        assert valid("ChatCompletionChunk", orjson.loads(frame.removeprefix(b"data: ")))


def test_every_list_of_models_has_the_described_shape() -> None:
    assert valid("ModelList", write_list([LOADED, UNKNOWN]))
    assert all(valid("NodeModel", write_node_entry(entry)) for entry in (LOADED, UNKNOWN))


def test_an_error_has_the_described_shape() -> None:
    _, _, body = status_and_body(ContextLengthExceeded("too long", max=3), "req_1")
    assert valid("Error", orjson.loads(body))
