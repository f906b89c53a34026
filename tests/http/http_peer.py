"""A client that does exactly what a test says, byte for byte, over a real socket."""

import json
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from attrs import define, field, frozen

MORE = 2**16


@frozen
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]


@define
class Peer:
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]
    _unread: bytes = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def ask(
        self, request_line: str, *headers: str, body: bytes = b"", host: str = "localhost"
    ) -> Reply:
        await self.send(request(request_line, *headers, body=body, host=host))
        return await self.reply(head_only=request_line.startswith("HEAD"))

    async def reply(self, head_only: bool = False) -> Reply:
        status, headers = await self.head()
        body = b"" if head_only or status in (204, 304) else await self._body(headers)
        return Reply(status, headers, body)

    async def head(self) -> tuple[int, dict[str, str]]:
        first, *rest = (await self._until(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        return int(first.split()[1]), dict(map(header, rest))

    async def chunk(self) -> bytes:
        """The next chunk of a chunked body; empty at its end."""
        size = int(await self._until(b"\r\n"), 16)
        return (await self._exactly(size + 2))[:-2]

    async def rest(self) -> bytes:
        """Everything up to the end of the connection; raises BrokenResourceError if it was reset."""
        while data := await self.stream.receive_some(MORE):
            self._unread += data
        rest, self._unread = self._unread, b""
        return rest

    async def is_closed(self) -> bool:
        """Whether the server ends the connection, without or with a reset, and sends nothing more."""
        try:
            return await self.rest() == b""
        except trio.BrokenResourceError:
            return True

    async def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return await self._exactly(int(headers["content-length"]))
        if headers.get("transfer-encoding") != "chunked":
            return await self.rest()
        body = b""
        while data := await self.chunk():
            body += data
        return body

    async def _until(self, end: bytes) -> bytes:
        while end not in self._unread:
            await self._read()
        index = self._unread.index(end) + len(end)
        found, self._unread = self._unread[:index], self._unread[index:]
        return found

    async def _exactly(self, size: int) -> bytes:
        while len(self._unread) < size:
            await self._read()
        found, self._unread = self._unread[:size], self._unread[size:]
        return found

    async def _read(self) -> None:
        data = await self.stream.receive_some(MORE)
        if not data:
            raise EOFError(f"the server closed the connection after {self._unread!r}")
        self._unread += data


@define
class Served:
    """A running `serve`: where it listens, how to drain or cancel it, whether it has returned."""

    app: Any
    url: str = ""
    drain: trio.Event = field(factory=trio.Event)
    ended: trio.Event = field(factory=trio.Event)
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    _peers: list[Peer] = field(factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def seen(self) -> Any:
        return self.app.extensions["seen"]

    async def run(
        self, serving: Callable[..., Awaitable[None]], *, task_status: trio.TaskStatus[str]
    ) -> None:
        with self.scope:
            await serving(task_status=task_status)
        self.ended.set()

    async def connect(self, host: str = "127.0.0.1") -> Peer:
        peer = Peer(await trio.open_tcp_stream(host, self.port))
        self._peers.append(peer)
        return peer

    async def connect_from(self, own_address: str) -> Peer:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port, local_address=own_address)
        self._peers.append(peer := Peer(stream))
        return peer

    async def connect_securely(self, trusted: ssl.SSLContext) -> Peer:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        secure = trio.SSLStream(stream, trusted, server_hostname="localhost")
        self._peers.append(peer := Peer(secure))
        await secure.do_handshake()
        return peer

    async def close_peers(self) -> None:
        for peer in self._peers:
            await trio.aclose_forcefully(peer.stream)


Start = Callable[..., Awaitable[Served]]


def header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(": ")
    return name.lower(), value


def request(request_line: str, *headers: str, body: bytes = b"", host: str = "localhost") -> bytes:
    """`request("GET /x", "accept: a/b")`; a body is sent as JSON unless the headers say otherwise."""
    lines = [f"{request_line} HTTP/1.1", f"host: {host}", *headers]
    names = {header.partition(":")[0].lower() for header in headers}
    if body and "content-type" not in names:
        lines.append("content-type: application/json")
    if body and not names & {"content-length", "transfer-encoding"}:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
