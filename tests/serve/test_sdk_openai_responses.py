"""OpenAI's Python SDK on Responses: its helpers, items of every kind, and what is kept."""

import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from process import AT_REST, MODEL, Helexa
from pydantic import BaseModel
from script_models import CITY, LOOK, PARAMETERS, SAID, SUNNY, THOUGHT

pytestmark = pytest.mark.real

Client = Any  # the SDK's own types know only arguments that are written out
WEATHER = {"type": "function", "name": "get_weather", "parameters": PARAMETERS}


class Answer(BaseModel):
    colour: Literal["red", "green", "blue"]
    is_warm: bool


@pytest.fixture(scope="module")
def demo(served: Helexa) -> Iterator[Client]:
    with openai.OpenAI(base_url=served.url() + "/v1", api_key="none", max_retries=0) as sdk:
        yield sdk


@pytest.fixture(scope="module")
def client(scripts: Helexa) -> Iterator[Client]:
    with openai.OpenAI(base_url=scripts.url() + "/v1", api_key="none", max_retries=0) as sdk:
        yield sdk


def test_the_demo_model_answers_whole_and_in_a_stream(demo: Client) -> None:
    question = {"model": MODEL, "input": "What is the capital of France?"}
    asked = {**question, "temperature": 0}
    whole = demo.responses.create(**asked)
    assert "Paris" in whole.output_text
    assert whole.status == "completed"
    assert whole.usage.input_tokens == demo.responses.input_tokens.count(**question).input_tokens
    with demo.responses.stream(**asked) as stream:
        events = list(stream)
        assert stream.get_final_response().output_text == whole.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_a_pydantic_class_is_filled_in_whole_and_in_a_stream(demo: Client) -> None:
    asked = {"model": MODEL, "input": "Which colour? JSON.", "text_format": Answer}
    for _ in range(2):
        done = demo.responses.parse(**asked, temperature=1.3)
        assert isinstance(done.output_parsed, Answer)
    with demo.responses.stream(**asked, temperature=1.3) as stream:
        assert stream.until_done().get_final_response().output_parsed is not None


