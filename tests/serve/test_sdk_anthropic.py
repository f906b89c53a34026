"""Anthropic's Python SDK: messages whole and streamed, tools, thinking, forms, counts and errors."""

from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import pytest
from process import AT_REST, MODEL, PARIS, Helexa
from pydantic import BaseModel
from script_models import CITY, LOOK, PARAMETERS, SAID, SUNNY, THOUGHT

pytestmark = pytest.mark.real

Client = Any  # the SDK's own types know only arguments that are written out
WEATHER = {"name": "get_weather", "description": "The weather.", "input_schema": PARAMETERS}
BETAS = ["interleaved-thinking-2025-05-14", "fine-grained-tool-streaming-2025-05-14", "made-up"]
THINKING = {"type": "enabled", "budget_tokens": 1024}


class Answer(BaseModel):
    colour: Literal["red", "green", "blue"]
    is_warm: bool


@pytest.fixture(scope="module")
def demo(served: Helexa) -> Iterator[Client]:
    with anthropic.Anthropic(base_url=served.url(), api_key="none", max_retries=0) as sdk:
        yield sdk


@pytest.fixture(scope="module")
def client(scripts: Helexa) -> Iterator[Client]:
    with anthropic.Anthropic(base_url=scripts.url(), api_key="none", max_retries=0) as sdk:
        yield sdk


def asked(text: str, **more: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": text}]
    return {"model": "scripted", "max_tokens": 500, "messages": said, **more}


def test_the_demo_model_answers_whole_and_in_a_stream(demo: Client) -> None:
    whole = demo.messages.create(
        model=MODEL, messages=PARIS, max_tokens=30, extra_body={"top_k": 1}
    )
    assert "Paris" in whole.content[0].text
    assert whole.stop_reason == "end_turn"
    with demo.messages.stream(
        model=MODEL, messages=PARIS, max_tokens=30, extra_body={"top_k": 1}
    ) as stream:
        assert "".join(stream.text_stream) == whole.content[0].text
        assert stream.get_final_message().usage.output_tokens == whole.usage.output_tokens


def test_a_pydantic_class_is_filled_in_whole_and_in_a_stream(demo: Client) -> None:
    question = {"model": MODEL, "max_tokens": 200, "output_format": Answer}
    said = [{"role": "user", "content": "Which colour? JSON."}]
    for _ in range(2):
        done = demo.messages.parse(messages=said, **question)
        assert isinstance(done.parsed_output, Answer)
    with demo.messages.stream(messages=said, **question) as stream:
        assert isinstance(stream.get_final_message().parsed_output, Answer)


# -- streams -------------------------------------------------------------------------------------------


def test_a_stream_tells_thoughts_text_and_a_call_apart(client: Client) -> None:
    with client.messages.stream(
        **asked("think and call", tools=[WEATHER], thinking=THINKING)
    ) as stream:
        events = list(stream)
        done = stream.get_final_message()
        assert stream.request_id.startswith("req_")
    thought, said, called = done.content
    assert (thought.type, thought.thinking.strip()) == ("thinking", THOUGHT)
    assert thought.signature
    assert said.text.strip() == LOOK
    assert (called.type, called.name) == ("tool_use", "get_weather")
    assert called.input == {"city": CITY, "days": [1, 2.5, None]}
    assert done.stop_reason == "tool_use"
    assert done.usage.output_tokens_details.thinking_tokens > 4
    kinds = [event.type for event in events]
    assert kinds.count("message_start") == kinds.count("message_stop") == 1
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 3
    assert kinds.count("input_json") > 3
    whole = client.messages.create(**asked("think and call", tools=[WEATHER], thinking=THINKING))
    assert [block.type for block in whole.content] == ["thinking", "text", "tool_use"]
    assert whole.usage == done.usage.model_copy(update={"output_tokens": whole.usage.output_tokens})


def test_what_is_thought_is_hidden_from_who_does_not_ask(client: Client) -> None:
    done = client.messages.create(**asked("think and call", tools=[WEATHER]))
    assert [block.type for block in done.content] == ["text", "tool_use"]
    assert THOUGHT not in done.model_dump_json()


def test_a_stop_sequence_is_named(client: Client) -> None:
    done = client.messages.create(**asked("hi", stop_sequences=[", fr"]))
    assert (done.content[0].text, done.stop_reason) == ("Hello there", "stop_sequence")
    assert done.stop_sequence == ", fr"
    cut = client.messages.create(**asked("hi", max_tokens=1))
    assert (cut.content[0].text, cut.stop_reason) == ("Hello", "max_tokens")


def test_a_beginning_of_the_answer_is_gone_on_with(client: Client) -> None:
    said = [*asked("hi")["messages"], {"role": "assistant", "content": "Well, "}]
    assert client.messages.create(**asked("hi", messages=said)).content[0].text == SAID


# -- tools ---------------------------------------------------------------------------------------------


def test_a_tool_loop_with_thoughts_replayed_runs_to_its_end(client: Client) -> None:
    more = {"tools": [WEATHER], "thinking": THINKING}
    first = client.messages.create(**asked("think and call", **more))
    results = [
        {
            "type": "tool_result",
            "tool_use_id": first.content[-1].id,
            "content": [{"type": "text", "text": "sunny in Zürich"}],
            "is_error": False,
        }
    ]
    said = [
        *asked("think and call")["messages"],
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": results},
    ]
    second = client.messages.create(**asked("", messages=said, **more))
    assert (second.content[0].text, second.stop_reason) == (SUNNY, "end_turn")


def test_the_sdk_s_tool_runner_runs_both_calls_of_a_turn(client: Client) -> None:
    looked_at: list[str] = []

    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """The weather of a city.

        Args:
            city: its name
        """
        looked_at.append(city)
        return f"sunny in {city}"

    runner = client.beta.messages.tool_runner(**asked("both cities"), tools=[get_weather])
    first, last = runner
    assert [block.type for block in first.content] == ["tool_use", "tool_use"]
    assert last.content[0].text == SUNNY
    assert looked_at == ["Paris", "Rome"]


def test_beta_messages_take_betas_and_what_claude_code_sends(client: Client) -> None:
    more: dict[str, Any] = {
        "betas": BETAS,
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
        "output_config": {"effort": "high"},
        "metadata": {"user_id": "me"},
        "tools": [{"type": "web_search_20250305", "name": "web_search"}, WEATHER],
        "system": [{"type": "text", "text": "Brief.", "cache_control": {"type": "ephemeral"}}],
    }
    done = client.beta.messages.create(**asked("think and call", **more))
    assert [block.type for block in done.content] == ["thinking", "text", "tool_use"]
    with client.beta.messages.stream(**asked("think and call", **more)) as stream:
        again = stream.get_final_message()
    assert [block.type for block in again.content] == ["thinking", "text", "tool_use"]
    counted = client.beta.messages.count_tokens(
        **{
            name: value
            for name, value in asked("think and call", **more).items()
            if name in COUNTED
        }
    )
    assert counted.input_tokens == done.usage.input_tokens


COUNTED = ("model", "messages", "betas", "tools", "thinking", "system", "context_management")


# -- counts and models ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"system": "Be brief."},
        {"tools": [WEATHER], "tool_choice": {"type": "auto"}},
        {"tools": [WEATHER], "thinking": THINKING},
    ],
)
def test_what_is_counted_is_what_is_read(client: Client, more: dict[str, Any]) -> None:
    question = asked("Grüße 👋", **more)
    usage = client.messages.create(**question).usage
    del question["max_tokens"]
    counted = client.messages.count_tokens(**question).input_tokens
    assert counted == usage.input_tokens + usage.cache_read_input_tokens


