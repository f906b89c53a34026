"""A listener in good weather: addresses, keep-alive, bodies, Quart's settings."""

import socket

import pytest
import trio
from http_peer import Start, request
from quart_trio import QuartTrio
from trio.testing import MockClock

from helexa.config.schema import Limits
from helexa.errors import CannotBind
from helexa.http.bind import bind
from helexa.http.server import Listener, serve

LIMITS = Limits()


def has_ipv6_loopback() -> bool:
    with socket.socket(socket.AF_INET6) as sock:
        try:
            sock.bind(("::1", 0))
        except OSError:
            return False
    return True


async def test_a_request_is_answered_and_the_connection_kept(start: Start) -> None:
    peer = await (await start()).connect()
    for _ in range(3):
        reply = await peer.ask("GET /hello")
        assert (reply.status, reply.json) == (200, {"hello": "world"})
        assert "connection" not in reply.headers
        assert "server" not in reply.headers


async def test_every_response_has_its_own_request_id(start: Start) -> None:
    peer = await (await start()).connect()
    replies = [await peer.ask(f"GET {path}") for path in ("/hello", "/hello", "/nowhere")]
    ids = [reply.headers["x-request-id"] for reply in replies]
    assert all(one.startswith("req_") and len(one) == 28 for one in ids)
    assert len(set(ids)) == 3


async def test_a_body_comes_back_as_it_was_sent(start: Start) -> None:
    peer = await (await start()).connect()
    body = b'"' + b"x" * 300_000 + b'"'
    assert (await peer.ask("POST /echo", body=body)).body == body
    chunked = b"5\r\n[1,2,\r\n2\r\n3]\r\n0\r\n\r\n"
    reply = await peer.ask("POST /echo", "transfer-encoding: chunked", body=chunked)
    assert reply.body == b"[1,2,3]"


async def test_100_continue_waits_until_the_route_wants_the_body(start: Start) -> None:
    served = await start()
    peer = await served.connect()
    await peer.send(
        request(
            "POST /echo",
            "expect: 100-continue",
            "content-length: 2",
            "content-type: application/json",
        )
    )
    assert (await peer.head())[0] == 100
    await peer.send(b"{}")
    assert (await peer.reply()).body == b"{}"


async def test_a_refused_request_is_not_invited_to_send_its_body(start: Start) -> None:
    peer = await (await start()).connect()
    reply = await peer.ask(
        "POST /echo", "expect: 100-continue", "content-length: 2", "content-type: text/plain"
    )
    assert reply.status == 415
    assert reply.headers["connection"] == "close"
    await peer.stream.send_eof()
    assert await peer.is_closed()


async def test_a_small_response_is_one_write(start: Start) -> None:
    peer = await (await start()).connect()
    await peer.send(request("GET /hello"))
    assert (await peer.stream.receive_some(65536)).endswith(b'{"hello":"world"}')


async def test_head_has_the_length_and_no_body(start: Start) -> None:
    peer = await (await start()).connect()
    reply = await peer.ask("HEAD /hello")
    assert (reply.status, reply.headers["content-length"], reply.body) == (200, "17", b"")
    assert (await peer.ask("GET /hello")).status == 200


async def test_http_1_0_is_answered_and_closed(start: Start) -> None:
    peer = await (await start()).connect()
    await peer.send(b"GET /hello HTTP/1.0\r\nHost: localhost\r\n\r\n")
    assert (await peer.reply()).json == {"hello": "world"}
    assert await peer.is_closed()


async def test_a_connection_that_asks_to_be_closed_is_closed(start: Start) -> None:
    peer = await (await start()).connect()
    reply = await peer.ask("GET /hello", "connection: close")
    assert reply.headers["connection"] == "close"
    assert await peer.is_closed()


async def test_an_idle_connection_is_closed_in_the_end(
    virtual_time: MockClock, start: Start
) -> None:
    peer = await (await start()).connect()
    await peer.ask("GET /hello")
    before = trio.current_time()
    assert await peer.is_closed()
    assert 74 < trio.current_time() - before < 76


