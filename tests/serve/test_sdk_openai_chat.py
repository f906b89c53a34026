"""OpenAI's Python SDK on chat completions and completions: its helpers, tools and forms of answers."""

import json
import re
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from process import AT_REST, MODEL, PARIS, Helexa
from pydantic import BaseModel, Field
from script_models import CITY, LOOK, PARAMETERS, SAID, SUNNY, THOUGHT

pytestmark = pytest.mark.real

Client = Any  # the SDK's own types know only arguments that are written out
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}


class Town(BaseModel):
    name: str = Field(max_length=12)
    kind: Literal["port", "capital", "village"]
    inhabitants: int = Field(ge=0, le=9_999_999)
    by_the_sea: bool
    rivers: list[Literal["Tejo", "Douro", "Minho"]] = Field(max_length=2)


class GetWeather(BaseModel):
    """The weather of a town."""

    town: Literal["Lisbon", "Oslo", "Rome"]
    days: int = Field(ge=1, le=7)


@pytest.fixture(scope="module")
def demo(served: Helexa) -> Iterator[Client]:
    with openai.OpenAI(base_url=served.url() + "/v1", api_key="none", max_retries=0) as sdk:
        yield sdk


@pytest.fixture(scope="module")
def client(scripts: Helexa) -> Iterator[Client]:
    with openai.OpenAI(base_url=scripts.url() + "/v1", api_key="none", max_retries=0) as sdk:
        yield sdk


def user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


# -- tools ---------------------------------------------------------------------------------------------


def test_a_tool_loop_runs_to_its_end(client: Client) -> None:
    said = user("Look at both cities.")
    asked = {"model": "scripted", "tools": [WEATHER]}
    choice = client.chat.completions.create(messages=said, **asked).choices[0]
    calls = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls"
    assert [json.loads(call.function.arguments)["city"] for call in calls] == ["Paris", "Rome"]
    assert len({call.id for call in calls}) == 2
    said.append(choice.message.model_dump(exclude_none=True))
    for call in calls:
        said.append({"role": "tool", "tool_call_id": call.id, "content": "sunny in " + call.id})
    choice = client.chat.completions.create(messages=said, **asked).choices[0]
    assert (choice.message.content, choice.finish_reason) == (SUNNY, "stop")


def test_the_stream_helper_tells_thoughts_text_and_a_call_apart(client: Client) -> None:
    with client.chat.completions.stream(
        model="scripted",
        messages=user("think and call"),
        tools=[WEATHER],
        reasoning_effort="high",
        stream_options={"include_usage": True},
    ) as stream:
        events = list(stream)
        done = stream.get_final_completion()
    message = done.choices[0].message
    (call,) = message.tool_calls
    assert message.content.strip() == LOOK
    assert json.loads(call.function.arguments) == {"city": CITY, "days": [1, 2.5, None]}
    pieces = [e.arguments_delta for e in events if e.type == "tool_calls.function.arguments.delta"]
    assert len(pieces) > 3
    assert "".join(pieces) == call.function.arguments
    deltas = [e.chunk.choices[0].delta for e in events if e.type == "chunk" and e.chunk.choices]
    thought = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert thought.strip() == THOUGHT
    assert {call.index for delta in deltas for call in delta.tool_calls or ()} == {0}
    assert done.usage.completion_tokens_details.reasoning_tokens > 4


def test_what_is_thought_is_hidden_from_who_does_not_ask(client: Client) -> None:
    answer = client.chat.completions.create(model="scripted", messages=user("think and call"))
    message = answer.choices[0].message
    assert message.content.startswith(LOOK)
    assert "<tool_call>" in message.content  # no tools were offered: it is text
    assert getattr(message, "reasoning_content", None) is None
    assert THOUGHT not in answer.model_dump_json()


def test_the_tool_of_a_pydantic_class_is_called_with_arguments_that_fit_it(demo: Client) -> None:
    answer = demo.chat.completions.parse(
        model=MODEL,
        messages=user("How is the weather in Rome this week?"),
        tools=[openai.pydantic_function_tool(GetWeather)],
        tool_choice="required",
        parallel_tool_calls=False,
        temperature=1.3,
        seed=1,
        n=2,
    )
    assert len(answer.choices) == 2
    for choice in answer.choices:
        (call,) = choice.message.tool_calls
        assert isinstance(call.function.parsed_arguments, GetWeather)
        assert choice.finish_reason == "tool_calls"


# -- the form of an answer -----------------------------------------------------------------------------


def test_a_pydantic_class_is_filled_in_every_time(demo: Client) -> None:
    answer = demo.chat.completions.parse(
        model=MODEL,
        messages=user("Tell me of a town in Portugal, as JSON."),
        response_format=Town,
        temperature=1.3,
        seed=2,
        n=2,
    )
    assert len({choice.message.content for choice in answer.choices}) > 1
    for choice in answer.choices:
        assert isinstance(choice.message.parsed, Town)
        assert choice.finish_reason == "stop"


