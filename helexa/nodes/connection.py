"""Connections to nodes: opened, kept while they are idle, and used for one request after the other."""

import socket
import ssl
from collections import deque
from collections.abc import Mapping
from urllib.parse import urlsplit

import trio
from attrs import Factory, define, field, frozen

from helexa.http.transport import Plain, Secure, Transport

CONNECT_SECONDS = 5.0
WRITE_SECONDS = 30.0  # until the node takes more of a request
IDLE_SECONDS = 4.0  # below what servers keep an idle connection for: we are the one to close it
MAX_IDLE = 64
MAX_RECV = 2**16
PORTS: Mapping[str, int] = {"http": 80, "https": 443}


@frozen
class Place:
    """Where an endpoint is.  `authority` is its Host, `base` the path before all paths."""

    is_secure: bool
    host: str
    port: int
    authority: str = field(eq=False)
    base: str = field(eq=False)


def place_of(endpoint: str) -> Place:
    parts = urlsplit(endpoint)
    port = parts.port or PORTS[parts.scheme]
    return Place(parts.scheme == "https", parts.hostname or "", port, parts.netloc, parts.path)


@define(eq=False)
class Connection:
    """What it raises where the node is gone is in GONE, or TooSlowError."""

    place: Place
    _transport: Transport
    idle_since: float = field(factory=trio.current_time, init=False)

    @property
    def is_quiet(self) -> bool:
        """Whether an idle connection is still one: a node that closed it, or talks unasked, is heard."""
        return not self._transport.socket.is_readable()

    async def send(self, data: bytes) -> None:
        rest = memoryview(self._transport.send_now(data))
        while rest:
            with trio.fail_after(WRITE_SECONDS):
                rest = rest[await self._transport.send_some(rest) :]

    async def receive(self) -> bytes:
        """b"" at the end.  Nothing is lost where this is cancelled."""
        return await self._transport.receive_some(MAX_RECV)

    def close(self) -> None:
        self._transport.close(cut=False)


async def connect(place: Place, tls: ssl.SSLContext | None) -> Connection:
    with trio.fail_after(CONNECT_SECONDS):
        stream = await trio.open_tcp_stream(place.host, place.port)
        for level, name, value in socket_options():
            stream.socket.setsockopt(level, name, value)
        if not place.is_secure:
            return Connection(place, Plain(stream))
        assert tls is not None
        secure = Secure(stream, tls, server_hostname=place.host)
        try:
            await secure.handshake()
        except BaseException:
            secure.close(cut=False)
            raise
        return Connection(place, secure)


@define(eq=False)
class Pool:
    """The idle connections to one node: at most MAX_IDLE of them, none for long."""

    tls: ssl.SSLContext | None
    _idle: deque[Connection] = Factory(deque)

    async def take(self, place: Place) -> Connection:
        """The one that was used last, or a new one."""
        self._close_old()
        for connection in reversed(self._idle):
            if connection.place == place:
                self._idle.remove(connection)
                if connection.is_quiet:
                    return connection
                connection.close()
                return await self.take(place)
        return await connect(place, self.tls)

    def give(self, connection: Connection) -> None:
        connection.idle_since = trio.current_time()
        self._idle.append(connection)
        self._close_old()

    def close(self) -> None:
        while self._idle:
            self._idle.popleft().close()

    def _close_old(self) -> None:
        since = trio.current_time() - IDLE_SECONDS
        while self._idle and (len(self._idle) > MAX_IDLE or self._idle[0].idle_since < since):
            self._idle.popleft().close()


def socket_options() -> list[tuple[int, int, int]]:
    """A host that vanished without a word is noticed within half a minute, also where nothing is due."""
    wanted = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}
    return [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        *(
            (socket.IPPROTO_TCP, getattr(socket, name), value)
            for name, value in wanted.items()
            if hasattr(socket, name)
        ),
    ]