async def test_routes_are_answered_in_the_envelope_whatever_they_raise(start: Start) -> None:
    peer = await (await start()).connect()
    busy = await peer.ask("GET /raise/busy")
    assert (busy.status, busy.error["code"]) == (503, "rate_limit_exceeded")
    assert busy.headers["retry-after"] == "2"
    bug = await peer.ask("GET /raise/bug")
    assert (bug.status, bug.error["type"], bug.error["code"]) == (500, "api_error", None)
    assert bug.headers["x-request-id"] in bug.error["message"]
    assert b"secret" not in bug.body


async def test_what_has_no_route_is_told_in_the_envelope(start: Start) -> None:
    peer = await (await start()).connect()
    missing = await peer.ask("GET /nowhere")
    assert (missing.status, missing.error["code"]) == (404, "not_found")
    wrong = await peer.ask("DELETE /hello")
    assert (wrong.status, wrong.error["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "GET, HEAD, OPTIONS"


async def test_a_stream_may_be_longer_than_a_minute(virtual_time: MockClock, start: Start) -> None:
    peer = await (await start()).connect()
    reply = await peer.ask("GET /long/100")
    assert reply.body.endswith(b"data: 90\n\ndata: done\n\n")
    assert (await peer.ask("GET /hello")).status == 200


async def test_a_task_that_fails_in_the_lifespan_does_not_end_the_server(start: Start) -> None:
    served = await start()

    async def fail() -> None:
        raise ValueError("a background task")

    served.app.nursery.start_soon(fail)
    peer = await served.connect()
    assert (await peer.ask("GET /hello")).status == 200


async def test_an_application_without_lifespan_is_served(start: Start) -> None:
    async def app(scope: dict[str, object], receive: object, send: object) -> None:
        assert scope["type"] == "http"

    served = await start(app)
    peer = await served.connect()
    assert (await peer.ask("GET /")).status == 500  # it answered nothing
    assert not served.ended.is_set()


# -- addresses -------------------------------------------------------------------------------------


async def test_the_url_tells_the_real_port(start: Start) -> None:
    served = await start()
    assert served.url == f"http://127.0.0.1:{served.port}"
    assert served.port > 0


@pytest.mark.skipif(not has_ipv6_loopback(), reason="this machine has no ::1")
async def test_ipv6_is_served_under_its_own_name(start: Start) -> None:
    served = await start(bind="[::1]:0")
    assert served.url == f"http://[::1]:{served.port}"
    peer = await served.connect("::1")
    assert (await peer.ask("GET /hello", host=f"[::1]:{served.port}")).status == 200


async def test_a_wildcard_is_reached_through_the_address_of_the_connection(start: Start) -> None:
    served = await start(bind="0.0.0.0:0")
    assert served.url == f"http://127.0.0.1:{served.port}"
    peer = await served.connect("127.0.0.2")
    assert (await peer.ask("GET /hello", host="127.0.0.2")).status == 200
    assert (await peer.ask("GET /hello", host=socket.gethostname())).status == 200
    assert (await peer.ask("GET /hello", host="evil.example")).status == 403


async def test_a_taken_address_is_told_in_one_sentence(start: Start) -> None:
    taken = (await start()).url.removeprefix("http://")
    with pytest.raises(CannotBind) as caught:
        await refused(taken)
    assert (
        str(caught.value)
        == f"The gateway cannot listen on {taken}: another program uses this address."
    )


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("192.0.2.1:0", "this machine has no such address"),
        ("nonsense", "'nonsense' is not an address and a port, like 127.0.0.1:31313"),
        ("127.0.0.1:99999", "'127.0.0.1:99999' is not an address and a port, like 127.0.0.1:31313"),
    ],
)
async def test_an_impossible_address_is_told_in_words(address: str, reason: str) -> None:
    with pytest.raises(CannotBind, match=reason):
        await refused(address)


async def refused(address: str) -> None:
    listener = Listener(QuartTrio("test"), address, "gateway")
    await serve(listener, LIMITS, drain=trio.Event(), drain_seconds=1)


async def test_the_kernel_watches_over_every_connection() -> None:
    """It notices what no write of ours would: a client that lost power, or that takes too little."""
    listener = await bind("test", "127.0.0.1:0", Limits(write_timeout_seconds=7))
    async with listener, await trio.open_tcp_stream(*listener.socket.getsockname()):
        accepted = await listener.accept()
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7000
        await accepted.aclose()
