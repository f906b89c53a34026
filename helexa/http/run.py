"""One run of the application, for one request of a connection.

It stands where hypercorn would have a stream of its own, which makes events of every message.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio
from attrs import define, field
from hypercorn.protocol.events import Body, EndBody, Event, StreamClosed

from helexa import logs
from helexa.http.call import Message, Scope

log = logs.get("helexa.http")

MOST_WAITING = 10  # pieces of a body that the application has not taken yet

LEFT: Message = {"type": "http.disconnect"}


class Responding(Protocol):
    """The connection's side of HTTP."""

    async def invite_body(self) -> None:
        """Let a client that waits to be told so send its body."""

    async def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None: ...
    async def go_on(self, data: bytes, *, is_last: bool) -> None: ...
    async def stream_send(self, event: Event) -> None: ...


@define(eq=False)
class Run:
    """`receive` and `send` are ASGI's.

    Once it `is_over`, nothing more is sent.  Who leaves cancels `leaving`, in which an application may
    run that has no task to wait for it.
    """

    _http: Responding
    leaving: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    _has_begun: bool = field(default=False, init=False)  # to answer
    _is_over: bool = field(default=False, init=False)
    _inbox: deque[Message] = field(factory=deque, init=False)
    _moved: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)

    async def run(self, app: Callable[..., Awaitable[None]], scope: Scope) -> None:
        """To its end; one without a response is told as 500, one in the middle of its own is cut."""
        try:
            await app(
                scope,
                self.receive,
                self.send,
                trio.to_thread.run_sync,
                trio.from_thread.run,
            )
        except Exception as error:
            log.exception("an application failed", error)
        if self._is_over:
            return
        if not self._has_begun:
            await self._http.begin(500, [(b"content-length", b"0")])
            await self._http.go_on(b"", is_last=True)
        self._end()
        await self._http.stream_send(StreamClosed(stream_id=1))

    # -- the connection's side -----------------------------------------------------------------------

    async def handle(self, event: Event) -> None:
        """As hypercorn tells a stream what comes."""
        if isinstance(event, Body):
            await self._put(bytes(event.data), more=True)
        elif isinstance(event, EndBody):
            await self._put(b"", more=False)
        elif isinstance(event, StreamClosed) and not self._is_over:
            self.leaving.cancel()
            self._end()

    async def _put(self, data: bytes, *, more: bool) -> None:
        """A piece of the request's body, when there is room for it."""
        while len(self._inbox) >= MOST_WAITING and not self._is_over:
            await self._moved.park()
        self._inbox.append({"type": "http.request", "body": data, "more_body": more})
        self._moved.unpark_all()

    def _end(self) -> None:
        self._is_over = True
        self._moved.unpark_all()

    # -- the application's side ----------------------------------------------------------------------

    async def receive(self) -> Message:
        await self._http.invite_body()
        while not self._inbox and not self._is_over:
            await self._moved.park()
        if not self._inbox:
            return LEFT
        self._moved.unpark_all()
        return self._inbox.popleft()

    def is_here(self) -> bool:
        """Whether `receive` need not wait."""
        return bool(self._inbox)

    async def send(self, message: Message) -> None:
        if self._is_over:
            return
        if message["type"] == "http.response.start":
            self._has_begun = True
            await self._http.begin(message["status"], message["headers"])
        else:
            is_last = not message.get("more_body", False)
            await self._http.go_on(message.get("body", b""), is_last=is_last)
