"""Clients that wait: their SDKs' retries on a busy server, and signs of life that no client shows."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest
import script_models
from process import Helexa, call, helexa, select_nothing
from script_models import SAID

pytestmark = pytest.mark.real

OPTIONS = {
    "HELEXA_ADMISSION__MAX_IN_FLIGHT": "1",
    "HELEXA_ADMISSION__MAX_QUEUE_DEPTH": "1",
    "HELEXA_ADMISSION__STREAM_OPEN_SECONDS": "0.2",
}
HI = [{"role": "user", "content": "hi"}]
SLOWLY = {"model": "scripted", "messages": [{"role": "user", "content": "slowly"}]}
LATE = "Here at last."


@pytest.fixture(scope="module")
def narrow(
    store_dir: Path, qwen3_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Helexa]:
    """It answers one request at a time and lets one wait."""
    folder = tmp_path_factory.mktemp("narrow")
    options = {**script_models.options(folder, qwen3_tokenizer), **OPTIONS}
    with helexa(folder / "state", store_dir, options) as process:
        call("POST", process.url("node") + "/models/load", {"model_id": "scripted"})
        yield process


@pytest.fixture(autouse=True)
def leaves_nothing_open(narrow: Helexa) -> Iterator[None]:
    yield
    narrow.wait_for_rest()


class Sent:
    """What a client's own HTTP library was answered: when, with which status and Retry-After."""

    def __init__(self) -> None:
        self.answers: list[tuple[float, int, str]] = []
        self.http = httpx2.Client(event_hooks={"response": [self._note]})

    def _note(self, response: httpx2.Response) -> None:
        after = response.headers.get("retry-after", "")
        self.answers.append((time.monotonic(), response.status_code, after))

    def __enter__(self) -> "Sent":
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()


# -- busy, then free -----------------------------------------------------------------------------------


def by_chat(narrow: Helexa, sent: Sent, retries: int) -> str:
    client = openai.OpenAI(
        base_url=narrow.url() + "/v1", api_key="x", max_retries=retries, http_client=sent.http
    )
    said: list[Any] = [{"role": "user", "content": "hi"}]
    answer = client.chat.completions.create(model="scripted", messages=said)
    return answer.choices[0].message.content or ""


def by_responses(narrow: Helexa, sent: Sent, retries: int) -> str:
    client = openai.OpenAI(
        base_url=narrow.url() + "/v1", api_key="x", max_retries=retries, http_client=sent.http
    )
    return client.responses.create(model="scripted", input="hi").output_text


def by_messages(narrow: Helexa, sent: Sent, retries: int) -> str:
    client = anthropic.Anthropic(
        base_url=narrow.url(), api_key="x", max_retries=retries, http_client=sent.http
    )
    said: list[Any] = [{"role": "user", "content": "hi"}]
    answer: Any = client.messages.create(model="scripted", messages=said, max_tokens=50)
    text: str = answer.content[0].text
    return text


Ask = Callable[[Helexa, Sent, int], str]


@pytest.fixture
def busy(narrow: Helexa) -> Iterator[None]:
    """One request runs and one waits, about a second each."""
    running, queued = (threading.Thread(target=slowly, args=(narrow,)) for _ in range(2))
    running.start()
    wait_until(lambda: narrow.status["open"]["slots"] == 1)
    queued.start()
    wait_until(lambda: waiting(narrow) == 1)
    yield
    running.join()
    queued.join()


def slowly(narrow: Helexa) -> None:
    status, _, answer = call("POST", narrow.url() + "/v1/chat/completions", SLOWLY)
    assert status == 200, answer


def wait_until(is_so: Callable[[], bool]) -> None:
    for _ in range(500):
        if is_so():
            return
        select_nothing(0.02)
    raise AssertionError("it never came to that")


def waiting(narrow: Helexa) -> int:
    models = call("GET", narrow.url("node") + "/health")[2]["models"]
    depth: int = next(model["queue_depth"] for model in models if model["id"] == "scripted")
    return depth


