"""Answers of other servers on their last steps: bytes that pass through the HTTP room as they are."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from dialects import CHAT, DIALECTS, RESPONSES, Dialect, Ended, Scripted, Step, app_of, make_api
from http_peer import Peer, Start, request
from trio.testing import MockClock

from helexa.conversation import ChoiceFinished, Finished, Passed, Progress, Started, Usage
from helexa.errors import UpstreamError

FIRST, MORE = b'data: {"odd" :1}\n\n', b": theirs\n\ndata: {}\n\n"
BEGUN = [Passed(FIRST, 1), Started(5)]
ENDED = [Passed(MORE, 2), ChoiceFinished(0, "length"), Finished(Usage(5, 3))]
OpenRoom = Callable[..., Awaitable[tuple[Peer, Ended]]]
each_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)


@pytest.fixture
def room(start: Start, tmp_path: Path) -> OpenRoom:
    async def open_room(*steps: Step) -> tuple[Peer, Ended]:
        ended = Ended()
        served = await start(app_of(make_api(tmp_path, Scripted(steps), ended)))
        return await served.connect(), ended

    return open_room


def asked(dialect: Dialect, **body: object) -> bytes:
    return request(f"POST {dialect.path}", body=dialect.body(**body))


@each_dialect
async def test_a_stream_that_passes_is_written_as_it_came_and_noted(
    room: OpenRoom, dialect: Dialect
) -> None:
    peer, ended = await room(BEGUN, ENDED)
    await peer.send(asked(dialect, stream=True))
    reply = await peer.reply()
    assert reply.body == FIRST + MORE
    trace = await ended.trace()
    assert (trace.usage, trace.outcome) == (Usage(5, 3), "length")
    assert trace.opened


@each_dialect
async def test_a_whole_answer_that_passes_is_written_as_it_came(
    room: OpenRoom, dialect: Dialect
) -> None:
    whole = b'{ "odd": 1 }'
    peer, ended = await room([Passed(whole, 3), Started(5), *ENDED[1:]])
    await peer.send(asked(dialect))
    reply = await peer.reply()
    assert (reply.body, reply.headers["content-type"]) == (whole, "application/json")
    assert (await ended.trace()).usage == Usage(5, 3)


@each_dialect
async def test_a_stream_that_passes_is_kept_alive_where_nothing_comes(
    virtual_time: MockClock, room: OpenRoom, dialect: Dialect
) -> None:
    peer, _ = await room(BEGUN, 25.0, ENDED)
    began_at = trio.current_time()
    await peer.send(asked(dialect, stream=True))
    reply = await peer.reply()
    assert trio.current_time() - began_at > 20
    alive = reply.body.removeprefix(FIRST).removesuffix(MORE)
    assert 2 <= alive.count(b"\n\n") <= 3
    assert b"response.created" not in alive


@each_dialect
async def test_a_server_that_dies_in_the_middle_is_told_in_the_client_s_dialect(
    room: OpenRoom, dialect: Dialect
) -> None:
    peer, ended = await room(BEGUN, UpstreamError("It went away."))
    await peer.send(asked(dialect, stream=True))
    reply = await peer.reply()
    assert reply.body.startswith(FIRST)
    told = reply.body.removeprefix(FIRST)
    assert told.count(b"data: {") == 1
    assert told.startswith(dialect.failed)
    assert told.endswith(dialect.last)
    assert b"It went away." in told
    assert (await ended.trace()).outcome == "upstream_error"


async def test_bytes_may_pass_after_signs_of_life_of_ours(
    virtual_time: MockClock, room: OpenRoom
) -> None:
    peer, _ = await room([Progress("queued")], 4.0, BEGUN, ENDED)
    await peer.send(asked(CHAT, stream=True))
    body = (await peer.reply()).body
    assert body.startswith(CHAT.alive)
    assert body.endswith(FIRST + MORE)


async def test_what_an_upstream_said_itself_is_told_so(room: OpenRoom) -> None:
    error = UpstreamError("No.")
    error.status, error.said = 418, b'{"error" : {"message":"No."} }'
    peer, _ = await room(error)
    await peer.send(asked(RESPONSES))
    reply = await peer.reply()
    assert (reply.status, reply.body) == (418, error.said)
