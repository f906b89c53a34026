"""Requests of every dialect, from the first byte to what is left when they have ended."""

import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define
from dialects import (
    CHAT,
    DIALECTS,
    END,
    HELLO,
    MESSAGES,
    RESPONSES,
    Dialect,
    Ended,
    Scripted,
    Step,
    app_of,
    make_api,
)
from http_peer import Peer, Start, request
from trio.testing import MockClock

from helexa.conversation import Conversation, Progress, TextDelta, Thinking
from helexa.errors import Busy, ContextLengthExceeded, PrincipalBusy
from helexa.http.api import Api
from helexa.http.inference import with_wishes

FOREVER: Step = math.inf
TOO_LONG = ContextLengthExceeded("Too long.", param="messages", prompt_len=9, max=8)


@define
class Room:
    """A served API: how it answers, what it remembers, and a client."""

    answers: Scripted
    ended: Ended
    api: Api
    peer: Peer

    async def ask(self, dialect: Dialect, *headers: str, **body: Any) -> None:
        line = f"POST {dialect.path}"
        await self.peer.send(request(line, *headers, body=dialect.body(**body)))


OpenRoom = Callable[..., Awaitable[Room]]


@pytest.fixture
def room(start: Start, tmp_path: Path) -> OpenRoom:
    async def open_room(*steps: Step) -> Room:
        answers, ended = Scripted(steps), Ended()
        api = make_api(tmp_path, answers, ended)
        served = await start(app_of(api))
        return Room(answers, ended, api, await served.connect())

    return open_room


each_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)


async def stream(peer: Peer) -> AsyncIterator[tuple[float, bytes]]:
    """The chunks of a stream, each with the seconds since it was asked for."""
    asked_at = trio.current_time()
    status, _ = await peer.head()
    assert status == 200
    yield trio.current_time() - asked_at, b""
    while chunk := await peer.chunk():
        yield trio.current_time() - asked_at, chunk


# -- answers -----------------------------------------------------------------------------------------


@each_dialect
async def test_a_whole_answer_holds_what_was_said(room: OpenRoom, dialect: Dialect) -> None:
    here = await room(HELLO, END)
    await here.ask(dialect)
    reply = await here.peer.reply()
    assert reply.status == 200
    assert b"Hello there" in reply.body
    assert here.answers.asked[0].model == "m"
    trace = await here.ended.trace()
    assert (trace.dialect, trace.finish, trace.stream) == (dialect.name, "stop", False)


@each_dialect
async def test_a_stream_is_complete(room: OpenRoom, dialect: Dialect) -> None:
    here = await room(HELLO, END)
    await here.ask(dialect, stream=True)
    reply = await here.peer.reply()
    assert reply.headers["content-type"] == "text/event-stream"
    assert dialect.completed in reply.body
    assert reply.body.endswith(dialect.last)
    assert (b"[DONE]" in reply.body) == bool(dialect.last)
    assert (await here.ended.trace()).stream


@each_dialect
async def test_the_id_of_an_answer_is_that_of_its_request(room: OpenRoom, dialect: Dialect) -> None:
    here = await room(HELLO, END)
    await here.ask(dialect)
    reply = await here.peer.reply()
    assert reply.headers["x-request-id"].removeprefix("req_") in reply.json["id"]


# -- opening and staying alive -----------------------------------------------------------------------


@each_dialect
async def test_a_stream_that_waits_is_opened_after_two_seconds_and_kept_alive_every_ten(
    room: OpenRoom, dialect: Dialect, virtual_time: MockClock
) -> None:
    here = await room(35.0, HELLO, END)
    await here.ask(dialect, stream=True)
    opened, *chunks = [found async for found in stream(here.peer)]
    assert opened[0] == pytest.approx(2, abs=0.5)
    signs = [at for at, data in chunks if dialect.alive in data]
    assert [round(at) for at in signs] == [2, 12, 22, 32]
    transcript = b"".join(data for _, data in chunks)
    assert dialect.completed in transcript


