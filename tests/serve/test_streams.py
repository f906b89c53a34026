"""Streams that wait, are refused, are left or are not read, over a device that has its tokens ready."""

import json
import random
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from process import READY_DEVICE, Helexa, call, chat, helexa, select_nothing

pytestmark = pytest.mark.real

OPTIONS = {
    "HELEXA_ADMISSION__MAX_IN_FLIGHT": "1",
    "HELEXA_ADMISSION__MAX_QUEUE_DEPTH": "1",
    "HELEXA_ADMISSION__STREAM_OPEN_SECONDS": "0.2",
    "HELEXA_ADMISSION__MAX_WAIT_SECS": "1",
    "HELEXA_LIMITS__WRITE_TIMEOUT_SECONDS": "1",
    "HELEXA_MODELS__PRELOAD": '["demo"]',
}


@pytest.fixture(scope="module")
def ready(store_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Helexa]:
    state = tmp_path_factory.mktemp("ready") / "state"
    with helexa(state, store_dir, OPTIONS, READY_DEVICE) as process:
        yield process


@pytest.fixture(autouse=True)
def leaves_nothing_open(ready: Helexa) -> Iterator[None]:
    yield
    ready.wait_for_rest()


class Connection:
    """One request over a plain socket, so that the test decides what is read and when."""

    def __init__(self, served: Helexa, body: dict[str, Any], buffer_bytes: int = 0) -> None:
        host, _, port = served.url().removeprefix("http://").partition(":")
        self.sock = socket.socket()
        self.sock.settimeout(60)
        if buffer_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self.sock.connect((host, int(port)))
        data = json.dumps(body).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
            f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        )
        self.sock.sendall(head.encode() + data)
        self.received = b""

    def until(self, mark: bytes) -> bytes:
        while mark not in self.received:
            piece = self.sock.recv(1 << 16)
            assert piece, self.received[-500:]
            self.received += piece
        return self.received

    def rest(self) -> bytes:
        while piece := self.sock.recv(1 << 16):
            self.received += piece
        return self.received

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


def long(tokens: int = 2000, **options: Any) -> dict[str, Any]:
    return chat(max_tokens=tokens, stream=True, ignore_eos=True, **options)


def test_a_stream_that_waits_is_opened_told_of_its_place_and_served(ready: Helexa) -> None:
    with Connection(ready, long(150)) as first:
        first.until(b'"content"')
        with Connection(ready, long(3)) as second:
            opened = second.until(b": queued ")
            assert opened.startswith(b"HTTP/1.1 200")
            text = second.rest()
            assert b'"finish_reason":"length"' in text
            assert b"data: [DONE]" in text


def test_a_stream_that_waited_too_long_ends_with_the_error_in_it(ready: Helexa) -> None:
    with Connection(ready, long()) as first:
        first.until(b'"content"')
        with Connection(ready, long(3)) as second:
            text = second.rest()
            assert text.startswith(b"HTTP/1.1 200")
            assert b'"code":"rate_limit_exceeded"' in text
            assert b"data: [DONE]" in text


def by_chat(ready: Helexa) -> None:
    with openai.OpenAI(base_url=ready.url() + "/v1", api_key="none", max_retries=0) as client:
        said: list[Any] = [{"role": "user", "content": "hi"}]
        list(client.chat.completions.create(model="demo", messages=said, stream=True))


def by_completions(ready: Helexa) -> None:
    with openai.OpenAI(base_url=ready.url() + "/v1", api_key="none", max_retries=0) as client:
        list(client.completions.create(model="demo", prompt="hi", stream=True))


def by_responses(ready: Helexa) -> None:
    """Its SDK raises nothing of its own: the last event tells."""
    with openai.OpenAI(base_url=ready.url() + "/v1", api_key="none", max_retries=0) as client:
        *_, last = client.responses.create(model="demo", input="hi", stream=True)
    assert last.type == "response.failed"
    assert last.response.error is not None
    raise openai.APIError(last.response.error.message, httpx2.Request("POST", "/"), body=None)


def by_messages(ready: Helexa) -> None:
    said: list[Any] = [{"role": "user", "content": "hi"}]
    with (
        anthropic.Anthropic(base_url=ready.url(), api_key="none", max_retries=0) as client,
        client.messages.stream(model="demo", messages=said, max_tokens=9) as stream,
    ):
        list(stream)


