"""What carries a connection's bytes: a socket as it is, or TLS over one."""

import os
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import trio

GOODBYE_SECONDS = 1.0
GONE = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class Transport(Protocol):
    """`socket` is the one underneath.  All raise one of GONE where the peer has left."""

    socket: trio.socket.SocketType
    is_secure: bool

    async def receive_some(self, max_bytes: int) -> bytes:
        """b"" when the peer sends no more.  Nothing is lost where this is cancelled."""

    def send_now(self, data: bytes) -> bytes:
        """Returns what was not taken at once.  Never waits, so it works in a cancelled task, too."""

    async def send_some(self, data: memoryview) -> int:
        """Wait until the peer's side takes some; how many bytes it took."""

    async def send_eof(self) -> None: ...

    def close(self, *, cut: bool) -> None:
        """At once.  A response that is `cut` ends in a reset, so that no client takes it for whole."""


class Plain:
    is_secure = False

    def __init__(self, stream: trio.SocketStream) -> None:
        self.socket = stream.socket

    async def receive_some(self, max_bytes: int) -> bytes:
        """Waits first: where one reads, there is mostly nothing yet."""
        while True:
            await trio.lowlevel.wait_readable(self.socket)
            with suppress(BlockingIOError):
                return os.read(self.socket.fileno(), max_bytes)

    def send_now(self, data: bytes) -> bytes:
        try:
            return data[os.write(self.socket.fileno(), data) :]
        except BlockingIOError:
            return data

    async def send_some(self, data: memoryview) -> int:
        return await self.socket.send(data)

    async def send_eof(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def close(self, *, cut: bool) -> None:
        close(self.socket, cut=cut)


class Secure:
    """TLS as trio speaks it, to a client or, with a `server_hostname`, to a server.  Unless it is asked
    for, the handshake happens with the first byte that is read."""

    is_secure = True
    PIECE_BYTES = 2**14  # that one write may take: a record of TLS

    def __init__(
        self, stream: trio.SocketStream, context: ssl.SSLContext, server_hostname: str | None = None
    ) -> None:
        self.socket = stream.socket
        self._stream = trio.SSLStream(
            stream,
            context,
            server_hostname=server_hostname,
            server_side=server_hostname is None,
            https_compatible=True,
        )

    async def handshake(self) -> None:
        await self._stream.do_handshake()

    async def receive_some(self, max_bytes: int) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    def send_now(self, data: bytes) -> bytes:
        return data

    async def send_some(self, data: memoryview) -> int:
        piece = data[: self.PIECE_BYTES]
        await self._stream.send_all(bytes(piece))
        return len(piece)

    async def send_eof(self) -> None:
        """Says goodbye in TLS, and in TCP."""
        with trio.move_on_after(GOODBYE_SECONDS), suppress(*GONE):
            await self._stream.unwrap()
        self.socket.shutdown(socket.SHUT_WR)

    def close(self, *, cut: bool) -> None:
        close(self.socket, cut=cut)


def close(sock: trio.socket.SocketType, *, cut: bool) -> None:
    if cut:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# Made for every connection; a certificate that was renewed serves those that come after.
MakeTransport = Callable[[trio.SocketStream], Transport]
