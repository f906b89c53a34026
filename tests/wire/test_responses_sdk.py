"""OpenAI's own client reads what is written: whole answers, streams, and parsed ones."""

from collections.abc import Callable

import httpx2
import openai
import orjson
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter
from responses_grammar import read_events

from helexa.conversation import (
    ChoiceFinished,
    Event,
    Finished,
    Progress,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from helexa.responses import Responses
from helexa.wire.answer import Collector
from helexa.wire.exchange import Exchange, Reply
from helexa.wire.fields import parse_json
from helexa.wire.openai_responses import (
    read_compaction,
    read_request,
    write_count,
    write_deleted,
    write_input_items,
)

REPLY = Reply("req_AbC123", "m", 1_700_000_000)
USAGE = Finished(Usage(9, 5, 2, 1))
SAYS = [Progress("queued", 1, 2), Started(9), TextDelta(0, "Hel"), TextDelta(0, "lo")]
HELLO = [*SAYS, ChoiceFinished(0, "stop"), USAGE]
CALLS = [
    Started(9),
    ReasoningDelta(0, "hm"),
    TextDelta(0, "Let me look."),
    ToolCallStarted(0, 0, "call_1", "get_weather"),
    ToolCallDelta(0, 0, '{"city":'),
    ToolCallDelta(0, 0, '"Bern"}'),
    ChoiceFinished(0, "tool_calls"),
    USAGE,
]
PATCHES: list[Event] = [
    ReasoningDelta(0, "hm"),
    ToolCallStarted(0, 0, "call_1", "apply_patch"),
    ToolCallDelta(0, 0, '{"input": "*** Begin'),
    ToolCallDelta(0, 0, '\\n"}'),
    ToolCallStarted(0, 1, "call_2", "agents__wait"),
    ToolCallDelta(0, 1, "{}"),
    ChoiceFinished(0, "length"),
    USAGE,
]
CITY = [Started(9), TextDelta(0, '{"name":"Bern",'), Progress("decode"), TextDelta(0, '"size":1}')]
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}

TOOLS = [
    WEATHER,
    {"type": "custom", "name": "apply_patch"},
    {
        "type": "namespace",
        "name": "agents",
        "description": "Other agents.",
        "tools": [{"type": "function", "name": "wait"}],
    },
]


class City(BaseModel):
    name: str
    size: int


def whole(exchange: Exchange, events: list[Event]) -> bytes:
    collector = Collector()
    for event in events:
        collector.add(event)
    assert collector.answer is not None
    return exchange.whole(collector.answer, REPLY)


class Server:
    """Answers every request with the same events."""

    def __init__(self, events: list[Event]) -> None:
        self.events = events
        self.past = Responses().of("me", lambda: 0.0)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        match (request.method, request.url.path.split("/")[3:]):
            case ("POST", []):
                return self.answer(read_request(parse_json(request.content), self.past))
            case ("POST", ["compact"]):
                return self.answer(read_compaction(parse_json(request.content), self.past))
            case ("POST", ["input_tokens"]):
                return json_of(write_count(7))
            case ("GET", [name]):
                return json_of(self.past.find(name).response)
            case ("DELETE", [name]):
                self.past.forget(name)
                return json_of(write_deleted(name))
            case ("GET", [name, "input_items"]):
                return json_of(write_input_items(self.past.find(name), **dict(request.url.params)))
            case _:
                raise AssertionError(request.url)

    def answer(self, exchange: Exchange) -> httpx2.Response:
        if not exchange.stream:
            return json_of(whole(exchange, self.events))
        writer = exchange.writer(REPLY)
        stream = b"".join(map(writer.write, self.events))
        return httpx2.Response(200, content=stream, headers={"content-type": "text/event-stream"})


def json_of(body: bytes) -> httpx2.Response:
    return httpx2.Response(200, content=body, headers={"content-type": "application/json"})


Connect = Callable[[list[Event]], openai.OpenAI]


@pytest.fixture
def connect() -> Connect:
    def to(events: list[Event]) -> openai.OpenAI:
        http = httpx2.Client(transport=httpx2.MockTransport(Server(events)))
        return openai.OpenAI(
            api_key="k", base_url="http://helexa/v1", http_client=http, max_retries=0
        )

    return to


def test_a_whole_answer(connect: Connect) -> None:
    response = connect(HELLO).responses.create(model="m", input="hi")
    assert response.output_text == "Hello"
    assert response.status == "completed"
    assert response.usage is not None
    assert response.usage.input_tokens_details.cached_tokens == 2


@pytest.mark.parametrize("events", [HELLO, CALLS, PATCHES], ids=["text", "calls", "custom"])
@pytest.mark.parametrize("summary", [None, "auto"])
def test_whole_answers_and_events_are_valid_by_the_clients_own_types(
    events: list[Event], summary: str | None
) -> None:
    asked = {"reasoning": {"summary": summary}, "include": ["reasoning.encrypted_content"]}
    exchange = read_request({"model": "m", "input": "hi", "tools": TOOLS, **asked})
    Response.model_validate_json(whole(exchange, events))
    writer = exchange.writer(REPLY)
    adapter: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
    for event in read_events(b"".join(map(writer.write, events))):
        adapter.validate_python(event)


def test_a_stream(connect: Connect) -> None:
    with connect(HELLO).responses.stream(model="m", input="hi") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert deltas == ["Hel", "lo"]
    assert final.output_text == "Hello"


def test_a_stream_of_tool_calls(connect: Connect) -> None:
    client = connect(CALLS)
    with client.responses.stream(model="m", input="hi", tools=[WEATHER]) as stream:  # type: ignore[list-item]
        final = stream.get_final_response()
    kinds = [item.type for item in final.output]
    assert kinds == ["reasoning", "message", "function_call"]
    call = final.output[2]
    assert call.type == "function_call"
    assert (call.name, call.call_id, call.arguments) == ("get_weather", "call_1", '{"city":"Bern"}')


def test_a_parsed_answer(connect: Connect) -> None:
    client = connect([*CITY, ChoiceFinished(0, "stop"), USAGE])
    response = client.responses.parse(model="m", input="hi", text_format=City)
    assert response.output_parsed == City(name="Bern", size=1)
    with client.responses.stream(model="m", input="hi", text_format=City) as stream:
        assert stream.get_final_response().output_parsed == City(name="Bern", size=1)


def test_a_conversation_that_goes_on(connect: Connect) -> None:
    client = connect(HELLO)
    first = client.responses.create(model="m", input="hi")
    again = client.responses.create(model="m", input="more", previous_response_id=first.id)
    assert again.previous_response_id == first.id
    assert client.responses.retrieve(first.id).output_text == "Hello"
    listed = [item.type for item in client.responses.input_items.list(again.id)]
    assert listed == ["message"] * 3  # what was asked, answered, and asked again
    client.responses.delete(first.id)


def test_tokens_are_counted(connect: Connect) -> None:
    assert connect(HELLO).responses.input_tokens.count(model="m", input="hi").input_tokens == 7


def test_a_conversation_is_made_short(connect: Connect) -> None:
    client = connect(HELLO)
    short = client.responses.with_raw_response.compact(model="m", input="a long story")
    assert [item.type for item in short.parse().output] == ["message", "compaction"]
    items = orjson.loads(short.content)["output"]
    assert client.responses.create(model="m", input=items).output_text == "Hello"
