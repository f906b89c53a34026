"""One connection: reads requests, runs the application for each, writes under a time limit.

A subclass of hypercorn's TCPServer that no request, no client and no cancellation can make hang or
take the server down.  One task reads; the tasks of the application write.  The reader lives in one
cancel scope, `_reading`: its deadline is the keep-alive limit while no request runs, and cancelling
it is how anybody ends the connection in good order.
"""

import math
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.typing import AppWrapper, ConnectionState, LifespanState

from helexa import logs
from helexa.config.schema import Limits
from helexa.errors import HelexaError, RequestTimeout
from helexa.http.address import one_spelling
from helexa.http.http1 import Http1
from helexa.http.refusals import Refusals
from helexa.http.transport import GONE, MakeTransport

log = logs.get("helexa.http")

READ_AHEAD_BYTES = 2**16  # of a pipelined request, while another one runs
SENDS_BETWEEN_CHECKPOINTS = 8
LINGER_SECONDS = 10.0  # for a client that still sends what nobody wants
LINGER_IDLE_SECONDS = 2.0


class Connection(TCPServer):
    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: Any,
        state: LifespanState,
        limits: Limits,
        refusals: Refusals,
        make_transport: MakeTransport,
        stream: trio.SocketStream,
    ) -> None:
        """Raises OSError if the client has left already."""
        super().__init__(app, config, context, state, stream)  # type: ignore[arg-type]
        self.protocol: Http1  # type: ignore[assignment]
        self.transport = make_transport(stream)
        self._client = end_of(stream.socket.getpeername())
        self._server = end_of(stream.socket.getsockname())
        self._limits = limits
        self._refusals = refusals
        self._idle = True
        self._finished = False
        self._num_sends = 0
        self._reading = trio.CancelScope()
        self._nursery: trio.Nursery

    # -- its life -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Returns when the connection is closed.  Raises nothing but Cancelled."""
        try:
            await self._run()
        except* GONE:
            pass
        except* Exception as errors:
            log.exception("a connection failed and was closed", errors)
        finally:
            self._close_now()

    async def _run(self) -> None:
        async with trio.open_nursery() as self._nursery:
            self.protocol = self._protocol()
            await self._read()
        if self._finished and self.protocol.expects_more and not self.protocol.is_cut:
            await self._linger()

    def _protocol(self) -> Http1:
        protocol = Http1(
            self.app,
            self.config,
            self.context,
            self._nursery,
            ConnectionState(self.state),
            (self._client, self._server),
            self.transport.is_secure,
            self.protocol_send,
            self._limits.max_headers,
            self._note_refusal,
        )
        protocol.can_read = Pause(self._read_ahead)
        return protocol

    def _note_refusal(self, error: HelexaError, request_id: str) -> None:
        self._refusals.note(error, request_id, self._client[0])

    def drain(self) -> None:
        """Close as soon as no request runs: at once, or after the response in hand."""
        if self._idle:
            self._reading.cancel()

    def _abort(self) -> None:
        """The client is of no more use: whatever runs for it is cancelled."""
        self._nursery.cancel_scope.cancel()

    # -- reading ------------------------------------------------------------------------------------

    async def _read(self) -> None:
        self._reading.deadline = trio.current_time() + self._limits.idle_body_seconds
        with self._reading:
            try:
                await self._read_requests()
            except GONE:
                return self._abort()
        if self._idle and not self._finished and self._reading.deadline <= trio.current_time():
            await self._tell_timeout()
        await self.protocol.handle(Closed())

    async def _read_requests(self) -> None:
        data = b"more"
        while data:
            data = await self.transport.receive_some(MAX_RECV)
            await self.protocol.handle(RawData(data))

    async def _tell_timeout(self) -> None:
        if self.protocol.has_unread:
            await self.protocol.refuse(RequestTimeout("The head of the request took too long."))

    async def _read_ahead(self) -> None:
        """While a response runs: a next request may wait, but must not hide that the client left."""
        num_ahead = 0
        while num_ahead < READ_AHEAD_BYTES:
            data = await self.transport.receive_some(MAX_RECV)
            self.protocol.connection.receive_data(data)
            num_ahead += len(data)
            if not data:
                await self.protocol.handle(Closed())
                self._reading.cancel()
        await trio.sleep_forever()

    # -- writing ------------------------------------------------------------------------------------

    async def protocol_send(self, event: Event) -> None:
        """Only RawData may wait: the others come from tasks that may be cancelled already."""
        if isinstance(event, RawData):
            await self._send(event.data)
        elif isinstance(event, Updated):
            self._idle = event.idle
            rest = self.config.keep_alive_timeout if event.idle else math.inf
            self._reading.deadline = trio.current_time() + rest
        elif isinstance(event, Closed):
            self._finished = True
            self._reading.cancel()

    async def _send(self, data: bytes) -> None:
        """Hand `data` to the kernel: at once if it takes it all, which is the cheap and usual case."""
        if self.send_lock.locked() or (data := self._send_now(data)):
            await self._send_patiently(data)
        self._num_sends += 1
        if self._num_sends % SENDS_BETWEEN_CHECKPOINTS == 0:
            await trio.lowlevel.checkpoint()

    def _send_now(self, data: bytes) -> bytes:
        """Returns what the kernel did not take.  Never waits, so it works in a cancelled task, too."""
        if not data:
            return data
        try:
            return self.transport.send_now(data)
        except GONE:
            self._abort()
            return b""

    async def _send_patiently(self, data: bytes) -> None:
        """Wait for the client, but never longer than the write time limit for its next byte."""
        async with self.send_lock:
            rest = memoryview(data)
            try:
                while rest:
                    with trio.fail_after(self._limits.write_timeout_seconds):
                        rest = rest[await self.transport.send_some(rest) :]
            except (*GONE, trio.TooSlowError) as error:
                log.info("a client stopped reading", reason=type(error).__name__)
                self._abort()
                await trio.lowlevel.checkpoint()

    # -- closing ------------------------------------------------------------------------------------

    async def _linger(self) -> None:
        """Let a client that still sends come to read our answer: closing at once would reset it."""
        await self.transport.send_eof()
        with trio.move_on_after(LINGER_SECONDS), trio.CancelScope() as idle:
            data = b"more"
            while data:
                idle.deadline = trio.current_time() + LINGER_IDLE_SECONDS
                data = await self.transport.receive_some(MAX_RECV)

    def _close_now(self) -> None:
        """A response cut short ends in a reset, so that no client takes it for a whole one."""
        self.transport.close(cut=self.protocol.is_cut)


class Pause:
    """Hypercorn waits with this until the response in hand is complete; we read ahead meanwhile."""

    def __init__(self, meanwhile: Callable[[], Awaitable[None]]) -> None:
        self._meanwhile = meanwhile
        self._waiting = trio.CancelScope()

    async def clear(self) -> None:
        self._waiting = trio.CancelScope()

    async def set(self) -> None:
        self._waiting.cancel()

    def is_set(self) -> bool:
        return self._waiting.cancel_called

    async def wait(self) -> None:
        with self._waiting:
            await self._meanwhile()


def end_of(address: Any) -> tuple[str, int]:
    """Host and port of a socket's address."""
    return one_spelling(address[0]), address[1]