def test_a_pydantic_class_is_filled_in_by_a_stream_with_its_scores(demo: Client) -> None:
    with demo.chat.completions.stream(
        model=MODEL, messages=user("A town, as JSON."), response_format=Town, logprobs=True
    ) as stream:
        kinds = {event.type for event in stream}
        message = stream.get_final_completion().choices[0].message
    assert isinstance(message.parsed, Town)
    assert {"content.delta", "content.done", "logprobs.content.done"} <= kinds


def test_any_json_object_and_a_pattern_are_kept_to(demo: Client) -> None:
    asked = {"model": MODEL, "temperature": 1.0, "seed": 3, "max_tokens": 48, "n": 4}
    answer = demo.chat.completions.create(
        messages=user('Answer {"colour": "red"} or {"colour": "blue"}.'),
        response_format={"type": "json_object"},
        **asked,
    )
    complete = [choice for choice in answer.choices if choice.finish_reason == "stop"]
    assert complete
    assert all(isinstance(json.loads(choice.message.content), dict) for choice in complete)
    assert all(choice.message.content.startswith("{") for choice in answer.choices)
    pattern = r"(19|20)\d\d-[01]\d"
    answer = demo.chat.completions.create(
        messages=user("A month?"), extra_body={"guided_regex": pattern}, **asked
    )
    assert all(re.fullmatch(pattern, choice.message.content) for choice in answer.choices)


def test_a_schema_that_cannot_be_enforced_is_a_bad_request_that_names_the_keyword(
    demo: Client,
) -> None:
    schema = {"type": "object", "propertyNames": {"pattern": "^x"}, "not": {"required": ["y"]}}
    with pytest.raises(openai.BadRequestError, match=r"propertyNames|not") as refused:
        demo.chat.completions.create(
            model=MODEL,
            messages=PARIS,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "x", "strict": True, "schema": schema},
            },
        )
    assert refused.value.param.startswith("response_format")


# -- completions ---------------------------------------------------------------------------------------


def test_a_completion_repeats_its_prompt_with_scores(demo: Client) -> None:
    prompt = "The capital of France is"
    asked = {"model": MODEL, "prompt": prompt, "max_tokens": 2, "temperature": 0}
    whole = demo.completions.create(**asked, echo=True, logprobs=2).choices[0]
    assert whole.text.startswith(prompt + " Paris")
    scores = whole.logprobs
    assert "".join(scores.tokens) == whole.text
    assert scores.token_logprobs[0] is None
    assert all(score <= 0 for score in scores.token_logprobs[1:])
    assert scores.text_offset == [
        len("".join(scores.tokens[:at])) for at in range(len(scores.tokens))
    ]
    assert all(2 <= len(tops) <= 3 for tops in scores.top_logprobs[1:])
    chunks = list(demo.completions.create(**asked, echo=True, logprobs=2, stream=True))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole.text
    told = [c.choices[0].logprobs for c in chunks if c.choices and c.choices[0].logprobs]
    assert [score for each in told for score in each.tokens] == scores.tokens


def test_several_prompts_get_several_completions_each(demo: Client) -> None:
    done = demo.completions.create(
        model=MODEL, prompt=["One two", "Uno dos"], n=2, max_tokens=3, temperature=1, seed=1
    )
    assert [choice.index for choice in done.choices] == [0, 1, 2, 3]
    assert done.usage.completion_tokens <= 12


def test_completions_of_a_script_are_streamed_with_their_usage(client: Client) -> None:
    chunks = list(
        client.completions.create(
            model="scripted", prompt="x", stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == SAID
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens > 3


# -- errors --------------------------------------------------------------------------------------------


def test_errors_come_as_the_sdk_s_own_classes(demo: Client, client: Client) -> None:
    create = demo.chat.completions.create
    with pytest.raises(openai.NotFoundError) as missing:
        create(model="gpt-ghost", messages=PARIS)
    assert missing.value.code == "model_not_found"
    assert missing.value.request_id.startswith("req_")
    with pytest.raises(openai.NotFoundError):
        demo.models.retrieve("gpt-ghost")
    with pytest.raises(openai.BadRequestError) as long:
        create(model=MODEL, messages=user("word " * 7000))
    assert long.value.code == "context_length_exceeded"
    assert long.value.param == "messages"
    with pytest.raises(openai.BadRequestError) as wrong:
        create(model=MODEL, messages=PARIS, temperature=9)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.InternalServerError) as broken:
        client.chat.completions.create(model="scripted", messages=user("break"))
    assert broken.value.status_code == 503


def test_an_error_in_a_stream_is_raised_after_what_was_said(client: Client) -> None:
    stream = client.chat.completions.create(model="scripted", messages=user("break"), stream=True)
    said: list[str] = []
    with pytest.raises(openai.APIError, match="failed after 3 tokens") as broken:
        said.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "".join(said) == "This will not"
    assert broken.value.code == "service_unavailable"


def test_a_stream_that_is_closed_early_leaves_nothing_open(client: Client, scripts: Helexa) -> None:
    with client.chat.completions.create(
        model="scripted", messages=user("slowly"), stream=True
    ) as stream:
        next(iter(stream))
    scripts.wait_for_rest()


def test_nothing_is_open_after_all_this(served: Helexa, scripts: Helexa) -> None:
    assert served.status["open"] == AT_REST
    assert scripts.status["open"] == AT_REST
