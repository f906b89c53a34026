"""Whatever is refused, wherever it is refused, is told in the envelope of the client's dialect."""

from pathlib import Path
from typing import Any

import pytest
from dialects import CHAT, DIALECTS, MESSAGES, RESPONSES, Dialect, app_of, make_api
from http_peer import Peer, Reply, Start
from trio.testing import MockClock

from helexa.config.schema import Limits
from helexa.http.doors import Door

NODE = Door(token="s3cret")
each_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)


def check(reply: Reply, dialect: Dialect, kind: str, messages_kind: str) -> None:
    """`reply` is an error of this type in the dialect's own shape."""
    told = reply.json
    assert told["error"]["message"]
    if dialect is not MESSAGES:
        assert set(told) == {"error"}
        assert told["error"]["type"] == kind
        assert told["error"]["request_id"] == reply.headers["x-request-id"]
        return
    assert (told["type"], told["error"]["type"]) == ("error", messages_kind)
    assert told["request_id"] == reply.headers["x-request-id"] == reply.headers["request-id"]


async def connect(start: Start, directory: Path, **served: Any) -> Peer:
    return await (await start(app_of(make_api(directory)), **served)).connect()


@each_dialect
async def test_at_the_door(start: Start, tmp_path: Path, dialect: Dialect) -> None:
    peer = await connect(start, tmp_path, door=NODE)
    reply = await peer.ask(f"POST {dialect.path}", body=dialect.body())
    assert reply.status == 401
    check(reply, dialect, "invalid_request_error", "authentication_error")


@each_dialect
async def test_of_a_foreign_page(start: Start, tmp_path: Path, dialect: Dialect) -> None:
    peer = await connect(start, tmp_path)
    foreign = "origin: https://evil.example"
    reply = await peer.ask(f"POST {dialect.path}", foreign, body=dialect.body())
    assert reply.status == 403
    check(reply, dialect, "invalid_request_error", "permission_error")


@each_dialect
async def test_where_there_is_no_route(start: Start, tmp_path: Path, dialect: Dialect) -> None:
    peer = await connect(start, tmp_path)
    reply = await peer.ask(f"POST {dialect.path}/batches/of/any/kind", body=b"{}")
    assert (reply.status, reply.error["code"]) == (404, "not_found")
    check(reply, dialect, "invalid_request_error", "not_found_error")


@each_dialect
async def test_of_a_wrong_method(start: Start, tmp_path: Path, dialect: Dialect) -> None:
    peer = await connect(start, tmp_path)
    reply = await peer.ask(f"GET {dialect.path}")
    assert (reply.status, reply.headers["allow"]) == (405, "OPTIONS, POST")
    check(reply, dialect, "invalid_request_error", "invalid_request_error")


@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b'{"model": NaN}', b"{}"])
@each_dialect
async def test_of_a_body_that_is_no_request(
    start: Start, tmp_path: Path, dialect: Dialect, body: bytes
) -> None:
    peer = await connect(start, tmp_path)
    reply = await peer.ask(f"POST {dialect.path}", body=body)
    assert reply.status == 400
    check(reply, dialect, "invalid_request_error", "invalid_request_error")


@each_dialect
async def test_of_a_body_that_is_too_large(start: Start, tmp_path: Path, dialect: Dialect) -> None:
    peer = await connect(start, tmp_path, limits=Limits(max_body_mb=1))
    kind = "content-type: application/json"
    reply = await peer.ask(f"POST {dialect.path}", "content-length: 9999999", kind)
    assert (reply.status, reply.error["code"]) == (400, "body_too_large")
    check(reply, dialect, "invalid_request_error", "invalid_request_error")


@each_dialect
async def test_of_a_body_that_stops_coming(
    start: Start, tmp_path: Path, dialect: Dialect, virtual_time: MockClock
) -> None:
    peer = await connect(start, tmp_path)
    reply = await peer.ask(f"POST {dialect.path}", "content-length: 10", body=b'{"m')
    assert (reply.status, reply.error["code"]) == (408, "request_timeout")
    check(reply, dialect, "invalid_request_error", "invalid_request_error")


@each_dialect
async def test_of_what_is_not_http(start: Start, tmp_path: Path, dialect: Dialect) -> None:
    peer = await connect(start, tmp_path)
    upgrade = ("connection: upgrade", "upgrade: websocket")
    reply = await peer.ask(f"GET {dialect.path}", *upgrade)
    assert (reply.status, reply.error["code"]) == (426, "upgrade_refused")
    assert "POST" in reply.error["message"]
    assert (reply.headers["upgrade"], reply.headers["connection"]) == (
        "HTTP/1.1",
        "close, upgrade",
    )
    assert (reply.json.get("type") == "error") == (dialect is MESSAGES)


async def test_of_a_broken_chunk(start: Start, tmp_path: Path) -> None:
    peer = await connect(start, tmp_path)
    chunked = ("transfer-encoding: chunked", "content-type: application/json")
    reply = await peer.ask("POST /v1/messages", *chunked, body=b"nonsense\r\n")
    assert reply.status == 400
    assert reply.json["type"] == "error"


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/v1/v1/chat/completions", "Leave /v1 out"),
        ("/chat/completions", "under /v1"),
        ("/models", "under /v1"),
        ("/v1/audio/speech", "nothing at /v1/audio/speech."),
    ],
)
async def test_a_base_url_that_is_not_quite_right_is_told_how(
    start: Start, tmp_path: Path, path: str, hint: str
) -> None:
    peer = await connect(start, tmp_path)
    assert hint in (await peer.ask(f"GET {path}")).error["message"]


async def test_a_path_may_end_with_a_slash(start: Start, tmp_path: Path) -> None:
    peer = await connect(start, tmp_path)
    for dialect in DIALECTS:
        assert (await peer.ask(f"POST {dialect.path}/", body=dialect.body())).status == 200
    assert (await peer.ask("GET /v1/models/")).json["object"] == "list"


async def test_a_base_url_may_end_with_a_slash(start: Start, tmp_path: Path) -> None:
    peer = await connect(start, tmp_path)
    assert (await peer.ask("POST //v1/messages", body=MESSAGES.body())).status == 200
    assert (await peer.ask("POST //v1/messages", body=b"{}")).json["type"] == "error"


async def test_of_lists_by_the_header_that_asks_for_a_shape(start: Start, tmp_path: Path) -> None:
    peer = await connect(start, tmp_path)
    plain = await peer.ask("GET /v1/models/ghost")
    assert (plain.status, set(plain.json)) == (404, {"error"})
    theirs = await peer.ask("GET /v1/models/ghost", "anthropic-version: 2023-06-01")
    assert (theirs.status, theirs.error["type"]) == (404, "not_found_error")


async def test_other_paths_have_the_plain_envelope(start: Start, tmp_path: Path) -> None:
    peer = await connect(start, tmp_path)
    for path in ("/nothing", "/v1/audio/speech", "/messages", "/v1/messagess"):
        reply = await peer.ask(f"POST {path}", body=b"{}")
        assert reply.status == 404
        check(reply, CHAT, "invalid_request_error", "")


async def test_the_stored_responses_of_nobody_are_not_found(start: Start, tmp_path: Path) -> None:
    peer = await connect(start, tmp_path)
    for line in ("GET /v1/responses/resp_1", "DELETE /v1/responses/resp_1"):
        reply = await peer.ask(line)
        assert reply.status == 404
        check(reply, RESPONSES, "invalid_request_error", "")