@pytest.mark.parametrize("ask", [by_chat, by_completions, by_responses, by_messages])
def test_an_sdk_raises_what_a_stream_is_refused_with_after_its_opening(
    ready: Helexa, ask: Callable[[Helexa], None]
) -> None:
    with Connection(ready, long()) as first:
        first.until(b'"content"')
        with pytest.raises((openai.APIError, anthropic.APIError), match="waited 1 s"):
            ask(ready)


def test_a_full_queue_is_a_503_at_once_with_a_whole_retry_after(ready: Helexa) -> None:
    with Connection(ready, long()) as first:
        first.until(b'"content"')
        with Connection(ready, long()) as second:
            second.until(b": queued ")
            url = ready.url() + "/v1/chat/completions"
            status, headers, refused = call("POST", url, long(3))
    assert status == 503
    error = refused["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert int(headers["retry-after"]) >= 1


def test_a_request_that_is_not_streamed_waits_and_is_refused_by_a_status(ready: Helexa) -> None:
    with Connection(ready, long()) as first:
        first.until(b'"content"')
        url = ready.url() + "/v1/chat/completions"
        status, _, refused = call("POST", url, chat(max_tokens=3))
        assert (status, refused["error"]["code"]) == (503, "rate_limit_exceeded")
        assert "waited 1 s" in refused["error"]["message"]


def test_a_client_that_reads_nothing_is_dropped_and_settled(ready: Helexa) -> None:
    with Connection(ready, long(2000, n=8), buffer_bytes=4096) as stuck:
        stuck.until(b"x-request-id: ")
        ready.wait_for_rest()
        (request_id,) = re.findall(rb"x-request-id: (\S+)", stuck.until(b"\r\n\r\n"))
    record = ready.control("why", request_id=request_id.decode())[0]
    assert record["finish"] == "client_left"
    assert 0 < record["completion_tokens"] < 16_000


def test_many_clients_that_come_and_go_leave_nothing_open(ready: Helexa) -> None:
    pick = random.Random(5)
    patience = [pick.uniform(0, 0.6) for _ in range(60)]

    def come_and_go(seconds: float) -> None:
        with Connection(ready, long(50, n=1 + int(seconds * 5) % 3)) as connection:
            select_nothing(seconds)
            connection.sock.settimeout(0.01)

    threads = [threading.Thread(target=come_and_go, args=(each,)) for each in patience]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ready.wait_for_rest()
    status, _, _ = call("POST", ready.url() + "/v1/chat/completions", chat(max_tokens=2))
    assert status == 200


def test_prompts_and_answers_stay_out_of_logs_and_records(ready: Helexa) -> None:
    secret = "xylophone-quartz-7731"
    call("POST", ready.url() + "/v1/chat/completions", chat(secret, max_tokens=2))
    call("POST", ready.url() + "/v1/chat/completions", {"model": "demo", "messages": secret})
    ready.wait_for_rest()
    kept = [path for path in ready.state_dir.rglob("*") if path.is_file()]
    for path in [*kept, ready.log]:
        assert secret not in path.read_text(errors="replace")


def test_capture_keeps_a_key_s_words_in_a_private_file(ready: Helexa) -> None:
    done = ready.ctl("capture", "anonymous", "--for", "1m")
    assert done.returncode == 0, done.stderr
    call("POST", ready.url() + "/v1/chat/completions", chat("a captured question", max_tokens=2))
    assert ready.ctl("capture", "anonymous", "--for", "0").returncode == 0
    (file,) = (ready.state_dir / "captures").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    kinds = [json.loads(line)["kind"] for line in file.read_text().splitlines()]
    assert kinds == ["request", "answer"]
    assert "a captured question" in file.read_text()


def test_a_number_caps_what_one_principal_has_open(store_dir: Path, tmp_path: Path) -> None:
    options = {
        **OPTIONS,
        "HELEXA_ADMISSION__MAX_IN_FLIGHT": "4",
        "HELEXA_ADMISSION__MAX_PER_PRINCIPAL": "1",
    }
    with helexa(tmp_path / "state", store_dir, options, READY_DEVICE) as process:
        with Connection(process, long()) as first:
            first.until(b'"content"')
            status, headers, refused = call(
                "POST", process.url() + "/v1/chat/completions", chat(max_tokens=2)
            )
            assert (status, refused["error"]["code"]) == (429, "rate_limit_exceeded")
            assert int(headers["retry-after"]) >= 1
            ann = {"x-helexa-account-id": "ann"}
            url = process.url("node") + "/v1/chat/completions"
            assert call("POST", url, chat(max_tokens=2), ann)[0] == 200
        process.wait_for_rest()
