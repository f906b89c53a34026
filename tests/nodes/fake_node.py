"""A node on a loopback port that answers what a test tells it to, in every way a node can go wrong."""

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h11
import orjson
import trio
from attrs import define, field, frozen

PAYLOADS = Path(__file__).parent / "payloads"

Answer = Callable[[trio.SocketStream], Awaitable[None]]


def payload(name: str) -> bytes:
    return (PAYLOADS / f"{name}.json").read_bytes()


@frozen
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


def answer(body: bytes | Any = b"", status: int = 200, **headers: str) -> Answer:
    """An ordinary answer, after which the connection is kept."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    told = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())

    async def send(stream: trio.SocketStream) -> None:
        head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(data)}\r\n{told}\r\n"
        await stream.send_all(head.encode() + data)

    return send


def raw(data: bytes) -> Answer:
    """Bytes as they are, and the end."""

    async def send(stream: trio.SocketStream) -> None:
        await stream.send_all(data)
        await stream.aclose()

    return send


async def hang(stream: trio.SocketStream) -> None:
    """Until the other side leaves."""
    while await stream.receive_some():
        pass


async def trickle(stream: trio.SocketStream) -> None:
    """A byte now and then, for ever."""
    await stream.send_all(b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        await stream.send_all(b"1\r\n \r\n")
        await trio.sleep(0.01)


def chunks(*parts: bytes, end: Answer | None = None) -> Answer:
    """A streamed answer; with `end` it does not end but goes on like that."""

    async def send(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n")
        for part in parts:
            await stream.send_all(b"%x\r\n%s\r\n" % (len(part), part))
        await (end(stream) if end else stream.send_all(b"0\r\n\r\n"))

    return send


async def cut(stream: trio.SocketStream) -> None:
    await stream.aclose()


@define(eq=False)
class FakeNode:
    """`answers` has what each path is answered with; 404 where there is nothing."""

    url: str
    answers: dict[str, Answer] = field(factory=dict)
    asked: list[Asked] = field(factory=list)
    num_connections: int = 0
    num_open: int = 0

    def paths(self) -> list[str]:
        return [f"{asked.method} {asked.path}" for asked in self.asked]

    async def serve(self, stream: trio.SocketStream) -> None:
        self.num_connections += 1
        self.num_open += 1
        try:
            await self._serve(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            pass  # the client left
        finally:
            self.num_open -= 1

    async def _serve(self, stream: trio.SocketStream) -> None:
        while (asked := await read(stream)) is not None:
            self.asked.append(asked)
            await self.answers.get(asked.path, answer({"error": "no such path"}, 404))(stream)


async def read(stream: trio.SocketStream) -> Asked | None:
    """The next request; None at the end."""
    parser, head, body = h11.Connection(h11.SERVER), None, b""
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            parser.receive_data(await stream.receive_some())
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            headers = {name.decode(): value.decode() for name, value in head.headers}
            return Asked(head.method.decode(), head.target.decode(), headers, body)
        else:
            return None


@asynccontextmanager
async def fake_node(
    tls: ssl.SSLContext | None = None, **paths: Answer
) -> AsyncGenerator[FakeNode, None]:
    """`fake_node(health=answer(...))` answers GET /health so."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        scheme, port = "https" if tls else "http", listener.socket.getsockname()[1]
        answers = {f"/{path}": how for path, how in paths.items()}
        node = FakeNode(f"{scheme}://127.0.0.1:{port}", answers)

        async def serve(stream: trio.SocketStream) -> None:
            if tls is None:
                await node.serve(stream)
            else:
                secure = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
                await node.serve(secure)  # type: ignore[arg-type]

        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield node
        nursery.cancel_scope.cancel()


def reference_neuron() -> dict[str, Answer]:
    """What a neuron of the reference answers with."""
    return {
        "health": answer(payload("reference_health")),
        "models": answer(payload("reference_models")),
        "discovery": answer(payload("reference_discovery")),
        "version": answer(payload("reference_version")),
    }


def helexa_node() -> dict[str, Answer]:
    """What the release before this one answers with."""
    return {
        path: answer(payload(f"helexa_0_1_{path}"))
        for path in ("health", "models", "discovery", "version")
    }
