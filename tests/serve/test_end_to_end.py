"""The main job: a real model answers real clients through a real process."""

from collections.abc import Iterator

import openai
import pytest
from process import MODEL, PARIS, Helexa, call, chat

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def client(served: Helexa) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.url() + "/v1", api_key="none", max_retries=0) as sdk:
        yield sdk


def test_the_openai_sdk_gets_paris(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=PARIS, temperature=0)  # type: ignore[arg-type]
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 37
    assert answer.usage.total_tokens == 37 + answer.usage.completion_tokens


def test_the_openai_sdk_gets_paris_streamed_with_its_usage(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="demo",
        messages=PARIS,  # type: ignore[arg-type]
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert "Paris" in text
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 37


def test_streamed_and_whole_are_the_same_words(client: openai.OpenAI) -> None:
    asked = {"model": MODEL, "messages": PARIS, "temperature": 0, "max_tokens": 24}
    whole = client.chat.completions.create(**asked)  # type: ignore[call-overload]
    stream = client.chat.completions.create(**asked, stream=True)  # type: ignore[call-overload]
    assert (
        "".join(c.choices[0].delta.content or "" for c in stream)
        == whole.choices[0].message.content
    )


def test_several_answers_with_their_log_probabilities(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=PARIS,  # type: ignore[arg-type]
        temperature=1.2,
        seed=7,
        n=3,
        logprobs=True,
        top_logprobs=2,
        max_tokens=8,
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    for choice in answer.choices:
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        tokens = choice.logprobs.content
        assert "".join(token.token for token in tokens) == choice.message.content
        assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in tokens)


def test_the_same_seed_gives_the_same_words(client: openai.OpenAI) -> None:
    asked = {"model": MODEL, "messages": PARIS, "temperature": 1.5, "seed": 11, "max_tokens": 12}
    first, second = (client.chat.completions.create(**asked) for _ in range(2))  # type: ignore[call-overload]
    assert first.choices[0].message.content == second.choices[0].message.content


def test_a_stop_string_is_left_out_and_ends_the_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=PARIS,  # type: ignore[arg-type]
        temperature=0,
        stop=[" France"],
    )
    assert answer.choices[0].message.content == "The capital of"
    assert answer.choices[0].finish_reason == "stop"


def test_max_tokens_cuts_with_the_reason_length(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=PARIS, temperature=0, max_tokens=3
    )  # type: ignore[arg-type]
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_a_prompt_over_the_limit_is_refused_in_words_that_clients_know(
    client: openai.OpenAI,
) -> None:
    long = [{"role": "user", "content": "word " * 7000}]
    with pytest.raises(openai.BadRequestError, match="maximum context length is 8192") as refused:
        client.chat.completions.create(model=MODEL, messages=long)  # type: ignore[arg-type]
    assert refused.value.code == "context_length_exceeded"


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="gpt-ghost", messages=PARIS)  # type: ignore[arg-type]
    assert refused.value.code == "model_not_found"


def test_the_models_are_listed_with_an_honest_limit(client: openai.OpenAI) -> None:
    listed = {model.id: model.model_dump() for model in client.models.list()}
    assert set(listed) == {MODEL, "demo"}
    assert listed[MODEL]["limit"] == {"context": 8192, "input": 6144, "output": 2048}
    assert "max_model_len" not in listed[MODEL]
    assert client.models.retrieve("demo").id == "demo"


def test_an_answer_names_its_node_and_its_request(served: Helexa) -> None:
    status, headers, _ = call("POST", served.url() + "/v1/chat/completions", chat())
    assert status == 200
    assert headers["x-helexa-node"] == "local"
    assert headers["x-request-id"].startswith("req_")
    record = served.control("why", request_id=headers["x-request-id"])[0]
    assert record["status"] == 200
    assert any("prompt tokens" in text for _, text in record["decisions"])


def test_who_asks_why_is_told_in_a_header(served: Helexa) -> None:
    url, why = served.url() + "/v1/chat/completions", {"x-helexa-explain": "1"}
    _, headers, _ = call("POST", url, chat(), why)
    assert "37 prompt tokens" in headers["x-helexa-decision"]
    assert "x-helexa-decision" not in call("POST", url, chat())[1]


def test_nothing_is_open_at_rest(served: Helexa) -> None:
    assert served.status["open"] == {"sequences": 0, "slots": 0, "reservations": 0}