def test_models_are_listed_as_anthropic_lists_them(client: Client) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert set(listed) == {"scripted", "fake-model", "late"}
    assert {model.type for model in listed.values()} == {"model"}
    assert client.models.retrieve("scripted").display_name == "scripted"
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("ghost")


# -- errors --------------------------------------------------------------------------------------------


def test_errors_come_as_the_sdk_s_own_classes(client: Client) -> None:
    create = client.messages.create
    with pytest.raises(anthropic.NotFoundError) as missing:
        create(**asked("hi", model="claude-ghost"))
    assert missing.value.type == "not_found_error"
    assert missing.value.request_id.startswith("req_")
    assert missing.value.body["request_id"] == missing.value.request_id
    with pytest.raises(
        anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > \d+ max"
    ):
        create(**asked("word " * 130_000))
    with pytest.raises(anthropic.BadRequestError) as wrong:
        create(**asked("hi", max_tokens=0))
    assert wrong.value.body["error"]["param"] == "max_tokens"
    picture = {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/x.png"}}
    with pytest.raises(anthropic.BadRequestError) as fetched:
        create(**asked("", messages=[{"role": "user", "content": [picture]}]))
    assert "source" in fetched.value.body["error"]["param"]
    with pytest.raises(anthropic.InternalServerError) as broken:
        create(**asked("break"))
    assert (broken.value.status_code, broken.value.type) == (503, "overloaded_error")


def test_an_error_in_a_stream_is_raised_after_what_was_said(client: Client) -> None:
    said: list[str] = []
    with (
        client.messages.stream(**asked("break")) as stream,
        pytest.raises(anthropic.APIStatusError, match="failed after 3 tokens") as broken,
    ):
        said.extend(stream.text_stream)
    assert "".join(said) == "This will not"
    assert broken.value.body["error"]["type"] == "overloaded_error"


def test_a_stream_that_is_closed_early_leaves_nothing_open(client: Client, scripts: Helexa) -> None:
    with client.messages.stream(**asked("slowly")) as stream:
        next(iter(stream.text_stream))
    scripts.wait_for_rest()


def test_nothing_is_open_after_all_this(served: Helexa, scripts: Helexa) -> None:
    assert served.status["open"] == AT_REST
    assert scripts.status["open"] == AT_REST
