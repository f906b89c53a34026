"""Keys at a listener: who comes in as whom, who is sent away, and what every answer tells."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest
import trio
from http_peer import Reply, Start
from quart import Response
from quart import request as quart_request
from quart_trio import QuartTrio
from trio.testing import MockClock, wait_all_tasks_blocked

from helexa.accounts.attempts import BURST
from helexa.accounts.keys import ANONYMOUS_KEY, Key
from helexa.accounts.provider import Remaining, Unmetered
from helexa.conversation import ANONYMOUS, Principal
from helexa.errors import HelexaError, InsufficientQuota
from helexa.fleet.share import Share
from helexa.http.application import configure
from helexa.http.call import Call, call_of
from helexa.http.doors import Door
from helexa.http.stream import json_response, sse_response

ANN = Key(Principal("lab", "ann"), share=Share(3, "batch"))
OPEN = Door(takes_keys=True, public_paths=("/", "/health"))
LOCKED = Door(takes_keys=True, public_paths=("/", "/health"), require_key=True)
GOOD = "authorization: Bearer sk-ann"


class Known(Unmetered):
    """One key, of which 40 of 100 tokens are left."""

    async def resolve(self, secret: bytes) -> Key | None:
        return ANN if secret == b"sk-ann" else None

    def snapshot(self, principal: Principal) -> Remaining | None:
        return Remaining(100, 40, 60.0) if principal == ANN.principal else None


class Auditing(Known):
    """Remembers who was refused with which code, and from where."""

    def __init__(self) -> None:
        self.heard: list[tuple[str | None, Principal | None, str]] = []

    def refused(
        self, error: HelexaError, principal: Principal | None, request_id: str, address: str = ""
    ) -> None:
        self.heard.append((error.code, principal, address))


class App:
    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.headers: list[dict[str, str]] = []
        self.app = QuartTrio("keys")
        configure(self.app)
        self.app.add_url_rule("/<path:path>", view_func=self.look, methods=["GET", "POST"])

    async def look(self, path: str) -> Response:
        self.calls.append(call_of(quart_request))
        self.headers.append({name.lower(): value for name, value in quart_request.headers.items()})
        if path == "refused":
            raise InsufficientQuota("nothing is left", remaining_tokens=0)
        if path == "stream":
            return sse_response(frames(), call_of(quart_request), lambda error: b"")
        return json_response(b"{}")


async def frames() -> AsyncGenerator[bytes, None]:
    yield b"data: {}\n\n"


@pytest.fixture
def app() -> App:
    return App()


Ask = Callable[..., Awaitable[Reply]]


@pytest.fixture
def ask(start: Start, app: App) -> Ask:
    async def ask(line: str, *headers: str, door: Door = OPEN, **more: Any) -> Reply:
        served = await start(app.app, door=door, budgets=Known())
        return await (await served.connect()).ask(line, *headers, **more)

    return ask


@pytest.mark.parametrize("header", [GOOD, "authorization: bearer sk-ann", "x-api-key: sk-ann"])
@pytest.mark.parametrize("door", [OPEN, LOCKED])
async def test_a_key_lets_its_holder_in(ask: Ask, app: App, header: str, door: Door) -> None:
    assert (await ask("GET /v1/models", header, door=door)).status == 200
    assert (app.calls[0].key, app.calls[0].authenticated) == (ANN, True)


@pytest.mark.parametrize("door", [OPEN, LOCKED])
async def test_an_unknown_key_is_refused_also_where_none_is_needed(
    ask: Ask, app: App, door: Door
) -> None:
    reply = await ask("GET /v1/models", "x-api-key: sk-eve", door=door)
    assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
    assert reply.error["type"] == "invalid_request_error"
    assert "sk-eve" not in str(reply)
    assert app.calls == []


@pytest.mark.parametrize(
    "headers", [(), ("authorization: Bearer ",), ("x-api-key: ",), ("authorization: Basic eDp5",)]
)
async def test_who_shows_no_key_is_anonymous_or_refused(
    ask: Ask, app: App, headers: tuple[str, ...]
) -> None:
    assert (await ask("GET /v1/models", *headers)).status == 200
    assert (app.calls[0].key, app.calls[0].authenticated) == (ANONYMOUS_KEY, False)
    assert (await ask("GET /v1/models", *headers, door=LOCKED)).status == 401


async def test_the_audit_hears_who_was_refused_and_of_nobody_who_was_not(
    start: Start, app: App
) -> None:
    budgets = Auditing()
    served = await start(app.app, door=LOCKED, budgets=budgets)
    peer = await served.connect()
    for headers in ((), ("x-api-key: sk-eve",), (GOOD,)):
        await peer.ask("GET /v1/models", *headers)
    await peer.ask("GET /refused", GOOD)
    await wait_all_tasks_blocked()  # it is told when the request has ended, after its last byte
    assert budgets.heard == [
        ("invalid_api_key", None, "127.0.0.1"),
        ("invalid_api_key", None, "127.0.0.1"),
        ("insufficient_quota", ANN.principal, "127.0.0.1"),
    ]


@pytest.mark.parametrize("path", ["/health"])
@pytest.mark.parametrize("headers", [(), ("x-api-key: sk-eve",)])
async def test_a_public_path_asks_nobody(
    ask: Ask, app: App, path: str, headers: tuple[str, ...]
) -> None:
    assert (await ask(f"GET {path}", *headers, door=LOCKED)).status == 200
    assert app.calls[0].principal == ANONYMOUS


async def test_a_client_s_own_words_of_who_it_is_are_stripped(ask: Ask, app: App) -> None:
    spoofed = (
        "x-helexa-account-id: boss",
        "x-helexa-key-id: boss",
        "x-helexa-weight: 1000",
        "x-helexa-priority: interactive",
    )
    assert (await ask("GET /v1/models", GOOD, *spoofed)).status == 200
    assert app.calls[0].key == ANN
    assert not [name for name in app.headers[0] if name.startswith("x-helexa-")]


async def test_a_node_believes_weight_and_priority_of_a_gateway(ask: Ask, app: App) -> None:
    told = (
        "x-helexa-account-id: lab",
        "x-helexa-key-id: ann",
        "x-helexa-weight: 3",
        "x-helexa-priority: batch",
    )
    node = Door(token="s3cret", believe_principals=True)
    assert (await ask("GET /v1/models", "x-api-key: s3cret", *told, door=node)).status == 200
    assert app.calls[0].key == ANN


async def test_every_answer_tells_what_is_left(ask: Ask) -> None:
    for line in ("GET /v1/models", "GET /refused", "GET /stream", "GET /nothing/here", "GET /"):
        headers = (await ask(line, GOOD)).headers
        if line == "GET /":
            assert "x-ratelimit-limit-tokens" not in headers  # nobody in particular asked
            continue
        assert headers["x-ratelimit-remaining-tokens"] == "40"
        assert headers["anthropic-ratelimit-tokens-remaining"] == "40"
        assert headers["x-ratelimit-reset-tokens"] == "1m0s"


async def test_a_balance_that_is_spent_is_told_so_that_clients_stop(ask: Ask) -> None:
    reply = await ask("GET /refused", GOOD)
    assert (reply.status, reply.error["type"]) == (429, "insufficient_quota")
    assert reply.error["code"] == "insufficient_quota"
    assert reply.error["remaining_tokens"] == 0
    assert reply.headers["x-should-retry"] == "false"
    assert "retry-after" not in reply.headers


async def test_too_many_wrong_keys_from_one_address_must_wait(
    start: Start, app: App, virtual_time: MockClock
) -> None:
    peer = await (await start(app.app, door=OPEN, budgets=Known())).connect()
    replies = [await peer.ask("GET /v1/models", "x-api-key: sk-eve") for _ in range(BURST + 1)]
    assert [reply.status for reply in replies] == [401] * BURST + [429]
    wait = int(replies[-1].headers["retry-after"])
    assert (await peer.ask("GET /v1/models", GOOD)).status == 429
    assert (await peer.ask("GET /v1/models")).status == 200
    await trio.sleep(wait)
    assert (await peer.ask("GET /v1/models", GOOD)).status == 200
    assert (await peer.ask("GET /v1/models", "x-api-key: sk-eve")).status in (401, 429)
    assert (await peer.ask("GET /v1/models", GOOD)).status == 200


async def test_who_shows_a_wrong_key_is_not_told_what_those_without_one_have_left(
    start: Start, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Known, "snapshot", lambda budgets, principal: Remaining(100, 40, None))
    peer = await (await start(app.app, door=OPEN, budgets=Known())).connect()
    assert (await peer.ask("GET /v1/models")).headers["x-ratelimit-remaining-tokens"] == "40"
    assert (
        "x-ratelimit-remaining-tokens"
        not in (await peer.ask("GET /v1/models", "x-api-key: sk-eve")).headers
    )
