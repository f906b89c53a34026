"""The guard in front of a real application: what a route sees, what a client sees."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from http_peer import Reply, Start, request
from quart import Response
from quart import request as quart_request
from quart_trio import QuartTrio

from helexa import logs
from helexa.conversation import ANONYMOUS, Principal
from helexa.errors import Busy
from helexa.http.application import configure
from helexa.http.call import Call, call_of, plain_id
from helexa.http.doors import Door
from helexa.http.guard import expected
from helexa.http.stream import json_response

NODE = Door(token="s3cret", public_paths=("/health",), believe_principals=True)
SHOWN = "authorization: Bearer s3cret"
PAGE = "origin: http://localhost:3000"
CORS = Door(token="s3cret", cors_origins=("http://localhost:3000",))


class Curious:
    """An application that remembers the call, the headers and the request id of each request."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.headers: list[dict[str, str]] = []
        self.ids_in_logs: list[str] = []
        self.app = QuartTrio("curious")
        configure(self.app)
        self.app.add_url_rule(
            "/<path:path>", view_func=self.look, methods=["GET", "POST", "OPTIONS"]
        )

    async def look(self, path: str) -> Response:
        self.calls.append(call_of(quart_request))
        self.headers.append({name.lower(): value for name, value in quart_request.headers.items()})
        self.ids_in_logs.append(logs.request_id.get())
        return json_response(b"{}")


@pytest.fixture
def curious() -> Curious:
    return Curious()


Ask = Callable[..., Awaitable[Reply]]


@pytest.fixture
def ask(start: Start, curious: Curious) -> Ask:
    async def ask(line: str, *headers: str, door: Door, **more: Any) -> Reply:
        peer = await (await start(curious.app, door=door)).connect()
        return await peer.ask(line, *headers, **more)

    return ask


async def test_without_the_token_no_route_hears_of_a_request(ask: Ask, curious: Curious) -> None:
    reply = await ask("POST /models/load", door=NODE, body=b"{}")
    assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
    assert reply.headers["www-authenticate"] == "Bearer"
    assert curious.calls == []


async def test_a_stranger_is_refused_before_the_body_is_read(start: Start) -> None:
    peer = await (await start(door=NODE)).connect()
    await peer.send(request("POST /echo", "content-length: 1000", "content-type: application/json"))
    with trio.fail_after(5):
        assert (await peer.reply()).status == 401


async def test_a_bare_health_needs_no_token_and_is_not_authenticated(
    ask: Ask, curious: Curious
) -> None:
    assert (await ask("GET /health", door=NODE)).status == 200
    assert not curious.calls[0].authenticated


async def test_a_trusted_gateway_names_the_principal(ask: Ask, curious: Curious) -> None:
    named = ("x-helexa-account-id: acme", "x-helexa-key-id: k1")
    assert (await ask("GET /models", SHOWN, *named, door=NODE)).status == 200
    call = curious.calls[0]
    assert (call.principal, call.authenticated) == (Principal("acme", "k1"), True)


@pytest.mark.parametrize("door", [Door(), NODE], ids=["believes nobody", "token not shown"])
async def test_a_client_cannot_name_itself(ask: Ask, curious: Curious, door: Door) -> None:
    named = ("x-helexa-account-id: acme", "x-helexa-key-id: k1", "x-helexa-explain: 1")
    assert (await ask("GET /health", *named, door=door)).status == 200
    assert curious.calls[0].principal == ANONYMOUS
    assert "x-helexa-account-id" not in curious.headers[0]
    assert "x-helexa-key-id" not in curious.headers[0]
    assert curious.headers[0]["x-helexa-explain"] == "1"


@pytest.mark.parametrize(
    ("host", "header", "status"),
    [
        ("evil.example", "accept: */*", 403),
        ("localhost", "origin: https://evil.example", 403),
        ("localhost", "origin: null", 403),
        ("localhost", "accept: */*", 200),
    ],
)
async def test_a_web_page_does_not_reach_an_open_loopback_port(
    ask: Ask, curious: Curious, host: str, header: str, status: int
) -> None:
    reply = await ask("POST /models/load", header, door=Door(), host=host, body=b"{}")
    assert reply.status == status
    assert len(curious.calls) == (status == 200)


async def test_a_page_may_read_what_it_is_refused(ask: Ask) -> None:
    reply = await ask("GET /models", PAGE, door=CORS)
    assert reply.status == 401
    assert reply.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert reply.headers["vary"] == "Origin"
    assert "x-request-id" in reply.headers["access-control-expose-headers"]


async def test_a_preflight_is_answered_without_a_body(ask: Ask, curious: Curious) -> None:
    wants = ("access-control-request-method: POST", "access-control-request-headers: authorization")
    reply = await ask("OPTIONS /models", PAGE, *wants, door=CORS)
    assert reply.status == 204
    assert reply.headers["access-control-allow-headers"] == "authorization"
    assert reply.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert curious.calls == []


async def test_the_request_id_is_the_same_everywhere(ask: Ask, curious: Curious) -> None:
    reply = await ask("GET /models", "x-request-id: client-7", door=Door())
    call = curious.calls[0]
    assert reply.headers["x-request-id"] == call.request_id == curious.ids_in_logs[0]
    assert call.client_request_id == "client-7"


@pytest.mark.parametrize("text", [None, "", "a b", "x" * 129, "\x1b[31m", "é", "a\n"])
def test_a_request_id_that_is_not_plain_is_forgotten(text: str | None) -> None:
    assert plain_id(text) is None


async def test_two_requests_on_one_connection_are_two_calls(start: Start, curious: Curious) -> None:
    peer = await (await start(curious.app)).connect()
    await peer.ask("GET /models")
    await peer.ask("GET /models")
    first, second = curious.calls
    assert first.request_id != second.request_id


async def test_what_a_route_took_is_given_back_when_its_client_leaves(start: Start) -> None:
    app = QuartTrio("taking")
    configure(app)
    taken, given_back = trio.Event(), trio.Event()

    @app.get("/")
    async def take() -> Response:
        call_of(quart_request).exits.callback(given_back.set)
        taken.set()
        await trio.sleep_forever()
        raise AssertionError

    peer = await (await start(app)).connect()
    await peer.send(request("GET /"))
    await taken.wait()
    await peer.stream.aclose()
    with trio.fail_after(5):
        await given_back.wait()


async def test_an_unexpected_error_is_logged_under_its_request(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    peer = await (await start()).connect()
    with caplog.at_level(logging.ERROR):
        await peer.ask("GET /raise/bug")
    assert [record.message for record in caplog.records] == ["a request failed unexpectedly"]


def test_an_expected_failure_is_found_within_groups() -> None:
    busy = Busy("Later.")
    group = ExceptionGroup("outer", [ExceptionGroup("inner", [busy])])
    assert expected(group) is busy
    assert expected(ExceptionGroup("mixed", [busy, KeyError()])) is None
    assert expected(KeyError()) is None
