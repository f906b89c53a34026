"""Large requests: read in a thread, so that nobody else waits for them."""

import threading
from pathlib import Path

import pytest
import trio
from dialects import CHAT, DIALECTS, MESSAGES, RESPONSES, Dialect, Scripted, app_of, make_api
from http_peer import Peer, Start

from helexa.conversation import Json
from helexa.http.inference import LARGE_BODY
from helexa.wire import openai_chat
from helexa.wire.exchange import Exchange

LONG = "x" * LARGE_BODY
LARGE: dict[str, Json] = {
    "chat": {"messages": [{"role": "user", "content": LONG}]},
    "completions": {"prompt": LONG},
    "responses": {"input": LONG},
    "messages": {"messages": [{"role": "user", "content": LONG}]},
}


async def connect(start: Start, directory: Path, answers: Scripted | None = None) -> Peer:
    return await (await start(app_of(make_api(directory, answers)))).connect()


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
async def test_a_large_request_is_answered_like_any_other(
    start: Start, tmp_path: Path, dialect: Dialect
) -> None:
    answers = Scripted()
    peer = await connect(start, tmp_path, answers)
    reply = await peer.ask(f"POST {dialect.path}", body=dialect.body(**LARGE[dialect.name]))
    assert (reply.status, len(answers.asked)) == (200, 1)
    assert LONG in str(answers.asked[0])


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
async def test_a_large_request_that_is_wrong_is_refused_by_its_field(
    start: Start, tmp_path: Path, dialect: Dialect
) -> None:
    peer = await connect(start, tmp_path)
    body = dialect.body(**LARGE[dialect.name], temperature="hot")
    reply = await peer.ask(f"POST {dialect.path}", body=body)
    assert (reply.status, reply.error["param"]) == (400, "temperature")


async def test_the_tokens_of_a_large_request_are_counted(start: Start, tmp_path: Path) -> None:
    peer = await connect(start, tmp_path)
    for dialect, path in (
        (MESSAGES, "messages/count_tokens"),
        (RESPONSES, "responses/input_tokens"),
    ):
        body = dialect.body(**LARGE[dialect.name])
        assert (await peer.ask(f"POST /v1/{path}", body=body)).json["input_tokens"] == 42


async def test_a_large_request_goes_on_from_a_stored_response(start: Start, tmp_path: Path) -> None:
    answers = Scripted()
    peer = await connect(start, tmp_path, answers)
    made = (await peer.ask("POST /v1/responses", body=RESPONSES.body())).json["id"]
    body = RESPONSES.body(**LARGE["responses"], previous_response_id=made)
    assert (await peer.ask("POST /v1/responses", body=body)).status == 200
    assert [message.role for message in answers.asked[1].messages] == ["user", "assistant", "user"]
    body = RESPONSES.body(**LARGE["responses"], previous_response_id="resp_of_nobody")
    reply = await peer.ask("POST /v1/responses", body=body)
    assert (reply.status, reply.error["param"]) == (404, "previous_response_id")


async def test_others_are_served_while_a_large_request_is_read(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, served = threading.Event(), threading.Event()

    def read_slowly(body: Json) -> Exchange:
        if len(str(body)) > LARGE_BODY:
            begun.set()
            assert served.wait(10)
        return read(body)

    read = openai_chat.read_request
    monkeypatch.setattr(openai_chat, "read_request", read_slowly)
    server = await start(app_of(make_api(tmp_path)))
    large, small = await server.connect(), await server.connect()
    replies = []

    async def ask_much() -> None:
        body = CHAT.body(**LARGE["chat"])
        replies.append(await large.ask(f"POST {CHAT.path}", body=body))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_much)
        assert await trio.to_thread.run_sync(begun.wait, 10)
        assert (await small.ask(f"POST {CHAT.path}", body=CHAT.body())).status == 200
        served.set()
    assert replies[0].status == 200
