"""Responses that stream: their headers, their end, and what is left when they never begin."""

import math
from collections.abc import AsyncGenerator

import pytest
import trio
from http_app import last_words
from http_peer import Start, request
from quart import Response
from quart import request as quart_request
from quart_trio import QuartTrio

from helexa.http.application import configure
from helexa.http.call import call_of
from helexa.http.stream import sse_response


async def test_a_stream_tells_proxies_to_pass_it_on_unbuffered(start: Start) -> None:
    peer = await (await start()).connect()
    headers = (await peer.ask("GET /short")).headers
    assert headers["content-type"] == "text/event-stream"
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert headers["transfer-encoding"] == "chunked"


async def test_every_event_is_sent_as_soon_as_it_is_there(start: Start) -> None:
    served = await start()
    peer = await served.connect()
    await peer.send(request("GET /stream"))
    assert (await peer.head())[0] == 200
    with trio.fail_after(5):
        assert await peer.chunk() == b"data: 0\n\n"


@pytest.mark.parametrize(("kind", "words"), [("expected", b"Busy"), ("bug", b"KeyError")])
async def test_a_failing_stream_ends_with_the_last_words_of_its_dialect(
    start: Start, kind: str, words: bytes
) -> None:
    peer = await (await start()).connect()
    reply = await peer.ask(f"GET /failing-stream/{kind}")
    assert reply.body == b"data: 0\n\ndata: " + words + b"\n\n"
    assert (await peer.ask("GET /hello")).status == 200  # it was a whole response


async def test_a_stream_without_last_words_is_seen_to_be_cut(start: Start) -> None:
    peer = await (await start()).connect()
    await peer.send(request("GET /bare-failing-stream"))
    await peer.head()
    assert await peer.chunk() == b"data: 0\n\n"
    with pytest.raises(trio.BrokenResourceError):
        await peer.rest()


async def test_an_old_client_sees_a_cut_stream_too(start: Start) -> None:
    """HTTP/1.0 has no chunks: only a reset tells it from a whole one."""
    peer = await (await start()).connect()
    await peer.send(b"GET /bare-failing-stream HTTP/1.0\r\nHost: localhost\r\n\r\n")
    with pytest.raises(trio.BrokenResourceError):
        await peer.rest()


async def test_a_stream_notices_within_one_event_that_its_client_left(start: Start) -> None:
    app = QuartTrio("test")
    configure(app)
    send, receive = trio.open_memory_channel[bytes](math.inf)
    taken: list[bytes] = []
    closed = trio.Event()

    async def events() -> AsyncGenerator[bytes, None]:
        try:
            async for event in receive:
                taken.append(event)
                yield event
        finally:
            closed.set()

    @app.get("/")
    async def stream() -> Response:
        return sse_response(events(), call_of(quart_request), last_words)

    peer = await (await start(app)).connect()
    await peer.send(request("GET /"))
    send.send_nowait(b"data: 0\n\n")
    await peer.head()
    assert await peer.chunk() == b"data: 0\n\n"
    await peer.stream.aclose()
    send.send_nowait(b"data: 1\n\n")
    with trio.fail_after(5):
        await closed.wait()
    send.send_nowait(b"data: 2\n\n")
    assert len(taken) <= 2


async def test_a_stream_that_never_begins_is_closed_all_the_same(start: Start) -> None:
    app = QuartTrio("test")
    configure(app)
    settled: list[str] = []

    async def events() -> AsyncGenerator[bytes, None]:
        try:
            yield b"first"
            yield b"second"
        finally:
            settled.append("closed")

    @app.get("/")
    async def stream() -> Response:
        call = call_of(quart_request)
        call.exits.callback(settled.append, "slot freed")
        generator = events()
        await anext(generator)
        sse_response(generator, call, last_words)
        raise KeyError("between the making of the response and its start")

    peer = await (await start(app)).connect()
    assert (await peer.ask("GET /")).status == 500
    assert settled == ["closed", "slot freed"]
