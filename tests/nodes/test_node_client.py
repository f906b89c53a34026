"""The HTTP client of one node: what it sends, what it bounds, and what becomes of what goes wrong."""

import random
import ssl
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from fake_node import Answer, FakeNode, answer, chunks, cut, fake_node, hang, raw, trickle

from helexa.config.schema import RemoteNode
from helexa.errors import UpstreamError, UpstreamMalformed
from helexa.nodes.client import Client, base_url
from helexa.nodes.connection import place_of
from helexa.nodes.incoming import Incoming, Question, UpstreamLost
from helexa.nodes.port import NodeLost

NOBODY = "http://127.0.0.1:9"


@asynccontextmanager
async def client_of(
    token: str = "", **paths: Answer
) -> AsyncGenerator[tuple[Client, FakeNode], None]:
    async with fake_node(**paths) as node:
        with Client(RemoteNode("gpu", node.url, token=token)) as client:
            yield client, node


@contextmanager
def asking(client: Client, path: str, **more: Any) -> Iterator[Incoming]:
    with closing(client.ask(Question(path, method="GET", **more))) as incoming:
        yield incoming


async def read(client: Client, path: str, **more: Any) -> bytes:
    """A streamed answer to its end."""
    with asking(client, path, **more) as incoming:
        await incoming.head()
        whole = b""
        while piece := await incoming.piece():
            whole += piece
        return whole


# -- what is sent ----------------------------------------------------------------------------------


async def test_a_request_has_the_node_s_token_and_nothing_that_was_not_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", NOBODY)
    monkeypatch.setenv("ALL_PROXY", NOBODY)
    async with client_of("s3cret", a=answer(set_cookie="a=b")) as (client, node):
        for _ in range(2):
            await client.fetch("POST", "/a", [("content-type", "x/y")], b"body")
        for asked in node.asked:
            version = asked.headers.pop("user-agent")
            assert version.startswith("helexa/")
            assert asked.headers == {
                "host": node.url.removeprefix("http://"),
                "content-type": "x/y",
                "content-length": "4",
                "accept-encoding": "identity",
                "authorization": "Bearer s3cret",
            }
        assert node.num_connections == 1


async def test_without_a_token_none_is_sent() -> None:
    async with client_of(a=answer()) as (client, node):
        await client.fetch("GET", "/a")
        assert "authorization" not in node.asked[0].headers


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [("http://gpu.lan:1", 1), ("https://gpu.lan", 0), ("http://127.0.0.1:1", 0)],
)
def test_a_token_in_clear_across_a_network_is_warned_of_once(
    caplog: pytest.LogCaptureFixture, endpoint: str, told: int
) -> None:
    Client(RemoteNode("gpu", endpoint, token="s3cret"))
    Client(RemoteNode("gpu", endpoint))
    assert caplog.text.count("in clear") == told
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    ("kind", "endpoint", "base"),
    [
        ("helexa", "http://a/", "http://a"),
        ("helexa", "http://a/v1", "http://a/v1"),
        ("openai", "http://a:8000/v1/", "http://a:8000"),
        ("openai", "https://a/vllm/v1", "https://a/vllm"),
    ],
)
def test_an_openai_endpoint_may_be_named_with_its_v1(kind: str, endpoint: str, base: str) -> None:
    assert base_url(RemoteNode("a", endpoint, kind=kind)) == base  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("endpoint", "connected", "host", "base"),
    [
        ("http://[fd00::7]:13131", ("fd00::7", 13131), "[fd00::7]:13131", ""),
        ("https://gpu.lan", ("gpu.lan", 443), "gpu.lan", ""),
        ("http://lan/gpu", ("lan", 80), "lan", "/gpu"),
    ],
)
def test_a_request_goes_where_the_endpoint_says(
    endpoint: str, connected: tuple[str, int], host: str, base: str
) -> None:
    place = place_of(endpoint)
    assert ((place.host, place.port), place.authority) == (connected, host)
    assert place.base == base


# -- what comes back -------------------------------------------------------------------------------


async def test_a_whole_answer_and_a_streamed_one() -> None:
    async with client_of(a=answer({"x": 1}, 503, retry_after="7"), b=chunks(b"one", b"two")) as (
        client,
        _,
    ):
        whole = await client.fetch("GET", "/a")
        assert (whole.status, whole.body, whole.header("retry-after")) == (503, b'{"x":1}', "7")
        assert (whole.header("set-cookie"), whole.header("content-length")) == ("", "7")
        assert await read(client, "/b") == b"onetwo"


async def test_pieces_come_when_they_are_sent() -> None:
    async with client_of(a=chunks(b"one", end=hang)) as (client, _):
        with asking(client, "/a") as incoming:
            await incoming.head()
            assert await incoming.piece() == b"one"
            assert await incoming.piece(0.01) is None