@each_dialect
async def test_a_stream_is_kept_alive_while_its_answer_writes_nothing(
    room: OpenRoom, dialect: Dialect, virtual_time: MockClock
) -> None:
    quiet: list[Step] = [[TextDelta(0, "")]] * 3
    here = await room(HELLO, *(step for one in quiet for step in (1.0, one)), 25.0, END)
    await here.ask(dialect, stream=True)
    chunks = [found async for found in stream(here.peer)]
    assert max(later - sooner for (sooner, _), (later, _) in pairwise(chunks)) <= 11.0


async def test_who_waits_is_told_at_once_when_it_is_for_something_else(
    room: OpenRoom, virtual_time: MockClock
) -> None:
    loading, prefill = [Progress("loading", 1, 2)], [Progress("prefill")]
    here = await room(3.0, loading, loading, prefill, HELLO, [Progress("decode")], END)
    await here.ask(CHAT, stream=True)
    told = (await here.peer.reply()).body
    assert told.count(b": loading 1/2") == told.count(b": prefill 0/0") == 1
    assert told.index(b": queued") < told.index(b": loading") < told.index(b": prefill")
    assert b": decode" not in told


async def test_a_better_place_in_the_queue_is_told_at_once(
    room: OpenRoom, virtual_time: MockClock
) -> None:
    places = [[Progress("queued", ahead, 4)] for ahead in (3, 3, 4, 2, 0)]
    here = await room(3.0, *places, HELLO, END)
    await here.ask(CHAT, stream=True)
    told = (await here.peer.reply()).body
    shown = [f": queued {ahead}/4\n".encode() in told for ahead in (2, 0, 4)]
    assert shown == [True, True, False]


async def test_an_answer_that_comes_in_time_has_no_sign_of_life(
    room: OpenRoom, virtual_time: MockClock
) -> None:
    here = await room(1.0, HELLO, END)
    await here.ask(CHAT, stream=True)
    assert b": queued" not in (await here.peer.reply()).body


# -- errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_stream", [False, True])
@each_dialect
async def test_a_refusal_on_arrival_is_a_status_in_the_dialect_s_envelope(
    room: OpenRoom, dialect: Dialect, is_stream: bool
) -> None:
    here = await room(Busy("There is a queue.", retry_after=3))
    await here.ask(dialect, stream=is_stream)
    reply = await here.peer.reply()
    assert reply.status == 503
    assert reply.headers["retry-after"] == "3"
    assert reply.error["message"] == "There is a queue."
    expected = "overloaded_error" if dialect is MESSAGES else "rate_limit_error"
    assert reply.error["type"] == expected
    assert (reply.json.get("type") == "error") == (dialect is MESSAGES)
    trace = await here.ended.trace()
    assert trace.outcome == "rate_limit_exceeded"


async def test_a_principal_at_its_cap_is_429_and_503_on_responses(room: OpenRoom) -> None:
    here = await room(PrincipalBusy("You have four open."))
    for dialect, status in ((CHAT, 429), (MESSAGES, 429), (RESPONSES, 503)):
        await here.ask(dialect)
        assert (await here.peer.reply()).status == status


@each_dialect
async def test_a_prompt_that_is_too_long_is_told_in_words_that_the_dialect_s_clients_know(
    room: OpenRoom, dialect: Dialect
) -> None:
    here = await room(TOO_LONG)
    await here.ask(dialect, stream=True)
    reply = await here.peer.reply()
    assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")
    if dialect is MESSAGES:
        assert reply.error["message"] == "prompt is too long: 9 tokens > 8 maximum"


@each_dialect
async def test_a_refusal_after_the_opening_is_the_dialect_s_event_and_the_last(
    room: OpenRoom, dialect: Dialect, virtual_time: MockClock
) -> None:
    here = await room(5.0, TOO_LONG)
    await here.ask(dialect, stream=True)
    body = (await here.peer.reply()).body
    assert dialect.failed in body
    assert b"context_length_exceeded" in body
    assert body.endswith(dialect.last)
    assert dialect.completed not in body
    assert (await here.ended.trace()).outcome == "context_length_exceeded"


