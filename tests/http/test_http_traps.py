"""Requests and clients that hurt a stock hypercorn: none may hang or end this server."""

from typing import Any

import pytest
import trio
from http_peer import Served, Start, request
from trio.testing import MockClock

from helexa.config.schema import Limits
from helexa.http.bind import bind
from helexa.http.crowd import Crowd
from helexa.http.http1 import Http1
from helexa.http.refusals import Refusals

WEBSOCKET = (
    b"GET /hello HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
HEAD = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

MALFORMED = {
    "nothing but a line end": b"\r\n\r\n\r\n\r\n",
    "a byte of zero": b"\x00",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2 by prior knowledge": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "HTTP/2 without a preface": b"GET /hello HTTP/2.0\r\nHost: localhost\r\n\r\n",
    "HTTP/9.9": b"GET /hello HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "HTTP/0.9": b"GET /hello\r\n\r\n",
    "no method": b" / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no target": b"GET  HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no host": b"GET /hello HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /hello HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    "an empty host": b"GET /hello HTTP/1.1\r\nHost:\r\n\r\n",
    "a target without a slash": b"GET hello HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a target with an authority": b"GET http://localhost/hello HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an empty path": b"GET ?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "CONNECT": b"CONNECT localhost:22 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "OPTIONS of everything": b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a header without a colon": b"GET /hello HTTP/1.1\r\nHost: localhost\r\nnonsense\r\n\r\n",
    "a space before the colon": b"GET /hello HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "a header that begins folded": b"GET /hello HTTP/1.1\r\n folded: x\r\nHost: localhost\r\n\r\n",
    "a control byte in a header": b"GET /hello HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
    "a length that is no number": HEAD + b"Content-Length: ten\r\n\r\n{}",
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n{}",
    "an endless length": HEAD + b"Content-Length: " + b"9" * 400 + b"\r\n\r\n{}",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length of two values": HEAD + b"Content-Length: 2, 3\r\n\r\n{}",
    "a length and chunks": HEAD
    + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "an unknown transfer encoding": HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
    "two transfer encodings": HEAD
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunked twice in one": HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n",
    "a chunk size that is no number": CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKED + b"2\r\n{}x\r\n0\r\n\r\n",
    "a chunk header without end": CHUNKED + b"2;" + b"x" * 200_000,
    "WebSocket": WEBSOCKET,
    "WebSocket and one byte": WEBSOCKET + b"x",
    "WebSocket and a second request": WEBSOCKET + request("GET /hello"),
    "WebSocket over POST": WEBSOCKET.replace(b"GET", b"POST"),
}


async def is_well(served: Served) -> bool:
    return (await (await served.connect()).ask("GET /hello")).status == 200


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_request_is_refused_and_harms_nobody_else(
    virtual_time: MockClock, start: Start, raw: bytes
) -> None:
    served = await start()
    peer = await served.connect()
    await peer.send(raw)
    reply = await peer.reply()
    assert 400 <= reply.status < 500
    assert reply.error["message"]
    assert reply.headers["x-request-id"] == reply.error["request_id"]
    assert await is_well(served)
    assert not served.ended.is_set()


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_request_may_end_at_any_byte(start: Start, raw: bytes) -> None:
    served = await start()
    for end in {1, len(raw) // 2, len(raw) - 1, len(raw)} & set(range(1, len(raw) + 1)):
        peer = await served.connect()
        await peer.send(raw[:end])
        await trio.aclose_forcefully(peer.stream)
    assert await is_well(served)
    assert not served.ended.is_set()


async def test_an_upgrade_to_http2_is_ignored(start: Start) -> None:
    peer = await (await start()).connect()
    upgrade = (
        "upgrade: h2c",
        "connection: upgrade, http2-settings",
        "http2-settings: AAMAAABkAAQAAP__",
    )
    assert (await peer.ask("GET /hello", *upgrade)).status == 200
    assert (await peer.ask("GET /hello")).status == 200


# -- clients that do not read ----------------------------------------------------------------------


async def test_a_client_that_stops_reading_is_aborted_and_its_route_settled(
    virtual_time: MockClock, start: Start
) -> None:
    served = await start(limits=Limits(write_timeout_seconds=30))
    peer = await served.connect()
    await peer.send(request("GET /flood"))
    await served.seen.started.wait()
    before = trio.current_time()
    await served.seen.ended.wait()
    assert 30 <= trio.current_time() - before < 31
    assert await is_well(served)


async def test_a_slow_reader_is_no_stuck_reader(virtual_time: MockClock, start: Start) -> None:
    served = await start(limits=Limits(write_timeout_seconds=30))
    peer = await served.connect()
    await peer.send(request("GET /flood"))
    for _ in range(20):
        await trio.sleep(20)
        await peer.stream.receive_some(1_000_000)
    assert not served.seen.ended.is_set()


async def test_a_stuck_reader_costs_a_shutdown_no_more_than_the_drain_time(
    virtual_time: MockClock, start: Start
) -> None:
    served = await start(drain_seconds=5)
    peer = await served.connect()
    await peer.send(request("GET /flood"))
    await served.seen.started.wait()
    served.drain.set()
    before = trio.current_time()
    await served.ended.wait()
    assert 4.9 < trio.current_time() - before < 5.5
    assert served.seen.how == ["closed"]


# -- idle connections at shutdown ------------------------------------------------------------------


async def test_idle_connections_are_closed_at_once_when_draining(
    virtual_time: MockClock, start: Start
) -> None:
    served = await start(drain_seconds=60)
    peers = [await served.connect() for _ in range(20)]
    for peer in peers:
        assert (await peer.ask("GET /hello")).status == 200
    silent = await served.connect()
    half = await served.connect()
    await half.send(b"GET /hello HTTP/1.1\r\nHo")
    await trio.testing.wait_all_tasks_blocked(0.05)
    served.drain.set()
    before = trio.current_time()
    await served.ended.wait()
    assert trio.current_time() - before < 0.5
    for peer in [*peers, silent, half]:
        assert await peer.is_closed()


# -- clients that leave ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/wait", "/stream"])
async def test_a_client_that_leaves_cancels_its_route(start: Start, path: str) -> None:
    served = await start()
    peer = await served.connect()
    await peer.send(request(f"GET {path}"))
    await served.seen.started.wait()
    await peer.stream.aclose()
    with trio.fail_after(5):
        await served.seen.ended.wait()
    assert served.seen.how[0] in ("cancelled", "closed")


async def test_a_pipelined_request_does_not_hide_that_the_client_left(start: Start) -> None:
    served = await start()
    peer = await served.connect()
    await peer.send(request("GET /wait") + request("GET /hello"))
    await served.seen.started.wait()
    await peer.stream.aclose()
    with trio.fail_after(5):
        await served.seen.ended.wait()
    assert served.seen.how == ["cancelled"]


async def test_pipelined_requests_are_answered_in_order(start: Start) -> None:
    peer = await (await start()).connect()
    await peer.send(
        request("GET /hello")
        + request("POST /echo", body=b"[1]")
        + request("GET /nowhere")
        + request("GET /short")
        + request("GET /hello")
    )
    assert [(await peer.reply()).status for _ in range(5)] == [200, 200, 404, 200, 200]


async def test_a_flood_of_pipelined_bytes_is_not_read_into_memory(start: Start) -> None:
    served = await start()
    peer = await served.connect()
    await peer.send(request("GET /wait"))
    await served.seen.started.wait()
    with trio.move_on_after(0.3) as full:
        while True:
            await peer.send(request("GET /hello") * 1000)
    assert full.cancelled_caught  # the kernel's buffers are full, and ours take no more
    assert served.seen.how == []


async def test_a_half_closed_connection_counts_as_a_client_that_left(start: Start) -> None:
    served = await start()
    peer = await served.connect()
    await peer.send(request("GET /wait"))
    await served.seen.started.wait()
    await peer.stream.send_eof()
    with trio.fail_after(5):
        await served.seen.ended.wait()
        assert await peer.is_closed()


async def test_a_client_that_leaves_within_its_body_cancels_its_route(start: Start) -> None:
    served = await start()
    peer = await served.connect()
    await peer.send(request("POST /wait", "content-length: 100", body=b"[1,2"))
    await peer.stream.aclose()
    assert await is_well(served)
    assert served.seen.how == []  # the route never got its body


# -- our own mistakes ------------------------------------------------------------------------------


async def test_a_mistake_in_the_protocol_ends_its_connection_only(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    served = await start()
    with monkeypatch.context() as broken:
        broken.setattr(Http1, "_check_protocol", None)
        peer = await served.connect()
        await peer.send(request("GET /hello"))
        assert await peer.is_closed()
    assert [record.message for record in caplog.records] == ["a connection failed and was closed"]
    assert await is_well(served)


async def test_an_application_that_reads_nothing_holds_up_nobody(start: Start) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await trio.testing.wait_all_tasks_blocked(0.05)  # until no more of the body goes in
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"enough"})

    served = await start(app)
    peer = await served.connect()
    await peer.send(request("POST /", "content-length: 9000000", body=b"x" * 5_000_000))
    assert (await peer.reply()).body == b"enough"
    assert (await (await served.connect()).ask("GET /")).body == b"enough"


async def test_who_comes_in_the_moment_of_draining_is_not_served() -> None:
    listener = await bind("test", "127.0.0.1:0", Limits())

    def connect(stream: trio.SocketStream) -> Any:
        return None

    crowd = Crowd(connect, Limits(), Refusals("test"))
    crowd.drain()
    async with listener, await trio.open_tcp_stream(*listener.socket.getsockname()):
        accepted = await listener.accept()
        await crowd.receive(accepted)
        await accepted.aclose()
