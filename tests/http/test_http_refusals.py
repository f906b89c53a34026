"""Whoever is refused leaves a line in the log under the id that they were told, and is counted."""

import logging
from typing import Any

import pytest
import trio
from http_peer import Start, request
from quart import Response
from quart import request as quart_request
from quart_trio import QuartTrio
from trio.testing import MockClock, wait_all_tasks_blocked

from helexa import logs
from helexa.config.schema import Limits
from helexa.errors import Busy, Forbidden
from helexa.http.application import configure
from helexa.http.call import call_of
from helexa.http.doors import Door
from helexa.http.refusals import MAX_LINES, SECONDS, Refusals

NODE = Door(token="s3cret")


class Lines(logging.Handler):
    """Every line of the listeners, with its fields and the request that it belongs to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        fields = getattr(record, "fields", {})
        self.found.append({"event": record.getMessage(), "id": logs.request_id.get(), **fields})


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    handler, logger = Lines(), logging.getLogger("helexa.http")
    with caplog.at_level(logging.INFO, "helexa.http"):
        logger.addHandler(handler)
        yield handler.found
        logger.removeHandler(handler)


@pytest.mark.parametrize(
    ("line", "header", "body", "status", "code"),
    [
        ("GET /hello", "accept: */*", b"", 401, "invalid_api_key"),
        ("GET /hello", "origin: https://evil.example", b"", 403, "forbidden"),
        ("GET /ghost", "authorization: Bearer s3cret", b"", 404, "not_found"),
        ("GET /echo", "authorization: Bearer s3cret", b"", 405, "method_not_allowed"),
        ("GET /raise/busy", "authorization: Bearer s3cret", b"", 503, "rate_limit_exceeded"),
        ("PUT hello", "accept: */*", b"", 400, "400"),
        ("WRONG", "accept: */*", b"", 400, "400"),
    ],
)
async def test_every_refusal_is_told_once_and_counted(
    start: Start,
    lines: list[dict[str, Any]],
    line: str,
    header: str,
    body: bytes,
    status: int,
    code: str,
) -> None:
    counted: list[str] = []
    peer = await (await start(door=NODE, on_refusal=counted.append)).connect()
    reply = await peer.ask(line, header, body=body)
    assert reply.status == status
    await wait_all_tasks_blocked()  # the line is written when the request has ended
    (told,) = lines
    assert told["event"] == "request refused"
    assert told["id"] == reply.headers["x-request-id"] == reply.error["request_id"]
    assert (told["listener"], told["status"], told["code"]) == ("test", status, code)
    assert told["peer"] == "127.0.0.1"
    assert counted == [code]


async def test_a_line_has_the_path_alone_short_and_harmless(
    start: Start, lines: list[dict[str, Any]]
) -> None:
    peer = await (await start()).connect()
    await peer.ask("GET /a%1B%5B31m" + "b" * 1000 + "?key=s3cret", "x-request-id: mine-7")
    await wait_all_tasks_blocked()
    (told,) = lines
    assert told["method"] == "GET"
    assert told["path"].startswith(r"/a\x1b[31mbbb")
    assert len(told["path"]) < 300
    assert told["client_request_id"] == "mine-7"
    assert "s3cret" not in str(told)


async def test_what_a_route_keeps_a_record_of_is_not_told_again(
    start: Start, lines: list[dict[str, Any]]
) -> None:
    app = QuartTrio("recording")
    configure(app)

    @app.get("/")
    async def recorded() -> Response:
        call_of(quart_request).recorded = True
        raise Busy("Later.")

    counted: list[str] = []
    peer = await (await start(app, on_refusal=counted.append)).connect()
    assert (await peer.ask("GET /")).status == 503
    await wait_all_tasks_blocked()
    assert lines == counted == []


async def test_an_answer_and_a_mistake_of_ours_are_no_refusals(
    start: Start, lines: list[dict[str, Any]]
) -> None:
    counted: list[str] = []
    peer = await (await start(on_refusal=counted.append)).connect()
    assert (await peer.ask("GET /hello")).status == 200
    assert (await peer.ask("GET /raise/bug")).status == 500
    await wait_all_tasks_blocked()
    assert [line["event"] for line in lines] == ["a request failed unexpectedly"]
    assert counted == []


async def test_whom_there_is_no_room_for_is_told_of(
    start: Start, lines: list[dict[str, Any]]
) -> None:
    counted: list[str] = []
    served = await start(limits=Limits(max_connections=1), on_refusal=counted.append)
    first = await served.connect()
    await first.ask("GET /hello")
    second = await served.connect()
    await second.send(request("GET /hello"))
    reply = await second.reply()
    assert [line["id"] for line in lines] == [reply.headers["x-request-id"]]
    assert counted == ["service_unavailable"]


async def test_a_flood_of_refusals_does_not_flood_the_log(
    autojump_clock: MockClock, lines: list[dict[str, Any]]
) -> None:
    counted: list[str] = []
    refusals = Refusals("test", counted.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refusals.run)
        for _ in range(MAX_LINES + 70):
            refusals.note(Forbidden("No."), "req_1", "::1")
        await trio.sleep(SECONDS + 1)
        refusals.note(Forbidden("No."), "req_2", "::1")
        nursery.cancel_scope.cancel()
    told = [line["event"] for line in lines]
    assert told == ["request refused"] * MAX_LINES + ["more requests refused", "request refused"]
    assert lines[-2]["count"] == 70
    assert len(counted) == MAX_LINES + 71


async def test_what_was_left_out_is_told_at_the_end_of_a_listener(
    autojump_clock: MockClock, lines: list[dict[str, Any]]
) -> None:
    refusals = Refusals("test")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refusals.run)
        for _ in range(MAX_LINES + 1):
            refusals.note(Forbidden("No."), "req_1", "::1")
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert (lines[-1]["event"], lines[-1]["count"]) == ("more requests refused", 1)
