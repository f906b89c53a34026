"""The connections of one listener: how many there may be, in all and from one address."""

from collections import Counter
from collections.abc import Callable

import trio
from attrs import define, field

from helexa.config.schema import Limits
from helexa.errors import ServiceUnavailable
from helexa.http.address import one_spelling
from helexa.http.call import new_request_id
from helexa.http.connection import Connection
from helexa.http.refusals import Refusals
from helexa.http.transport import GONE, Transport
from helexa.wire.envelope import status_and_body

TURN_AWAY_SECONDS = 1.0
MAX_RECV = 2**16


@define(eq=False)
class Crowd:
    _connect: Callable[[trio.SocketStream], Connection]
    _limits: Limits
    _refusals: Refusals
    _open: dict[Connection, str] = field(factory=dict, init=False)  # with the client's address
    _by_address: Counter[str] = field(factory=Counter, init=False)
    _num_turned_away: int = field(default=0, init=False)
    _draining: bool = field(default=False, init=False)

    def drain(self) -> None:
        """Have every connection close as soon as no request runs on it, and let none in."""
        self._draining = True
        for connection in self._open:
            connection.drain()

    async def receive(self, stream: trio.SocketStream) -> None:
        """Serve one accepted connection to its end; the caller closes it."""
        try:
            connection = self._connect(stream)
            address = one_spelling(stream.socket.getpeername()[0])
        except OSError:
            return  # the client has left already
        if self._draining:
            return
        if not self._has_room(address):
            return await self._turn_away(connection.transport, address)
        self._open[connection] = address
        self._by_address[address] += 1
        try:
            await connection.run()
        finally:
            del self._open[connection]
            self._by_address[address] -= 1
            self._by_address += Counter()  # forgets who has none left

    def _has_room(self, address: str) -> bool:
        return (
            len(self._open) < self._limits.max_connections
            and self._by_address[address] < self._limits.max_connections_per_address
        )

    async def _turn_away(self, transport: Transport, address: str) -> None:
        """Say 503 to whom there is no room for; to very many, say nothing."""
        if self._num_turned_away >= self._limits.max_connections:
            return
        error = ServiceUnavailable("The server has too many open connections.", retry_after=1)
        self._refusals.note(error, request_id := new_request_id(), address)
        self._num_turned_away += 1
        try:
            with trio.move_on_after(TURN_AWAY_SECONDS):
                rest = memoryview(unasked(error, request_id))
                while rest:
                    rest = rest[await transport.send_some(rest) :]
                await transport.send_eof()
                while await transport.receive_some(MAX_RECV):
                    pass  # closing on unread bytes would reset our answer
        except GONE:
            pass
        finally:
            self._num_turned_away -= 1


def unasked(error: ServiceUnavailable, request_id: str) -> bytes:
    """A whole response, for a client whose request nobody reads."""
    status, headers, body = status_and_body(error, request_id)
    headers += [
        ("content-length", str(len(body))),
        ("connection", "close"),
        ("x-request-id", request_id),
    ]
    lines = [
        f"HTTP/1.1 {status} Service Unavailable",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