async def test_an_answer_that_is_left_closes_its_connection() -> None:
    async with client_of(a=chunks(b"one", end=hang), b=answer()) as (client, node):
        with asking(client, "/a") as incoming:
            await incoming.head()
        await client.fetch("GET", "/b")
        assert node.num_connections == 2
        while node.num_open > 1:
            await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_never_followed(status: int) -> None:
    async with client_of(a=answer(b"", status, location="/b"), b=answer()) as (client, node):
        with pytest.raises(UpstreamMalformed, match="redirects"):
            await client.fetch("GET", "/a")
        assert node.paths() == ["GET /a"]


async def test_a_packed_answer_is_refused() -> None:
    async with client_of(a=answer(b"x", content_encoding="gzip")) as (client, _):
        with pytest.raises(UpstreamMalformed, match="packs"):
            await client.fetch("GET", "/a")


async def test_another_endpoint_takes_the_place_of_the_node_s_own() -> None:
    async with client_of(a=answer(b"no")) as (client, _), fake_node(a=answer(b"yes")) as other:
        assert await read(client, "/a", endpoint=other.url) == b"yes"


# -- what goes wrong -------------------------------------------------------------------------------


async def test_nobody_there() -> None:
    refused = pytest.raises(NodeLost, match="node gpu cannot be reached: Connection refused")
    with Client(RemoteNode("gpu", NOBODY)) as client, refused:
        await client.fetch("GET", "/health")


async def test_a_name_that_nobody_has() -> None:
    unknown = pytest.raises(NodeLost, match="node gpu cannot be reached: ")
    with Client(RemoteNode("gpu", "http://gpu.invalid")) as client, unknown:
        await client.fetch("GET", "/health")


@pytest.mark.parametrize(
    "how",
    [
        cut,
        raw(b"\x00\x01\x02 garbage \xff\r\n\r\n"),
        raw(b"SSH-2.0-OpenSSH_10.0\r\n"),
        raw(b"HTTP/1.1 200 OK\r\ncontent-le"),
        raw(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100_000),
        raw(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello"),
    ],
)
async def test_a_node_that_answers_with_no_http_is_lost(how: Answer) -> None:
    async with client_of(a=how, b=answer(b"ok")) as (client, _):
        with pytest.raises(NodeLost, match="node gpu"):
            await client.fetch("GET", "/a")
        assert (await client.fetch("GET", "/b")).body == b"ok"


@pytest.mark.parametrize(
    "how",
    [
        raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhel"),
        raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n"),
        raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhel\r\n"),
        chunks(b"hel", end=cut),
    ],
)
async def test_a_node_that_goes_away_in_the_middle_is_an_upstream_error(how: Answer) -> None:
    async with client_of(a=how) as (client, _):
        with pytest.raises(UpstreamLost) as lost:
            await read(client, "/a")
        assert (lost.value.status, lost.value.code) == (502, "upstream_connection_error")


async def test_an_answer_without_end_has_a_last_byte_all_the_same() -> None:
    async with client_of(a=answer(b"x" * 1001), b=answer(b"x" * 1000)) as (client, _):
        with pytest.raises(UpstreamMalformed, match="tells more than"):
            await client.fetch("GET", "/a", most_bytes=1000)
        assert len((await client.fetch("GET", "/b", most_bytes=1000)).body) == 1000


async def test_eight_megabytes_are_the_most_unless_told_otherwise() -> None:
    async with client_of(a=answer(b"x" * 8_000_001)) as (client, _):
        with pytest.raises(UpstreamMalformed, match="tells more than 8 MB"):
            await client.fetch("GET", "/a")


@pytest.mark.parametrize("how", [hang, trickle])
async def test_a_node_that_takes_too_long_is_lost(how: Answer) -> None:
    async with client_of(a=how, b=answer(b"ok")) as (client, _):
        with pytest.raises(NodeLost, match="node gpu has not answered within"):
            await client.fetch("GET", "/a", seconds=0.05)
        assert (await client.fetch("GET", "/b")).body == b"ok"


async def test_the_head_has_a_time_limit_of_its_own() -> None:
    async with client_of(a=hang) as (client, _):
        with pytest.raises(NodeLost, match="has not answered within"):
            await read(client, "/a", head_seconds=0.05, silence_seconds=0.01)


async def test_silence_in_the_middle_ends_an_answer() -> None:
    async with client_of(a=chunks(b"one", end=hang)) as (client, _):
        with pytest.raises(UpstreamError, match="node gpu was silent for 0 s"):
            await read(client, "/a", silence_seconds=0.05)


async def test_an_idle_connection_that_the_node_closed_costs_no_request() -> None:
    async def once(stream: trio.SocketStream) -> None:
        await answer(b"ok")(stream)
        await stream.aclose()

    async with client_of(a=once) as (client, node):
        for _ in range(3):
            assert (await client.fetch("GET", "/a")).body == b"ok"
            while node.num_open:
                await trio.lowlevel.checkpoint()


async def test_a_node_that_is_not_quiet_between_two_answers_is_not_asked_there_again() -> None:
    async def twice(stream: trio.SocketStream) -> None:
        one = b"HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\n"
        await stream.send_all(one + b"ok" + one + b"no")

    async with client_of(a=twice) as (client, node):
        for _ in range(3):
            assert (await client.fetch("GET", "/a")).body == b"ok"
        assert node.num_connections == 3


async def test_a_node_that_refuses_a_request_half_way_is_heard() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(10)
        await stream.send_all(b"HTTP/1.1 413 X\r\ncontent-length: 3\r\n\r\nbig")
        await stream.send_eof()
        await hang(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        with Client(RemoteNode("gpu", url)) as client:
            whole = await client.fetch("POST", "/a", body=b"x" * 10_000_000)
            assert (whole.status, whole.body) == (413, b"big")
        nursery.cancel_scope.cancel()


async def test_what_is_asked_may_be_waited_for_in_small_steps() -> None:
    go_on = trio.Event()

    async def late(stream: trio.SocketStream) -> None:
        await go_on.wait()
        await chunks(b"one", b"two")(stream)

    async with client_of(a=late) as (client, _):
        with asking(client, "/a") as incoming:
            assert await incoming.head(0.001) is None
            assert await incoming.head(0.001) is None
            go_on.set()
            head = await incoming.head()
            assert head is not None
            assert head.status == 200
            whole = b""
            while (piece := await incoming.piece(0.001)) != b"":
                whole += piece or b""
            assert whole == b"onetwo"


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/a", [("x", "y\r\nevil: 1")]),
        ("/a", [("x", "y\n")]),
        ("/a", [("x\r\nevil", "1")]),
        ("/a", [("x", "\0")]),
        ("/a HTTP/1.1\r\nevil: 1", []),
        ("/a b", []),
    ],
)
async def test_a_header_cannot_bring_another_one(path: str, headers: list[tuple[str, str]]) -> None:
    async with client_of(a=answer()) as (client, node):
        with pytest.raises(ValueError, match="malformed"):
            await client.fetch("GET", path, headers)
        assert not node.num_connections


