"""Ending a listener: by draining it, or at once."""

import pytest
import trio
from http_peer import Start, request
from trio.testing import MockClock, wait_all_tasks_blocked


async def test_a_running_stream_finishes_while_new_connections_are_refused(
    virtual_time: MockClock, start: Start
) -> None:
    served = await start(drain_seconds=60)
    peer = await served.connect()
    await peer.send(request("GET /stream"))
    await served.seen.started.wait()
    served.drain.set()
    await trio.sleep(5)
    with pytest.raises(OSError, match="connect"):
        await served.connect()
    assert not served.ended.is_set()
    served.seen.go_on.set()
    reply = await peer.reply()
    assert reply.body.endswith(b"data: done\n\n")
    with trio.fail_after(1):
        await served.ended.wait()
    assert served.seen.how == ["finished", "closed"]


async def test_a_response_that_begins_while_draining_says_that_the_connection_ends(
    virtual_time: MockClock, start: Start
) -> None:
    served = await start()
    peer = await served.connect()
    await peer.send(request("GET /wait") + request("GET /hello"))
    await served.seen.started.wait()
    served.drain.set()
    await wait_all_tasks_blocked()
    served.seen.go_on.set()
    reply = await peer.reply()
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert await peer.is_closed()  # the second request is not begun
    await served.ended.wait()


async def test_what_does_not_finish_in_time_is_cancelled_and_seen_to_be_cut(
    virtual_time: MockClock, start: Start
) -> None:
    served = await start(drain_seconds=20)
    stream, waiting = await served.connect(), await served.connect()
    await stream.send(request("GET /stream"))
    await waiting.send(request("GET /wait"))
    await served.seen.started.wait()
    served.drain.set()
    before = trio.current_time()
    await served.ended.wait()
    assert 19.9 < trio.current_time() - before < 21
    assert sorted(served.seen.how) == ["cancelled", "closed"]
    with pytest.raises(trio.BrokenResourceError):
        await stream.rest()
    assert await waiting.is_closed()


async def test_with_no_drain_time_everything_is_cancelled_at_once(
    virtual_time: MockClock, start: Start
) -> None:
    served = await start(drain_seconds=0)
    peer = await served.connect()
    await peer.send(request("GET /stream"))
    await served.seen.started.wait()
    served.drain.set()
    with trio.fail_after(0.5):
        await served.ended.wait()


async def test_cancelling_the_server_is_a_quick_stop(virtual_time: MockClock, start: Start) -> None:
    served = await start(drain_seconds=60)
    flood, stream, idle = [await served.connect() for _ in range(3)]
    await flood.send(request("GET /flood"))
    await stream.send(request("GET /stream"))
    await idle.ask("GET /hello")
    await served.seen.started.wait()
    before = trio.current_time()
    served.scope.cancel()
    await served.ended.wait()
    assert trio.current_time() - before < 0.1
    assert served.seen.how == ["closed", "closed"]
    assert await idle.is_closed()


async def test_a_drained_address_can_be_served_again(start: Start) -> None:
    first = await start()
    peer = await first.connect()
    await peer.ask("GET /hello")
    first.drain.set()
    await first.ended.wait()
    second = await start(bind=first.url.removeprefix("http://"))
    assert (await (await second.connect()).ask("GET /hello")).status == 200


async def test_an_application_can_be_served_twice(start: Start) -> None:
    first = await start()
    await (await first.connect()).ask("GET /hello")
    first.drain.set()
    await first.ended.wait()
    second = await start(first.app)
    assert (await (await second.connect()).ask("GET /hello")).status == 200