def test_a_cut_answer_is_incomplete_and_says_why(client: Client) -> None:
    done = client.responses.create(model="scripted", input="hi", max_output_tokens=2)
    assert (done.status, done.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert SAID.startswith(done.output_text)
    with client.responses.stream(model="scripted", input="hi", max_output_tokens=2) as stream:
        assert list(stream)[-1].type == "response.incomplete"


# -- reasoning and tools -------------------------------------------------------------------------------


def test_thoughts_text_and_a_call_are_items_of_their_own(client: Client) -> None:
    with client.responses.stream(
        model="scripted",
        input="think and call",
        tools=[WEATHER],
        reasoning={"effort": "high", "summary": "auto"},
        include=["reasoning.encrypted_content"],
    ) as stream:
        events = list(stream)
        done = stream.get_final_response()
    thought, said, called = done.output
    assert [item.type for item in done.output] == ["reasoning", "message", "function_call"]
    assert thought.summary[0].text.strip() == THOUGHT
    assert thought.encrypted_content
    assert said.content[0].text.strip() == LOOK
    assert json.loads(called.arguments) == {"city": CITY, "days": [1, 2.5, None]}
    told = [event.item for event in events if event.type == "response.output_item.done"]
    assert [item.id for item in told] == [thought.id, said.id, called.id]
    pieces = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    assert "".join(pieces) == called.arguments
    assert done.usage.output_tokens_details.reasoning_tokens > 4


def test_a_tool_loop_runs_over_a_stored_response(client: Client) -> None:
    asked = {"model": "scripted", "tools": [WEATHER]}
    first = client.responses.create(input="Look at both cities.", **asked)
    results = [
        {"type": "function_call_output", "call_id": call.call_id, "output": "sunny in it"}
        for call in first.output
    ]
    assert len(results) == 2
    second = client.responses.create(input=results, previous_response_id=first.id, **asked)
    assert second.output_text == SUNNY
    assert second.previous_response_id == first.id


def test_a_tool_loop_runs_when_the_client_replays_everything(client: Client) -> None:
    asked = {
        "model": "scripted",
        "tools": [WEATHER],
        "store": False,
        "reasoning": {"summary": "auto"},
    }
    items: list[Any] = [{"role": "user", "content": "think and call"}]
    first = client.responses.create(input=items, **asked)
    items += [item.model_dump(exclude_none=True) for item in first.output]
    call_id = first.output[-1].call_id
    items.append({"type": "function_call_output", "call_id": call_id, "output": "sunny in it"})
    assert client.responses.create(input=items, **asked).output_text == SUNNY


def test_a_custom_tool_is_called_with_its_input_as_it_is(client: Client) -> None:
    asked = {"model": "scripted", "tools": [{"type": "custom", "name": "apply_patch"}]}
    with client.responses.stream(input="patch it", **asked) as stream:
        events = list(stream)
        (called,) = stream.get_final_response().output
    assert called.type == "custom_tool_call"
    assert called.input == "*** Begin Patch\n+hé\n"
    pieces = [e.delta for e in events if e.type == "response.custom_tool_call_input.delta"]
    assert "".join(pieces) == called.input


def test_tools_that_run_elsewhere_are_skipped(client: Client) -> None:
    tools = [{"type": "web_search"}, {"type": "image_generation"}, WEATHER]
    done = client.responses.create(model="scripted", input="hi", tools=tools, tool_choice="auto")
    assert done.output_text == SAID


# -- what is kept --------------------------------------------------------------------------------------


def test_a_kept_response_is_found_continued_listed_and_forgotten(client: Client) -> None:
    first = client.responses.create(model="scripted", input="hi", metadata={"a": "b"})
    assert client.responses.retrieve(first.id) == first
    second = client.responses.create(
        model="scripted",
        input=[{"role": "user", "content": "one"}, {"role": "user", "content": "two"}],
        previous_response_id=first.id,
    )
    assert second.usage.input_tokens > first.usage.input_tokens
    listed = list(client.responses.input_items.list(second.id, order="asc", limit=1))
    assert [item.content[0].text for item in listed] == ["hi", SAID, "one", "two"]  # four pages
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(second.id)
    client.responses.delete(first.id)
    for gone in (client.responses.retrieve, client.responses.delete):
        with pytest.raises(openai.NotFoundError):
            gone(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="scripted", input="x", previous_response_id=first.id)
    assert client.responses.retrieve(second.id).output_text == SAID


def test_what_is_not_to_be_stored_is_not(client: Client) -> None:
    done = client.responses.create(model="scripted", input="hi", store=False)
    assert done.store is False
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(done.id)


def test_a_streamed_response_is_kept_too(client: Client) -> None:
    with client.responses.stream(model="scripted", input="hi") as stream:
        done = stream.until_done().get_final_response()
    assert client.responses.retrieve(done.id).output_text == SAID


def test_a_kept_response_is_told_whole_and_never_as_an_empty_stream(client: Client) -> None:
    done = client.responses.create(model="scripted", input="hi")
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.retrieve(done.id, stream=True)
    assert refused.value.param == "stream"


def test_a_conversation_is_compacted_and_goes_on(client: Client) -> None:
    said = [{"role": "user", "content": "I am Ann."}, {"role": "assistant", "content": "Hi Ann."}]
    short = client.responses.compact(model="scripted", input=said)
    assert short.output[-1].type == "compaction"
    items = [item.model_dump(exclude_none=True, warnings=False) for item in short.output]
    asked = [*items, {"role": "user", "content": "hi"}]
    assert client.responses.create(model="scripted", input=asked).output_text == SAID


# -- errors --------------------------------------------------------------------------------------------


def test_errors_come_as_the_sdk_s_own_classes(client: Client) -> None:
    create = client.responses.create
    with pytest.raises(openai.NotFoundError) as missing:
        create(model="gpt-ghost", input="hi")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        create(model="scripted", input="word " * 130_000)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as wrong:
        create(model="scripted", input=[{"role": "wizard", "content": "hi"}])
    assert wrong.value.param == "input[0].role"
    with pytest.raises(openai.BadRequestError) as background:
        create(model="scripted", input="hi", background=True)
    assert background.value.param == "background"


def test_a_failure_in_a_stream_is_the_event_that_clients_act_on(client: Client) -> None:
    with client.responses.stream(model="scripted", input="break") as stream:
        events = list(stream)
    assert events[-1].type == "response.failed"
    assert events[-1].response.status == "failed"
    assert events[-1].response.error.code == "service_unavailable"
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert said == "This will not"


def test_nothing_is_open_after_all_this(served: Helexa, scripts: Helexa) -> None:
    assert served.status["open"] == AT_REST
    assert scripts.status["open"] == AT_REST