# -- TLS -------------------------------------------------------------------------------------------


async def test_a_node_is_trusted_by_the_certificates_that_are_named_for_it(tmp_path: Path) -> None:
    ours, theirs = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(tmp_path / "ours.pem")
    theirs.cert_pem.write_to_path(tmp_path / "theirs.pem")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.issue_cert("127.0.0.1").configure_cert(tls)
    async with fake_node(tls, a=answer(b"ok")) as node:
        with Client(RemoteNode("gpu", node.url, tls_ca=f"{tmp_path}/ours.pem")) as client:
            for _ in range(3):
                body = b"x" * 100_000
                assert (await client.fetch("POST", "/a", body=body)).body == b"ok"
                assert node.asked[-1].body == body
            assert node.num_connections == 1
        for ca in ("", f"{tmp_path}/theirs.pem"):
            strange = pytest.raises(NodeLost, match="its certificate is not accepted")
            with Client(RemoteNode("gpu", node.url, tls_ca=ca)) as client, strange:
                await client.fetch("GET", "/a")


async def test_a_node_that_speaks_no_tls_is_lost() -> None:
    async with fake_node(a=answer(b"ok")) as node:
        endpoint = node.url.replace("http:", "https:")
        no_tls = pytest.raises(NodeLost, match="node gpu cannot be reached: TLS fails")
        with Client(RemoteNode("gpu", endpoint)) as client, no_tls:
            await client.fetch("GET", "/a")


# -- cancelling ------------------------------------------------------------------------------------


async def test_after_many_random_cancellations_the_pool_still_works() -> None:
    """They come while connecting, while waiting, in the middle of a body and when all is over."""
    chance = random.Random(7)
    ways: list[Callable[[Client], object]] = [
        lambda client: client.fetch("GET", "/whole"),
        lambda client: client.fetch("POST", "/whole", body=b"x" * 100_000),
        lambda client: read(client, "/stream"),
        lambda client: read(client, "/endless"),
        lambda client: client.fetch("GET", "/hang"),
    ]

    async def worker(client: Client) -> None:
        for _ in range(60):
            with trio.move_on_after(chance.expovariate(1 / 0.004)):
                await chance.choice(ways)(client)  # type: ignore[misc]

    async with client_of(
        whole=answer(b"x" * 1000),
        stream=chunks(*[b"piece"] * 20),
        endless=chunks(b"one", end=trickle_chunks),
        hang=hang,
    ) as (client, node):
        async with trio.open_nursery() as nursery:
            for _ in range(16):
                nursery.start_soon(worker, client)
        for _ in range(20):
            assert len((await client.fetch("GET", "/whole")).body) == 1000
        while node.num_open > 32:  # the idle ones that are kept
            await trio.lowlevel.checkpoint()


async def trickle_chunks(stream: trio.SocketStream) -> None:
    while True:
        await stream.send_all(b"1\r\n \r\n")
        await trio.sleep(0.001)
