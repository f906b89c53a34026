"""Bounds: on heads, bodies, silence, connections and what the server holds in memory."""

import pytest
import trio
from http_peer import Peer, Served, Start, request
from trio.testing import MockClock, wait_all_tasks_blocked

from helexa.config.schema import Limits
from helexa.http.body import Body, Buffered

MIB = 2**20
JSON = "content-type: application/json"


async def test_a_head_that_does_not_end_in_time_is_told_so(
    virtual_time: MockClock, start: Start
) -> None:
    peer = await (await start(limits=Limits(idle_body_seconds=10))).connect()
    for byte in b"GET /hello":
        await peer.send(bytes([byte]))
        await trio.sleep(0.9)
    before = trio.current_time()
    reply = await peer.reply()
    assert (reply.status, reply.error["code"]) == (408, "request_timeout")
    assert trio.current_time() - before < 2
    await peer.stream.send_eof()
    assert await peer.is_closed()


async def test_a_connection_that_says_nothing_is_closed(
    virtual_time: MockClock, start: Start
) -> None:
    peer = await (await start(limits=Limits(idle_body_seconds=10))).connect()
    assert await peer.is_closed()
    assert 9.9 < trio.current_time() < 11


async def test_a_body_that_falls_silent_is_given_up(virtual_time: MockClock, start: Start) -> None:
    served = await start(limits=Limits(idle_body_seconds=10))
    peer = await served.connect()
    await peer.send(request("POST /echo", "content-length: 10", body=b"[1,"))
    before = trio.current_time()
    reply = await peer.reply()
    assert 9.9 < trio.current_time() - before < 10.5
    assert (reply.status, reply.error["code"]) == (408, "request_timeout")
    assert reply.headers["connection"] == "close"
    assert await peer.is_closed()


async def test_a_slow_body_that_keeps_coming_is_waited_for(
    virtual_time: MockClock, start: Start
) -> None:
    peer = await (await start(limits=Limits(idle_body_seconds=10))).connect()
    await peer.send(request("POST /echo", "content-length: 10", body=b"["))
    for _ in range(8):
        await trio.sleep(9)
        await peer.send(b" ")
    await peer.send(b"]")
    assert (await peer.reply()).body == b"[        ]"


async def test_a_route_may_take_longer_than_a_body_may_pause(
    virtual_time: MockClock, start: Start
) -> None:
    served = await start(limits=Limits(idle_body_seconds=10))
    peer = await served.connect()
    await peer.send(request("POST /wait", body=b"[]"))
    await trio.sleep(500)
    served.seen.go_on.set()
    assert (await peer.reply()).status == 200


async def test_a_head_of_too_many_bytes_is_refused(start: Start) -> None:
    served = await start(limits=Limits(max_header_kb=8))
    fits, exceeds, at_once = [await served.connect() for _ in range(3)]
    assert (await fits.ask("GET /hello", "x: " + "a" * 7000)).status == 200
    await exceeds.send(b"GET /hello HTTP/1.1\r\nx: " + b"a" * 400_000)
    for reply in (await exceeds.reply(), await at_once.ask("GET /hello", "x: " + "a" * 9000)):
        assert (reply.status, reply.error["code"]) == (431, "headers_too_large")


async def test_too_many_headers_are_refused(start: Start) -> None:
    peer = await (await start(limits=Limits(max_headers=20))).connect()
    assert (await peer.ask("GET /hello", *["x: y"] * 19)).status == 200
    reply = await peer.ask("GET /hello", *["x: y"] * 20)
    assert (reply.status, reply.error["code"]) == (431, "headers_too_large")


# -- bodies ----------------------------------------------------------------------------------------


@pytest.fixture
def small() -> Limits:
    return Limits(max_body_mb=0.001, max_buffered_mb=0.0015)  # 1048 and 1572 bytes


async def test_a_body_announced_as_too_large_is_refused_before_it_comes(
    start: Start, small: Limits
) -> None:
    peer = await (await start(limits=small)).connect()
    reply = await peer.ask("POST /echo", JSON, "content-length: 1049")
    assert_too_large(reply)


async def test_a_chunked_body_is_refused_when_it_has_become_too_large(
    start: Start, small: Limits
) -> None:
    peer = await (await start(limits=small)).connect()
    await peer.send(request("POST /echo", JSON, "transfer-encoding: chunked"))
    await peer.send(b"200\r\n" + b"x" * 512 + b"\r\n")
    await peer.send(b"219\r\n" + b"x" * 537 + b"\r\n")
    assert_too_large(await peer.reply())


async def test_a_body_of_just_the_size_is_taken(start: Start, small: Limits) -> None:
    peer = await (await start(limits=small)).connect()
    assert (await peer.ask("POST /echo", body=b"x" * 1048)).status == 200


