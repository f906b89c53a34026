"""Bounds on the bodies of requests: in size, in silence, and in the sum over all of a listener."""

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from attrs import define, field

from helexa.errors import RequestTimeout, ServiceUnavailable
from helexa.http.doors import body_too_large


@define(eq=False)
class Buffered:
    """How many bytes of request bodies one listener holds, and how many it may."""

    limit: int
    held: int = 0

    def add(self, num_bytes: int) -> None:
        if self.held + num_bytes > self.limit:
            raise ServiceUnavailable(
                "The server is receiving too many other requests at the moment.", retry_after=1
            )
        self.held += num_bytes


@define(eq=False)
class Body:
    """The body of one request as it arrives.

    `receive` is ASGI's; it raises BodyTooLarge, RequestTimeout or ServiceUnavailable where a bound
    is passed.  Bytes count as buffered until `release`.  `_is_here` tells whether the next message need
    not be waited for, and so not timed.
    """

    _receive: Callable[[], Awaitable[Any]]
    _buffered: Buffered
    _max_bytes: int
    _idle_seconds: float
    _is_here: Callable[[], bool]
    _size: int = field(default=0, init=False)
    _held: int = field(default=0, init=False)
    _complete: bool = field(default=False, init=False)

    async def receive(self) -> Any:
        if self._complete:
            return await self._receive()  # only the end of the connection is left to come
        if self._is_here():
            return await self._next()
        with trio.move_on_after(self._idle_seconds):
            return await self._next()
        raise self._timeout()

    async def take(self) -> bytes:
        """All of it, which then is the caller's: it no longer counts as buffered.

        Waits for ever where the client has left.
        """
        pieces: list[bytes] = []
        while not self._complete:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                await trio.sleep_forever()
            pieces.append(message.get("body", b""))
        self.release()
        return b"".join(pieces)

    async def _next(self) -> Any:
        message = await self._receive()
        self._complete = not message.get("more_body", False)
        self._count(len(message.get("body", b"")))
        return message

    def _timeout(self) -> RequestTimeout:
        return RequestTimeout(f"No byte of the request body came for {self._idle_seconds:g} s.")

    def _count(self, num_bytes: int) -> None:
        self._size += num_bytes
        if self._size > self._max_bytes:
            raise body_too_large(self._max_bytes)
        self._buffered.add(num_bytes)
        self._held += num_bytes

    def release(self) -> None:
        self._buffered.held -= self._held
        self._held = 0
