"""What a client is told when a node refuses, dies or hangs, and what is left when a client leaves."""

from contextlib import aclosing
from typing import Any

import orjson
import pytest
import trio
from fake_node import Answer, answer, chunks, cut, fake_node, hang
from relayed import (
    DONE,
    HELLO,
    NUM_TOKENS,
    Answered,
    Kind,
    Room,
    chunk,
    prepared,
    room,
    sse,
    streamed,
    usage_chunk,
)
from trio.testing import MockClock

from helexa.config.schema import RemoteNode
from helexa.conversation import Progress, Usage
from helexa.errors import (
    Busy,
    ContextLengthExceeded,
    HelexaError,
    InsufficientVram,
    InvalidRequest,
    NotLoaded,
    PrincipalBusy,
    ServiceUnavailable,
    UpstreamError,
    UpstreamMalformed,
)
from helexa.nodes.client import Client
from helexa.nodes.port import NodeLost
from helexa.nodes.upstream import UpstreamPort
from helexa.wire.envelope import status_and_body

BUSY = {"error": {"message": "The queue is full.", "code": "rate_limit_exceeded"}}
TOO_LONG = {
    "error": {
        "message": "This model's maximum context length is 8 tokens.",
        "code": "context_length_exceeded",
        "param": "messages",
        "prompt_len": 9,
        "max": 8,
    }
}
MISSING = {"error": {"message": "Not here.", "code": "model_not_found", "param": "model"}}
VRAM = {"error": {"message": "Full.", "code": "insufficient_vram", "free_mb": 3}}


async def refusal_of(kind: Kind, given: Answer, *, dialect: Any = "chat") -> HelexaError:
    async with room(kind, chat=given, messages=given) as found:
        with pytest.raises(HelexaError) as refusal:
            await found.ask(prepared(dialect))
    return refusal.value


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        (answer(BUSY, 503, retry_after="7"), Busy, {"retry_after": 7.0}),
        (answer(BUSY, 429, retry_after="7"), PrincipalBusy, {"retry_after": 7.0}),
        (answer(MISSING, 404), NotLoaded, {"param": "model"}),
        (answer(TOO_LONG, 400), ContextLengthExceeded, {"details": {"prompt_len": 9, "max": 8}}),
        (answer(VRAM, 503), InsufficientVram, {"details": {"free_mb": 3}}),
        (answer({"error": {"message": "No."}}, 400), InvalidRequest, {"message": "No."}),
        (answer({"error": "recovering"}, 503), UpstreamError, {"status": 503}),
    ],
)
async def test_a_node_refuses_by_the_table_of_errors(
    given: Answer, error: type[HelexaError], said: dict[str, Any]
) -> None:
    refusal = await refusal_of("helexa", given)
    assert type(refusal) is error
    assert {name: getattr(refusal, name) for name in said} == said


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (answer(b"Loading", 503), Busy),
        (answer({"error": {"message": "slow down"}}, 429), PrincipalBusy),
        (answer({"error": {"message": "No.", "param": "model", "code": 404}}, 404), NotLoaded),
        (answer(TOO_LONG, 400), ContextLengthExceeded),
        (answer(b"<html>Bad Gateway", 502), UpstreamError),
        (answer({"error": {"message": "No."}}, 422), UpstreamError),
    ],
)
async def test_of_an_upstream_s_refusals_those_are_known_that_somebody_acts_on(
    given: Answer, error: type[HelexaError]
) -> None:
    assert type(await refusal_of("openai", given)) is error


async def test_an_upstream_s_refusal_passes_with_status_and_body_in_its_own_dialect() -> None:
    body = orjson.dumps({"error": {"message": "No.", "code": "odd"}, "more": [1]})
    given = answer(body, 418, content_type="application/json")
    refusal = await refusal_of("openai", given)
    assert status_and_body(refusal, "req_1")[::2] == (418, body)
    elsewhere = await refusal_of("openai", given, dialect="messages")
    assert (elsewhere.status, elsewhere.code, elsewhere.message) == (418, "upstream_error", "No.")
    assert elsewhere.said is None


@pytest.mark.parametrize("status", [401, 403])
async def test_a_gateway_that_is_not_let_in_does_not_send_its_client_away_for_it(
    status: int,
) -> None:
    refusal = await refusal_of("openai", answer({"error": {"message": "key sk-1"}}, status))
    assert (refusal.status, refusal.code) == (502, "upstream_error")
    assert "token" in refusal.message
    assert "sk-1" not in refusal.message


# -- in a stream ---------------------------------------------------------------------------------------


async def test_a_node_that_refuses_in_a_stream_refuses_as_well() -> None:
    waits = [b": queued 1/1\n\n", *sse(BUSY), DONE]
    async with room("helexa", chat=streamed(*waits)) as found:
        with pytest.raises(Busy, match="The queue is full"):
            await found.ask(prepared(stream=True))


async def test_what_came_before_an_error_in_a_stream_passes() -> None:
    failure = {"error": {"message": "CUDA error", "code": 500, "type": "server_error"}}
    async with room(chat=streamed(b"".join([*HELLO[:3], *sse(failure)]), DONE)) as found:
        answered = Answered()
        with pytest.raises(UpstreamError, match="CUDA error") as refusal:
            await found.ask(prepared(stream=True), answered)
    assert answered.data == b"".join(HELLO[:3])
    assert refusal.value.code == "upstream_error"


@pytest.mark.parametrize("frames", [[], [b": prefill 1/2\n\n"]])
@pytest.mark.parametrize("end", [cut, None])
async def test_a_node_that_dies_before_the_first_token_is_lost(
    frames: list[bytes], end: Answer | None
) -> None:
    async with room("helexa", chat=chunks(*frames, end=end)) as found:
        with pytest.raises(NodeLost):
            await found.ask(prepared(stream=True))