async def test_a_client_that_sends_40_megabytes_before_it_reads_gets_its_answer(
    start: Start,
) -> None:
    peer = await (await start()).connect()
    await peer.send(request("POST /echo", body=b"x" * 40 * MIB))
    assert_too_large(await peer.reply())


async def test_a_client_that_sends_40_chunked_megabytes_before_it_reads_gets_its_answer(
    start: Start,
) -> None:
    peer = await (await start()).connect()
    await peer.send(request("POST /echo", JSON, "transfer-encoding: chunked"))
    for _ in range(40):
        await peer.send(b"100000\r\n" + b"x" * MIB + b"\r\n")
    assert_too_large(await peer.reply())


async def test_whoever_never_stops_sending_is_cut_off(
    virtual_time: MockClock, start: Start
) -> None:
    served = await start()
    peer = await served.connect()
    await peer.send(request("POST /echo", JSON, "content-length: 99999999999"))
    assert_too_large(await peer.reply())
    with pytest.raises(trio.BrokenResourceError):
        await keep_sending(peer)
    assert trio.current_time() < 15


def assert_too_large(reply: object) -> None:
    assert (reply.status, reply.error["code"]) == (400, "body_too_large")
    assert reply.headers["connection"] == "close"


async def test_a_route_that_answers_without_its_body_leaves_no_hung_connection(
    virtual_time: MockClock, start: Start
) -> None:
    peer = await (await start()).connect()
    await peer.send(request("POST /unread", "content-length: 3000000", body=b"x" * 2_000_000))
    reply = await peer.reply()
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert await peer.is_closed()


async def test_bodies_together_may_not_fill_the_memory(start: Start, small: Limits) -> None:
    served = await start(limits=small)
    first, second = await served.connect(), await served.connect()
    await first.send(request("POST /wait", "content-length: 1000", body=b"x" * 999))
    await wait_all_tasks_blocked(0.05)
    reply = await second.ask("POST /echo", body=b"x" * 600)
    assert (reply.status, reply.error["code"]) == (503, "service_unavailable")
    assert reply.headers["retry-after"] == "1"


async def test_a_body_that_its_route_has_taken_no_longer_counts(
    start: Start, small: Limits
) -> None:
    served = await start(limits=small)
    first, second = await served.connect(), await served.connect()
    await first.send(request("POST /wait", body=b"x" * 1000))
    await served.seen.started.wait()
    assert (await second.ask("POST /echo", body=b"x" * 1000)).status == 200
    served.seen.go_on.set()
    assert (await first.reply()).status == 200


async def test_a_body_gives_its_bytes_back_once() -> None:
    messages = iter(
        [{"body": b"x" * 60, "more_body": True}, {"body": b"x" * 30, "more_body": False}]
    )

    async def receive() -> object:
        return next(messages)

    buffered = Buffered(limit=100)
    body = Body(receive, buffered, 100, 1.0, is_here=lambda: False)
    await body.receive()
    await body.receive()
    assert buffered.held == 90
    body.release()
    body.release()
    assert buffered.held == 0


# -- connections -----------------------------------------------------------------------------------


async def test_connections_beyond_the_limit_are_told_to_come_back(start: Start) -> None:
    served = await start(limits=Limits(max_connections=3))
    peers = [await open_and_ask(served) for _ in range(3)]
    excess = await served.connect()
    reply = await excess.reply()
    assert (reply.status, reply.headers["connection"]) == (503, "close")
    assert reply.headers["retry-after"] == "1"
    assert reply.headers["x-request-id"] == reply.error["request_id"]
    await excess.stream.aclose()
    await peers[0].stream.aclose()
    await wait_all_tasks_blocked(0.05)
    assert (await (await served.connect()).ask("GET /hello")).status == 200


async def test_one_address_cannot_take_all_connections(start: Start) -> None:
    served = await start(limits=Limits(max_connections_per_address=2), bind="0.0.0.0:0")
    for _ in range(2):
        await open_and_ask(served)
    assert (await (await served.connect()).reply()).status == 503
    elsewhere = await served.connect_from("127.0.0.9")
    assert (await elsewhere.ask("GET /hello")).status == 200


async def test_a_connection_turned_away_does_not_stay(
    virtual_time: MockClock, start: Start
) -> None:
    served = await start(limits=Limits(max_connections=1))
    await open_and_ask(served)
    excess = await served.connect()
    assert (await excess.reply()).status == 503
    with pytest.raises(trio.BrokenResourceError):
        await keep_sending(excess)
    assert trio.current_time() < 4


async def open_and_ask(served: Served) -> object:
    peer = await served.connect()
    assert (await peer.ask("GET /hello")).status == 200
    return peer


async def keep_sending(peer: Peer) -> None:
    for _ in range(100):
        await trio.sleep(1)
        await peer.send(b"x")
