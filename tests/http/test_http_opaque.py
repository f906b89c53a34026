"""Embeddings, audio and the like, from a client to an upstream and back, unread but for the model."""

import re
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, cast

import orjson
import pytest
import trio
from attrs import define, field
from dialects import Ended
from http_peer import Peer, Served, Start, request
from quart_trio import QuartTrio

from helexa.accounts.amount import Used
from helexa.accounts.provider import Granted, Unmetered, Wanted
from helexa.actors.fleet import Fleet
from helexa.config.schema import Admission, Config, RemoteNode
from helexa.fleet.catalogue import Catalogue, CatalogueModel
from helexa.fleet.entry import ModelEntry
from helexa.fleet.view import ModelView, NodeView
from helexa.front import admitting
from helexa.http.application import configure
from helexa.http.opaque import add_opaque
from helexa.metrics import Metrics
from helexa.nodes.admitting import AdmittingPort
from helexa.nodes.client import Client
from helexa.nodes.upstream import UpstreamPort
from helexa.opaque import Opaque
from helexa.shelf import Shelf

EMBEDDED = b'{ "data": [], "usage": {"prompt_tokens": 12, "total_tokens": 12} }'
ASK, BODY = "POST /v1/embeddings", b'{"model":"alias"}'
HEAD = "HTTP/1.1 200 OK\r\ncontent-type: {}\r\n{}\r\n"
ENDLESS = HEAD.format("application/json", "content-length: 100\r\n").encode() + b"{"


@define(eq=False)
class Upstream:
    """Answers every request alike, and remembers what came."""

    answer: bytes
    port: int = 0
    stays: bool = False  # whether the answer is left unfinished, the connection open
    requests: list[bytes] = field(factory=list)

    async def serve(self, stream: trio.SocketStream) -> None:
        asked = b""
        while not is_complete(asked):
            asked += await stream.receive_some()
        self.requests.append(asked)
        await stream.send_all(self.answer)
        if self.stays:
            await trio.sleep_forever()
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
    served: Served
    peer: Peer
    upstreams: list[Upstream]
    budgets: Budgets
    ended: Ended
    fleet: Fleet
    port: AdmittingPort

    async def again(self) -> Peer:
        return await self.served.connect()

    @property
    def upstream(self) -> Upstream:
        return self.upstreams[0]

    async def until_open(self, in_flight: int, waiting: int) -> None:
        """So many are asked of the first upstream, and so many wait for it."""
        with trio.fail_after(5):
            while self._open() != (in_flight, waiting):
                await trio.lowlevel.checkpoint()

    def _open(self) -> tuple[int, int]:
        loads = [load for _, load in self.port.occupancies()]
        return sum(load.in_flight for load in loads), sum(load.queue_depth for load in loads)


CATALOGUE = Catalogue((CatalogueModel("embedder", aliases=("alias",)),))


@asynccontextmanager
async def room(start: Start, *answers: bytes, max_in_flight: int = 0) -> AsyncGenerator[Room, None]:
    """A gateway before one upstream for each answer, `vllm0` and so on; nothing is leased at the end."""
    upstreams = [Upstream(answer) for answer in answers or [answered(EMBEDDED)]]
    budgets, ended = Budgets(), Ended()
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        nodes = [await serve(nursery, f"vllm{i}", each) for i, each in enumerate(upstreams)]
        config = Config(nodes=tuple(nodes), admission=Admission(max_in_flight))
        shelf = Shelf(CATALOGUE, lambda: CATALOGUE)
        metrics = Metrics(shelf.lists)
        clients = {node.name: stack.enter_context(Client(node)) for node in nodes}
        ports = {
            node.name: admitting(UpstreamPort(node, clients[node.name]), config, metrics)
            for node in nodes
        }
        fleet = Fleet(config, shelf, ports, metrics)
        await nursery.start(fleet.run)
        for name, port in ports.items():
            await nursery.start(port.run)
            fleet.seen(view(name))
        app, recorder = QuartTrio("test"), cast(Any, ended)
        configure(app)
        add_opaque(app, Opaque(shelf.resolve, fleet, ports, budgets), recorder)
        served = await start(app)
        found = Room(
            served, await served.connect(), upstreams, budgets, ended, fleet, ports["vllm0"]
        )
        yield found
        await served.close_peers()
        with trio.fail_after(5):
            while fleet.num_open:
                await trio.lowlevel.checkpoint()
        await found.until_open(0, 0)
        served.scope.cancel()
        nursery.cancel_scope.cancel()


async def serve(nursery: trio.Nursery, name: str, upstream: Upstream) -> RemoteNode:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    upstream.port = listener.socket.getsockname()[1]
    nursery.start_soon(trio.serve_listeners, upstream.serve, [listener])
    return RemoteNode(name, f"http://127.0.0.1:{upstream.port}/v1", "openai", token="t0ken")