@pytest.mark.parametrize("dialect", ["chat", "messages"])
async def test_a_node_that_dies_after_the_first_token_is_an_upstream_s_error(dialect: Any) -> None:
    async with room(chat=chunks(*HELLO[:2], end=cut)) as found:
        with pytest.raises(UpstreamError) as refusal:
            await found.ask(prepared(dialect, stream=True))
        assert found.trace.usage == Usage(NUM_TOKENS, 1)
    assert refusal.value.code == "upstream_connection_error"
    assert not isinstance(refusal.value, UpstreamMalformed)


async def test_a_node_that_dies_after_the_last_word_harms_nobody() -> None:
    async with room(chat=chunks(*HELLO, *sse(usage_chunk(3, 2)), DONE, end=cut)) as found:
        answered = await found.ask(prepared(stream=True))
    assert answered.usage.completion_tokens == 2


async def test_a_node_that_dies_within_a_whole_answer_is_lost() -> None:
    async with room(chat=chunks(b'{"choices":', end=cut)) as found:
        with pytest.raises(NodeLost):
            await found.ask(prepared())


async def test_nobody_there_is_a_node_that_is_lost() -> None:
    node = RemoteNode("gone", "http://127.0.0.1:9", "openai")
    async with fake_node() as other:
        with Client(node) as client, pytest.raises(NodeLost, match="gone"):
            await Room(UpstreamPort(node, client), other).ask(prepared())


async def test_a_stream_that_goes_on_after_its_last_word_is_ended(
    autojump_clock: MockClock,
) -> None:
    async with room(chat=chunks(*HELLO, DONE, end=hang)) as found:
        answered = await found.ask(prepared(stream=True))
        await trio.sleep(0.1)
        assert found.node.num_open == 0
    assert answered.data == b"".join([*HELLO, DONE])


# -- time ----------------------------------------------------------------------------------------------


@pytest.fixture
def virtual_time() -> MockClock:
    """Time leaps when nothing moves, neither a task nor a byte on a socket of this machine."""
    return MockClock(autojump_threshold=0.05)


@pytest.mark.parametrize("given", [hang, chunks(end=hang), chunks(b": x\n\n", end=hang)])
async def test_who_waits_hears_of_it_every_second(virtual_time: MockClock, given: Answer) -> None:
    async with room("openai", chat=given) as found:
        began_at = trio.current_time()
        async with aclosing(found.generate(prepared(stream=True))) as batches:
            for _ in range(30):
                assert await anext(batches) == [Progress("queued")]
        assert trio.current_time() - began_at == pytest.approx(30, abs=2)


async def test_a_node_that_hangs_is_given_up(virtual_time: MockClock) -> None:
    """It says something every ten seconds as long as it lives."""
    async with room("helexa", chat=chunks(b": queued 1/1\n\n", end=hang)) as found:
        began_at = trio.current_time()
        with pytest.raises(NodeLost):
            await found.ask(prepared(stream=True))
        assert trio.current_time() - began_at < 60


async def test_a_whole_answer_that_stalls_after_its_head_is_given_up(
    virtual_time: MockClock,
) -> None:
    async with room("helexa", chat=chunks(b'{"choices":', end=hang)) as found:
        began_at = trio.current_time()
        with pytest.raises(NodeLost, match="silent"):
            await found.ask(prepared())
        assert trio.current_time() - began_at == pytest.approx(45, abs=2)


@pytest.mark.parametrize("given", [hang, chunks(b'{"choices":', end=hang)])
async def test_a_node_that_hangs_in_a_whole_answer_is_given_up_when_nobody_hears_of_it(
    virtual_time: MockClock, given: Answer
) -> None:
    """A whole answer may take long, and says nothing meanwhile."""
    async with room("helexa", chat=given) as found:
        with trio.move_on_after(40) as patience:
            await found.ask(prepared())
        assert patience.cancelled_caught
        found.node.answers["/hang"] = hang
        with pytest.raises(NodeLost):
            await found.port.client.fetch("GET", "/hang")
        asked_at = trio.current_time()
        with pytest.raises(NodeLost, match="not heard of"):
            await found.ask(prepared())
        assert trio.current_time() - asked_at == pytest.approx(30, abs=2)


# -- clients -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [[], HELLO[:2]])
async def test_a_client_that_leaves_closes_the_node_s_connection_at_once(
    frames: list[bytes],
) -> None:
    async with room(chat=chunks(*frames, end=hang)) as found:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.ask, prepared(stream=True))
            await until(lambda: bool(found.node.asked))
            nursery.cancel_scope.cancel()
        with trio.fail_after(1):
            await until(lambda: found.node.num_open == 0)


async def test_a_client_that_stops_reading_stops_the_node() -> None:
    sent = 0
    frame = sse(chunk({"content": "x" * 60_000}))[0]

    async def flood(stream: trio.SocketStream) -> None:
        nonlocal sent
        while True:
            await stream.send_all(b"%x\r\n%s\r\n" % (len(frame), frame))
            sent += 1

    async with (
        room(chat=chunks(HELLO[0], end=flood)) as found,
        aclosing(found.generate(prepared(stream=True))) as batches,
    ):
        await anext(batches)
        before = -1
        while before < sent:  # until the buffers of both sockets are full
            before = sent
            with trio.move_on_after(0.2):
                await trio.sleep_forever()
        assert sent * len(frame) < 32 * 2**20
        for _ in range(50):
            await anext(batches)
        await until(lambda: sent > before)


async def until(holds: Any) -> None:
    while not holds():
        await trio.lowlevel.checkpoint()


def test_a_lost_node_is_one_that_another_may_stand_in_for() -> None:
    assert issubclass(NodeLost, ServiceUnavailable)