@pytest.mark.parametrize("ask", [by_chat, by_responses, by_messages])
def test_a_client_waits_as_long_as_it_is_told_and_is_served(
    narrow: Helexa, busy: None, ask: Ask
) -> None:
    with Sent() as sent:
        assert ask(narrow, sent, 5) == SAID
    *refused, (served_at, status, _) = sent.answers
    assert status == 200
    assert refused
    assert {status for _, status, _ in refused} == {503}
    times = [at for at, _, _ in sent.answers]
    for number, (at, _, after) in enumerate(refused):
        assert int(after) >= 1
        assert times[number + 1] - at >= int(after)
    assert served_at - times[0] < 60


def test_without_retries_busy_is_the_sdk_s_own_error(narrow: Helexa, busy: None) -> None:
    with Sent() as sent:
        with pytest.raises(openai.InternalServerError) as refused:
            by_chat(narrow, sent, 0)
        assert (refused.value.status_code, refused.value.code) == (503, "rate_limit_exceeded")
        with pytest.raises(openai.InternalServerError) as refused:
            by_responses(narrow, sent, 0)
        assert refused.value.status_code == 503
        with pytest.raises(anthropic.InternalServerError) as overloaded:
            by_messages(narrow, sent, 0)
        assert overloaded.value.type == "overloaded_error"


# -- signs of life -------------------------------------------------------------------------------------

SIGNS = {
    "/v1/chat/completions": (": loading ", {"messages": HI}),
    "/v1/completions": (": loading ", {"prompt": "hi"}),
    "/v1/responses": ("event: response.in_progress\n", {"input": "hi"}),
    "/v1/messages": ("event: ping\n", {"messages": HI, "max_tokens": 99}),
}


@pytest.fixture
def cold(narrow: Helexa) -> None:
    call("POST", narrow.url("node") + "/models/unload", {"model_id": "late"})


@pytest.mark.parametrize("path", SIGNS)
def test_a_stream_that_waits_for_its_model_shows_that_it_lives(
    narrow: Helexa, cold: None, path: str
) -> None:
    sign, question = SIGNS[path]
    body = {"model": "late", "stream": True, **question}
    status, _, stream = call("POST", narrow.url() + path, body)
    assert status == 200
    waited, _, told = stream.partition("Here")
    assert sign in waited
    assert told
    if path == "/v1/responses":
        data = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
        assert data[0]["type"] == "response.created"
        assert "loading" in [each.get("progress", {}).get("phase") for each in data]
        assert [each["sequence_number"] for each in data] == list(range(len(data)))


def test_the_sdks_show_nothing_of_the_wait(narrow: Helexa, cold: None) -> None:
    said: list[Any] = [{"role": "user", "content": "hi"}]
    with openai.OpenAI(base_url=narrow.url() + "/v1", api_key="x", max_retries=0) as client:
        with client.chat.completions.stream(model="late", messages=said) as stream:
            assert stream.get_final_completion().choices[0].message.content == LATE
        call("POST", narrow.url("node") + "/models/unload", {"model_id": "late"})
        with client.responses.stream(model="late", input="hi") as events:
            done = events.until_done().get_final_response()
    assert [item.type for item in done.output] == ["message"]
    assert done.output_text == LATE
    call("POST", narrow.url("node") + "/models/unload", {"model_id": "late"})
    asked: Any = {"model": "late", "messages": said, "max_tokens": 50}
    with (
        anthropic.Anthropic(base_url=narrow.url(), api_key="x") as sdk,
        sdk.messages.stream(**asked) as told,
    ):
        assert [event.type for event in told][:2] == ["message_start", "content_block_start"]
        assert told.get_final_text() == LATE


@pytest.mark.parametrize("path", SIGNS)
def test_a_stream_that_waits_for_its_turn_is_told_so_and_served(narrow: Helexa, path: str) -> None:
    sign, question = SIGNS[path]
    first = threading.Thread(target=slowly, args=(narrow,))
    first.start()
    wait_until(lambda: narrow.status["open"]["slots"] == 1)
    status, _, stream = call(
        "POST", narrow.url() + path, {"model": "scripted", "stream": True, **question}
    )
    first.join()
    assert status == 200
    waited, said, _ = stream.partition("Hello")
    assert said
    assert sign.replace("loading", "queued") in waited