def view(name: str, busy: int = 0) -> NodeView:
    model = ModelView(ModelEntry("embedder", status="loaded"), in_flight=busy)
    return NodeView(name, "openai", models=(model,), can_load=False, seen_at=trio.current_time())


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank", "/rerank"])
async def test_json_passes_with_the_model_s_own_id_and_is_metered(start: Start, path: str) -> None:
    body = b'{"model":"alias","input":["a","b"],"odd":1}'
    async with room(start) as found:
        reply = await found.peer.ask(
            f"POST {path}", "authorization: Bearer mine", "cookie: a=b", body=body
        )
        assert (reply.status, reply.body) == (200, EMBEDDED)
        assert reply.headers["x-helexa-node"] == "vllm0"
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
    async with room(start, ENDLESS) as found:
        await found.peer.send(request(ASK, body=BODY))
        await found.peer.head()
        with suppress(trio.BrokenResourceError):
            assert not (await found.peer.rest()).endswith(b"0\r\n\r\n")
        assert (await found.ended.trace()).outcome == "upstream_connection_error"


# -- which node answers ------------------------------------------------------------------------------

BUSY = answered(b'{"error":{"message":"full"}}', status="503 Busy")


async def test_the_node_that_is_expected_to_answer_first_is_asked(start: Start) -> None:
    async with room(start, answered(EMBEDDED), answered(EMBEDDED)) as found:
        found.fleet.seen(view("vllm0", busy=3))
        reply = await found.peer.ask(ASK, "x-helexa-explain: 1", body=BODY)
        assert reply.headers["x-helexa-node"] == "vllm1"
        assert "node vllm1: the least busy of 2 that have it" in reply.headers["x-helexa-decision"]


async def test_a_busy_node_is_left_for_another_and_does_not_attract_requests(start: Start) -> None:
    async with room(start, BUSY, answered(EMBEDDED)) as found:
        found.fleet.seen(view("vllm1", busy=1))  # the other one would be asked first
        for _ in range(8):
            peer = await found.again()
            assert (await peer.ask(ASK, body=BODY)).headers["x-helexa-node"] == "vllm1"
        assert found.fleet.breaker_of("vllm0").state == "open"
        assert len(found.upstreams[0].requests) < 8


async def test_where_every_node_is_busy_the_last_one_s_words_pass(start: Start) -> None:
    async with room(start, BUSY, BUSY) as found:
        reply = await found.peer.ask(ASK, body=BODY)
        assert (reply.status, reply.error["message"]) == (503, "full")
        assert [len(each.requests) for each in found.upstreams] == [1, 1]


async def test_nodes_that_are_away_are_told_and_not_waited_for(start: Start) -> None:
    async with room(start) as found:
        found.fleet.lost("vllm0", "it is away")
        reply = await found.peer.ask(ASK, body=BODY)
        assert (reply.status, reply.headers["retry-after"]) == (503, "5")
        assert "no node of kind openai" in reply.error["message"]


async def test_a_model_of_other_nodes_is_not_loaded_for_such_a_request(start: Start) -> None:
    async with room(start) as found:
        found.fleet.seen(NodeView("vllm0", "openai", can_load=False, seen_at=trio.current_time()))
        reply = await found.peer.ask(ASK, body=BODY)
        assert (reply.status, reply.error["code"]) == (404, "model_not_found")


async def test_a_client_that_leaves_gives_its_lease_back(start: Start) -> None:
    async with room(start, ENDLESS) as found:
        found.upstream.stays = True
        await found.peer.send(request(ASK, body=BODY))
        await found.peer.head()
        assert found.fleet.num_open == 1


async def test_what_is_more_than_an_upstream_is_asked_at_once_waits_in_its_line(
    start: Start,
) -> None:
    async with room(start, ENDLESS, max_in_flight=1) as found:
        found.upstream.stays = True
        await found.peer.send(request(ASK, body=BODY))
        await found.peer.head()
        second = await found.again()
        await second.send(request(ASK, "x-helexa-explain: 1", body=BODY))
        await found.until_open(1, 1)
        assert len(found.upstream.requests) == 1
        found.upstream.answer, found.upstream.stays = answered(EMBEDDED), False
        await trio.aclose_forcefully(found.peer.stream)
        reply = await second.reply()
        assert (reply.status, reply.body) == (200, EMBEDDED)
        assert "1 of 1 slots are taken; it is next" in reply.headers["x-helexa-decision"]


async def test_usage_that_cannot_be_true_is_what_we_counted(start: Start) -> None:
    async with room(start, answered(b'{"usage":{"prompt_tokens":4000000}}')) as found:
        assert (await found.peer.ask(ASK, body=BODY)).status == 200
        await found.ended.trace()
    assert found.budgets.settled == [Used(-(-len(BODY) // 4))]
