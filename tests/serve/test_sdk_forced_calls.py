"""A call of get_weather(city) that is demanded of the demo model: it parses and is valid every time."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import openai
import pytest
from process import AT_REST, MODEL, Helexa
from script_models import PARAMETERS

pytestmark = pytest.mark.real

# Hot enough that the model alone would write no JSON, and too short for all that it would call.
NAME, TEMPERATURE, MAX_TOKENS = "get_weather", 1.3, 64
QUESTION: list[Any] = [{"role": "user", "content": "How is the weather in Oslo?"}]
FUNCTION: Any = {"name": NAME, "description": "The weather.", "parameters": PARAMETERS}
SEEDS, AT_ONCE = 6, 6

Called = list[tuple[str, dict[str, Any]]]  # what is called, with which arguments


def chat(served: Helexa, choice: Any, seed: int) -> Called:
    with openai.OpenAI(base_url=served.url() + "/v1", api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(
            model=MODEL,
            messages=QUESTION,
            tools=[{"type": "function", "function": FUNCTION}],
            tool_choice=choice,
            temperature=TEMPERATURE,
            max_tokens=MAX_TOKENS,
            seed=seed,
        )
    assert answer.choices[0].finish_reason in ("tool_calls", "length")
    functions: list[Any] = [
        getattr(call, "function", None) for call in answer.choices[0].message.tool_calls or ()
    ]
    return [(each.name, json.loads(each.arguments)) for each in functions]


def responses(served: Helexa, choice: Any, seed: int) -> Called:
    tool: Any = {"type": "function", **FUNCTION}
    with (
        openai.OpenAI(base_url=served.url() + "/v1", api_key="none", max_retries=0) as client,
        client.responses.stream(
            model=MODEL,
            input=QUESTION,
            tools=[tool],
            tool_choice=choice,
            temperature=TEMPERATURE,
            max_output_tokens=MAX_TOKENS,
            extra_body={"seed": seed},
        ) as stream,
    ):
        # `get_final_response` knows no answer that was cut.
        ends = ("response.completed", "response.incomplete")
        done: Any = next(event for event in stream if event.type in ends)
        done = done.response
    assert done.status in ("completed", "incomplete")
    calls = [item for item in done.output if item.type == "function_call"]
    assert len(calls) == len(done.output)
    return [(each.name, json.loads(each.arguments)) for each in calls]


def messages(served: Helexa, choice: Any, seed: int) -> Called:
    with (
        anthropic.Anthropic(base_url=served.url(), api_key="none", max_retries=0) as client,
        client.messages.stream(
            model=MODEL,
            messages=QUESTION,
            max_tokens=MAX_TOKENS,
            tools=[{"name": NAME, "description": "The weather.", "input_schema": PARAMETERS}],
            tool_choice=choice,
            extra_body={"seed": seed, "temperature": TEMPERATURE},
        ) as stream,
    ):
        done = stream.get_final_message()
    assert done.stop_reason in ("tool_use", "max_tokens")
    blocks: list[Any] = list(done.content)
    assert {block.type for block in blocks} == {"tool_use"}
    return [(each.name, each.input) for each in blocks]


# In each dialect: a call of this tool, and a call of any tool, or more than one.
FORMS: list[tuple[Callable[[Helexa, Any, int], Called], Any]] = [
    (chat, {"type": "function", "function": {"name": NAME}}),
    (chat, "required"),
    (responses, {"type": "function", "name": NAME}),
    (responses, "required"),
    (messages, {"type": "tool", "name": NAME}),
    (messages, {"type": "any", "disable_parallel_tool_use": True}),
]


def test_every_call_parses_and_is_valid(served: Helexa) -> None:
    def one(seed: int) -> Called:
        ask, choice = FORMS[seed % len(FORMS)]
        return ask(served, choice, seed)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(one, range(SEEDS)))
    for answer in answers:
        assert answer  # there is a call
        for name, arguments in answer:
            assert name == NAME
            assert set(arguments) == {"city"}
            assert isinstance(arguments["city"], str)
    assert served.status["open"] == AT_REST
