"""Bad input: an explained 4xx in the envelope, never a 5xx, never a dropped connection."""

import json
import socket
from typing import Any

import pytest
from process import MODEL, Helexa, call, chat

pytestmark = pytest.mark.real

HI = [{"role": "user", "content": "hi"}]


def ask(**changes: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": HI, "max_tokens": 1, **changes}


NASTY: list[tuple[Any, str | None]] = [
    (b"", None),
    (b"not json", None),
    (b"{", None),
    (b"[]", None),
    (b"null", None),
    (b'"text"', None),
    (b"\xff\xfe\x00", None),
    (b'{"model":"\\ud800"}', None),
    (b"[" * 100_000, None),
    (b'{"model": NaN}', None),
    ({}, "model"),
    ({"model": MODEL}, "messages"),
    (ask(model=None), "model"),
    (ask(model=7), "model"),
    (ask(model=[]), "model"),
    (ask(model=""), "model"),
    (ask(model="no such model"), "model"),
    (ask(model="x" * 100_000), "model"),
    (ask(messages=None), "messages"),
    (ask(messages=[]), "messages"),
    (ask(messages="hi"), "messages"),
    (ask(messages={"role": "user"}), "messages"),
    (ask(messages=[7]), "messages[0]"),
    (ask(messages=[{}]), "messages[0].role"),
    (ask(messages=[{"role": "wizard", "content": "hi"}]), "messages[0].role"),
    (ask(messages=[{"role": "user", "content": 7}]), "messages[0].content"),
    (ask(messages=[{"role": "user", "content": [7]}]), "messages[0].content[0]"),
    (
        ask(messages=[{"role": "user", "content": [{"type": "text", "text": 7}]}]),
        "messages[0].content[0].text",
    ),
    (
        ask(
            messages=[
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}],
                }
            ]
        ),
        "messages[0].content[0].image_url.url",
    ),
    (ask(messages=HI * 10_000), "messages"),
    (ask(messages=[{"role": "user", "content": "word " * 10_000}]), "messages"),
    (ask(temperature=9), "temperature"),
    (ask(temperature=-1), "temperature"),
    (ask(temperature="hot"), "temperature"),
    (ask(temperature=True), "temperature"),
    (ask(top_p=-0.1), "top_p"),
    (ask(top_p=1.1), "top_p"),
    (ask(max_tokens=0), "max_tokens"),
    (ask(max_tokens=-5), "max_tokens"),
    (ask(max_tokens=1.5), "max_tokens"),
    (ask(max_tokens="many"), "max_tokens"),
    (ask(max_completion_tokens=0), "max_completion_tokens"),
    (ask(n=0), "n"),
    (ask(n=9), "n"),
    (ask(n="two"), "n"),
    (ask(stop=7), "stop"),
    (ask(stop=""), "stop"),
    (ask(stop=["a", 7]), "stop[1]"),
    (ask(stop=["a", ""]), "stop[1]"),
    (ask(stop=["x"] * 1000), "stop"),
    (ask(stream="yes"), "stream"),
    (ask(stream=True, stream_options=7), "stream_options"),
    (ask(seed="x"), "seed"),
    (ask(logprobs="yes"), "logprobs"),
    (ask(logprobs=True, top_logprobs=21), "top_logprobs"),
    (ask(logit_bias=[]), "logit_bias"),
    (ask(logit_bias={"x": 1}), "logit_bias"),
    (ask(logit_bias={"1": 101}), "logit_bias"),
    (ask(logit_bias={"999999": 1}), "logit_bias"),
    (ask(presence_penalty=3), "presence_penalty"),
    (ask(tools=7), "tools"),
    (ask(tools=[{"type": "function"}]), "tools[0].function"),
    (ask(response_format={"type": "json_schema"}), "response_format"),
]


@pytest.mark.parametrize("number", range(len(NASTY)))
def test_a_nasty_body_is_refused_with_the_field_that_is_wrong(served: Helexa, number: int) -> None:
    body, param = NASTY[number]
    status, headers, refused = call("POST", served.url() + "/v1/chat/completions", body)
    assert 400 <= status < 500, refused
    error = refused["error"]
    assert error["message"]
    assert error["request_id"] == headers["x-request-id"]
    if param is not None:
        assert error["param"].startswith(param)


@pytest.mark.parametrize(
    "harmless",
    [
        ask(messages=[{"role": "user", "content": ""}]),
        ask(messages=[{"role": "user", "content": None}]),
        ask(messages=[{"role": "assistant", "content": None}, *HI]),
        ask(unknown_field={"deep": [1, 2]}, metadata={}, user="me", store=False),
        ask(temperature=0, top_k=0, min_p=0),
        ask(top_p=0, stop=[]),
        ask(messages=[{"role": "developer", "content": "be brief"}, *HI]),
        ask(messages=[*HI, {"role": "system", "content": "be brief"}]),
    ],
)
def test_what_clients_really_send_is_accepted(served: Helexa, harmless: dict[str, Any]) -> None:
    status, _, answer = call("POST", served.url() + "/v1/chat/completions", harmless)
    assert status == 200, answer


def test_a_body_of_40_mb_is_refused_in_words_that_are_not_about_context(served: Helexa) -> None:
    body = json.dumps(chat("x" * 40_000_000)).encode()
    port = int(served.url().rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        sock.sendall(head.encode())
        received = b""
        while piece := sock.recv(65536):
            received += piece
    head_text, _, refused = received.decode().partition("\r\n\r\n")
    assert head_text.startswith("HTTP/1.1 400")
    error = json.loads(refused)["error"]
    assert error["code"] == "body_too_large"
    for word in ("context", "token", "limit of"):
        assert word not in error["message"]


def test_what_is_not_a_route_or_a_method_is_told_in_the_envelope(served: Helexa) -> None:
    for role in ("gateway", "node", "metrics"):
        status, _, refused = call("GET", served.url(role) + "/no/such/path")
        assert (status, refused["error"]["code"]) == (404, "not_found")
    status, headers, _ = call("GET", served.url() + "/v1/chat/completions")
    assert (status, headers["allow"]) == (405, "OPTIONS, POST")


def test_doors_turn_away_foreign_hosts_origins_and_kinds(served: Helexa) -> None:
    url = served.url() + "/v1/chat/completions"
    assert call("POST", url, chat(), {"host": "evil.example"})[0] == 403
    assert call("POST", url, chat(), {"origin": "https://evil.example"})[0] == 403
    assert call("POST", url, chat(), {"content-type": "text/plain"})[0] == 415
    assert call("POST", url, chat(), {"content-encoding": "gzip"})[0] == 415


def test_after_all_that_it_still_answers(served: Helexa) -> None:
    status, _, answer = call("POST", served.url() + "/v1/chat/completions", chat())
    assert status == 200
    assert "Paris" in answer["choices"][0]["message"]["content"]
    assert served.status["open"] == {"sequences": 0, "slots": 0, "reservations": 0}
