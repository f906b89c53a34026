"""The Python SDKs of OpenAI and Anthropic, as people call them, against a real process."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from anthropic import Anthropic
from openai import OpenAI, OpenAIError
from process import Helexa
from pydantic import BaseModel
from watching import Watch, stream_held_open, wait_until

pytestmark = pytest.mark.real

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: Any = {"name": "get_weather", "description": "of a city", "parameters": SCHEMA}
SUNNY = "It is sunny in Paris."


class City(BaseModel):
    city: str
    people: int


PARIS = City(city="Paris", people=2100000)


def user(text: str) -> Any:
    return {"role": "user", "content": text}


@pytest.fixture
def openai(scripted: Helexa) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{scripted.url()}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic(scripted: Helexa) -> Iterator[Anthropic]:
    with Anthropic(base_url=scripted.url(), api_key="any", max_retries=0) as client:
        yield client


# -- OpenAI's --------------------------------------------------------------------------------------------


def test_openais_sdk_chats_and_parses(openai: OpenAI) -> None:
    tools: Any = [{"type": "function", "function": WEATHER | {"strict": True}}]
    asked: list[Any] = [user("Weather?")]
    with openai.chat.completions.stream(
        model="scripted", messages=asked, tools=tools, reasoning_effort="low"
    ) as stream:
        streamed = stream.get_final_completion().choices[0].message
    called = openai.chat.completions.create(model="scripted", messages=asked, tools=tools)
    (call,) = called.choices[0].message.tool_calls or ()
    (same,) = streamed.tool_calls or ()
    assert call.type == same.type == "function"
    assert (call.function.name, call.function.arguments) == ("get_weather", '{"city": "Paris"}')
    assert same.function.parsed_arguments == {"city": "Paris"}
    assert streamed.to_dict()["reasoning_content"] == "A tool knows that."
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    told = openai.chat.completions.create(
        model="scripted", messages=[*asked, called.choices[0].message, result], tools=tools
    )
    assert told.choices[0].message.content == SUNNY
    parsed = openai.chat.completions.parse(
        model="scripted", messages=[user("Paris as JSON")], response_format=City
    )
    assert parsed.choices[0].message.parsed == PARIS


def test_openais_sdk_gets_responses(openai: OpenAI) -> None:
    tools: Any = [{"type": "function", "strict": True, **WEATHER}]
    with openai.responses.stream(
        model="scripted", input="Weather?", tools=tools, reasoning={"effort": "low"}
    ) as stream:
        first = stream.get_final_response()
    items: Any = first.output
    thought, said, call = items
    assert (thought.type, said.type, call.type) == ("reasoning", "message", "function_call")
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    told = openai.responses.create(
        model="scripted", input=[result], tools=tools, previous_response_id=first.id
    )
    assert told.output_text == SUNNY
    assert openai.responses.retrieve(told.id).output_text == SUNNY
    parsed = openai.responses.parse(model="scripted", input="Paris as JSON", text_format=City)
    assert parsed.output_parsed == PARIS
    counted = openai.responses.input_tokens.count(model="scripted", input="Paris as JSON")
    assert parsed.usage is not None
    assert counted.input_tokens == parsed.usage.input_tokens


def test_openais_sdk_raises_what_breaks_off(openai: OpenAI, scripted: Helexa) -> None:
    with pytest.raises(OpenAIError, match="maximum context length is 4096 tokens"):
        openai.chat.completions.create(model="tiny", messages=[user("word " * 5000)])
    with pytest.raises(OpenAIError, match="no such model"):
        openai.responses.create(model="no such model", input="hi")
    Watch(scripted).settled()


# -- Anthropic's -----------------------------------------------------------------------------------------


def test_anthropics_sdk_gets_messages_and_counts(anthropic: Anthropic) -> None:
    tools: Any = [{"name": "get_weather", "description": "of a city", "input_schema": SCHEMA}]
    asked: list[Any] = [user("Weather?")]
    thinking: Any = {"type": "adaptive"}
    with anthropic.messages.stream(
        model="scripted", max_tokens=500, messages=asked, tools=tools, thinking=thinking
    ) as stream:
        called = stream.get_final_message()
    assert called.stop_reason == "tool_use"
    blocks: Any = called.content
    thought, said, call = blocks
    assert (thought.type, said.type, call.type) == ("thinking", "text", "tool_use")
    assert call.input == {"city": "Paris"}
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    asked += [
        {"role": "assistant", "content": called.content},
        {"role": "user", "content": [result]},
    ]
    counted = anthropic.messages.count_tokens(model="scripted", messages=asked, tools=tools)
    told = anthropic.messages.create(model="scripted", max_tokens=500, messages=asked, tools=tools)
    assert told.content[0].type == "text"
    assert told.content[0].text == SUNNY
    usage = told.usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


# -- both ------------------------------------------------------------------------------------------------


def ask_openai(url: str) -> None:
    with OpenAI(base_url=f"{url}/v1", api_key="any") as client:
        client.chat.completions.create(model="scripted", messages=[user("hi")])


def ask_anthropic(url: str) -> None:
    with Anthropic(base_url=url, api_key="any") as client:
        client.messages.create(model="scripted", max_tokens=9, messages=[user("hi")])


@pytest.mark.parametrize("ask", [ask_openai, ask_anthropic])
def test_an_sdk_comes_back_when_there_is_room_again(
    crowded: Helexa, ask: Callable[[str], None]
) -> None:
    watch = Watch(crowded)
    with stream_held_open(crowded) as end:
        asking = threading.Thread(target=ask, args=(crowded.url(),))
        asking.start()
        wait_until(lambda: "rate_limit_exceeded" in watch.outcomes)
        end()
        asking.join()
    assert watch.outcomes == ["rate_limit_exceeded", "client_left", "stop"]