@each_dialect
async def test_an_answer_that_breaks_off_ends_in_words(room: OpenRoom, dialect: Dialect) -> None:
    here = await room(HELLO, Busy("The model was taken away."))
    await here.ask(dialect, stream=True)
    body = (await here.peer.reply()).body
    assert b"Hello" in body
    assert dialect.failed in body
    assert b"The model was taken away." in body


@pytest.mark.parametrize("steps", [(KeyError("secret"),), (5.0, KeyError("secret"))])
@each_dialect
async def test_an_unexpected_error_tells_the_request_id_and_nothing_else(
    room: OpenRoom, dialect: Dialect, steps: tuple[Step, ...], virtual_time: MockClock
) -> None:
    here = await room(*steps)
    await here.ask(dialect, stream=True)
    reply = await here.peer.reply()
    assert reply.status == (500 if len(steps) == 1 else 200)
    assert b"secret" not in reply.body
    assert reply.headers["x-request-id"].encode() in reply.body
    assert (await here.ended.trace()).outcome == "500"


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("steps", [(), (HELLO,), (5.0,)], ids=["nothing", "no end", "no answer"])
@each_dialect
async def test_an_answer_without_an_end_is_never_taken_for_a_whole_one(
    room: OpenRoom,
    dialect: Dialect,
    steps: tuple[Step, ...],
    is_stream: bool,
    virtual_time: MockClock,
) -> None:
    here = await room(*steps)
    await here.ask(dialect, stream=is_stream)
    reply = await here.peer.reply()
    assert reply.status == 500 or dialect.failed in reply.body
    assert dialect.completed not in reply.body


# -- leaving -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [(HELLO, FOREVER), (FOREVER,)], ids=["answering", "waiting"])
@each_dialect
async def test_a_client_that_leaves_ends_the_generation(
    room: OpenRoom, dialect: Dialect, steps: tuple[Step, ...], virtual_time: MockClock
) -> None:
    here = await room(*steps)
    await here.ask(dialect, stream=True)
    await here.peer.head()
    await here.peer.stream.aclose()
    await here.answers.closed.wait()
    assert (await here.ended.trace()).finish == "client_left"


# -- what a request asks for beside its body ---------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "header", "expected"),
    [
        (Thinking(), None, Thinking()),
        (Thinking(), "false", Thinking()),
        (Thinking(), "true", Thinking(enabled=True, shown=True)),
        (Thinking(), " TRUE", Thinking(enabled=True, shown=True)),
        (Thinking(enabled=False), "true", Thinking(enabled=False, shown=True)),
        (Thinking(effort="low", budget=5), "true", Thinking(True, "low", 5, True)),
    ],
)
def test_a_header_asks_for_reasoning_in_every_dialect(
    said: Thinking, header: str | None, expected: Thinking
) -> None:
    headers = {} if header is None else {"x-include-thinking": header}
    assert with_wishes(Conversation("m", thinking=said), headers).thinking == expected


@each_dialect
async def test_the_header_reaches_the_model(room: OpenRoom, dialect: Dialect) -> None:
    here = await room(HELLO, END)
    await here.ask(dialect, "x-include-thinking: true")
    await here.peer.reply()
    assert here.answers.asked[0].thinking.shown


async def test_what_was_left_out_of_a_request_is_told_with_its_decisions(room: OpenRoom) -> None:
    here = await room(HELLO, END)
    tools = [{"type": "web_search"}, {"type": "nügg\r\net"}]
    await here.ask(RESPONSES, "x-helexa-explain: 1", tools=tools)
    reply = await here.peer.reply()
    assert reply.status == 200
    assert "web_search" in reply.headers["x-helexa-decision"]
    assert any("web_search" in text for _, text in (await here.ended.trace()).decisions)


async def test_a_captured_answer_holds_everything_that_was_said(room: OpenRoom) -> None:
    here = await room(HELLO, END)
    path = here.api.capture.open("anonymous", 60, trio.current_time())
    await here.ask(MESSAGES, stream=True)
    await here.peer.reply()
    question, answer = (json.loads(line) for line in path.read_text().splitlines())
    assert '"hi"' in question["body"]
    assert answer["body"] == [{"text": "Hello there", "reason": "stop"}]
