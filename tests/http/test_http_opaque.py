"""Embeddings, audio and the like, from a client to an upstream and back, unread but for the model."""

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
import pytest
import trio
from attrs import define, field
from dialects import Ended
from http_peer import Peer, Start
from quart_trio import QuartTrio

from helexa.accounts.amount import Used
from helexa.accounts.provider import Granted, Unmetered, Wanted
from helexa.config.schema import Limits, RemoteNode
from helexa.errors import ModelNotFound
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.entry import ModelEntry
from helexa.fleet.view import ModelView, NodeView
from helexa.http.application import configure
from helexa.http.opaque import add_opaque
from helexa.nodes.client import Client
from helexa.nodes.upstream import UpstreamPort
from helexa.opaque import Opaque

EMBEDDED = b'{ "data": [], "usage": {"prompt_tokens": 12, "total_tokens": 12} }'
HEAD = "HTTP/1.1 200 OK\r\ncontent-type: {}\r\n{}\r\n"


@define(eq=False)
class Upstream:
    """Answers every request alike, and remembers what came."""

    answer: bytes
    port: int = 0
    requests: list[bytes] = field(factory=list)

    async def serve(self, stream: trio.SocketStream) -> None:
        asked = b""
        while not is_complete(asked):
            asked += await stream.receive_some()
        self.requests.append(asked)
        await stream.send_all(self.answer)
        await stream.aclose()


def is_complete(asked: bytes) -> bool:
    head, found, body = asked.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    return bool(found) and len(body) >= int(length[1] if length else 0)


def answered(body: bytes, kind: str = "application/json", status: str = "200 OK") -> bytes:
    head = HEAD.format(kind, f"content-length: {len(body)}\r\nx-secret: 1\r\n")
    return head.replace("200 OK", status).encode() + body


@define(eq=False)
class Budgets(Unmetered):
    """Remembers what was reserved and settled."""

    wanted: list[Wanted] = field(factory=list)
    settled: list[Used] = field(factory=list)

    async def reserve(self, wanted: Wanted) -> Granted:
        self.wanted.append(wanted)
        granted = Granted(wanted.max_output)
        granted.settle = self.settled.append  # type: ignore[method-assign]
        return granted


@define(eq=False)
class Room:
    peer: Peer
    upstream: Upstream
    budgets: Budgets
    ended: Ended


def resolve(name: str) -> CatalogueModel:
    if name not in ("embedder", "alias"):
        raise ModelNotFound(f"There is no model {name}.")
    return CatalogueModel("embedder", aliases=("alias",))


@asynccontextmanager
async def room(start: Start, answer: bytes = b"") -> AsyncGenerator[Room, None]:
    upstream, budgets, ended = Upstream(answer or answered(EMBEDDED)), Budgets(), Ended()
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        upstream.port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, upstream.serve, [listener])
        node = RemoteNode("vllm", f"http://127.0.0.1:{upstream.port}/v1", "openai", token="t0ken")
        async with Client(node) as client:
            app = QuartTrio("test")
            configure(app, Limits())
            views = [view("vllm"), view("gone"), NodeView("gpu", "helexa")]
            opaque = Opaque(resolve, lambda: views, {"vllm": UpstreamPort(node, client)}, budgets)
            recorder: Any = ended
            add_opaque(app, opaque, recorder)
            served = await start(app)
            yield Room(await served.connect(), upstream, budgets, ended)
            await served.close_peers()
            served.scope.cancel()
        nursery.cancel_scope.cancel()


def view(name: str) -> NodeView:
    model = ModelView(ModelEntry("embedder", status="loaded"))
    return NodeView(name, "openai", models=(model,), can_load=False)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank", "/rerank"])
async def test_json_passes_with_the_model_s_own_id_and_is_metered(start: Start, path: str) -> None:
    body = b'{"model":"alias","input":["a","b"],"odd":1}'
    async with room(start) as found:
        reply = await found.peer.ask(
            f"POST {path}", "authorization: Bearer mine", "cookie: a=b", body=body
        )
        assert (reply.status, reply.body) == (200, EMBEDDED)
        assert reply.headers["x-helexa-node"] == "vllm"
        assert "x-secret" not in reply.headers
        trace = await found.ended.trace()
        head, _, sent = found.upstream.requests[0].partition(b"\r\n\r\n")
    assert orjson.loads(sent) == {"model": "embedder", "input": ["a", "b"], "odd": 1}
    assert head.startswith(b"POST " + path.encode() + b" ")
    assert b"Bearer t0ken" in head
    assert b"mine" not in head
    assert b"cookie" not in head.lower()
    assert (trace.model, trace.outcome) == ("embedder", "stop")
    assert found.budgets.wanted[0].prompt_tokens == -(-len(body) // 4)
    assert found.budgets.settled == [Used(12)]


async def test_a_form_passes_with_its_file_as_it_is(start: Start) -> None:
    sound = bytes(range(256)) * 40
    form = (
        b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nalias\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
        b"Content-Type: audio/wav\r\n\r\n" + sound + b"\r\n--x--\r\n"
    )
    async with room(start, answered(b"hello", "text/plain")) as found:
        reply = await found.peer.ask(
            "POST /v1/audio/transcriptions",
            "content-type: multipart/form-data; boundary=x",
            body=form,
        )
        assert (reply.status, reply.body) == (200, b"hello")
        sent = found.upstream.requests[0]
    assert b'name="model"\r\n\r\nembedder\r\n' in sent
    assert b'filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n' + sound + b"\r\n--" in sent
    assert found.budgets.wanted[0].prompt_tokens < 10


async def test_sound_passes_and_a_page_does_not_run(start: Start) -> None:
    for kind, told in [("audio/mpeg", "audio/mpeg"), ("text/html", "application/octet-stream")]:
        async with room(start, answered(b"\x00\xff<script>", kind)) as found:
            reply = await found.peer.ask("POST /v1/audio/speech", body=b'{"model":"embedder"}')
            assert (reply.headers["content-type"], reply.body) == (told, b"\x00\xff<script>")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"input":"a"}', 400, "missing_model_field"),
        (b'{"model":"nobody"}', 404, "model_not_found"),
        (b"[]", 400, None),
    ],
)
async def test_what_cannot_be_passed_on_is_refused(
    start: Start, body: bytes, status: int, code: str | None
) -> None:
    async with room(start) as found:
        reply = await found.peer.ask("POST /v1/embeddings", body=body)
        assert (reply.status, reply.error["code"]) == (status, code)
        assert not found.upstream.requests


async def test_an_upstream_s_refusal_passes(start: Start) -> None:
    body = b'{"error":{"message":"too many inputs"},"more":1}'
    async with room(start, answered(body, status="422 No")) as found:
        reply = await found.peer.ask("POST /v1/embeddings", body=b'{"model":"alias"}')
        assert (reply.status, reply.body) == (422, body)
    assert found.budgets.settled == []


async def test_an_answer_that_is_cut_off_is_cut_off(start: Start) -> None:
    cut = HEAD.format("application/json", "content-length: 100\r\n").encode() + b"{"
    async with room(start, cut) as found:
        await found.peer.send(
            b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b'content-length: 17\r\n\r\n{"model":"alias"}'
        )
        await found.peer.head()
        with suppress(trio.BrokenResourceError):
            assert not (await found.peer.rest()).endswith(b"0\r\n\r\n")
        assert (await found.ended.trace()).outcome == "upstream_connection_error"
