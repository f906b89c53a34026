"""One answer on its way from a node: read by a task of its own, never more than a little ahead.

Who asked may look at the clock while nothing comes, which a read that must not be cut short forbids.
What came at once is handed over at once, so that a burst costs little.
"""

from contextlib import aclosing

import trio
from attrs import frozen

from helexa.nodes.client import Client, Headers, Response
from helexa.nodes.port import NodeLost

MOST_AHEAD = (
    64 * 2**10
)  # bytes that are read before somebody takes them, and at most one piece more


@frozen(eq=False)
class Question:
    """What is sent; times as in `Client.stream`."""

    path: str
    headers: Headers
    body: bytes
    endpoint: str = ""
    head_seconds: float | None = None
    silence_seconds: float | None = None


class Incoming:
    """Call `close`, which does not wait, whatever happens: unless the answer has ended, its connection
    is cut."""

    def __init__(self, client: Client, question: Question) -> None:
        self._client = client
        self._question = question
        self._scope = trio.CancelScope()
        self._response: Response | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._has_ended = False
        self._error: Exception | None = NodeLost(f"node {client.name} is not asked any more")
        self._came = trio.Event()
        self._taken = trio.Event()
        client.tasks.start_soon(self._run)

    async def head(self, seconds: float) -> Response | None:
        """The answer up to its body, None if it is not there within `seconds`.  As `Client.stream`
        raises."""
        if self._response is None:
            await self._wait(seconds)
        if self._response is None and self._has_ended and self._error is not None:
            raise self._error
        return self._response

    async def piece(self, seconds: float) -> bytes | None:
        """More of the body, b"" at its end, None if there is none within `seconds`."""
        if not self._pieces:
            await self._wait(seconds)
        if self._pieces:
            return self._take()
        if not self._has_ended:
            return None
        if self._error is not None:
            raise self._error
        return b""

    def close(self) -> None:
        self._scope.cancel()

    async def _wait(self, seconds: float) -> None:
        if not self._has_ended:
            self._came = trio.Event()
            with trio.move_on_after(seconds):
                await self._came.wait()

    def _take(self) -> bytes:
        found = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        self._taken.set()
        return found

    # -- the task that reads -------------------------------------------------------------------------

    async def _run(self) -> None:
        """Nothing that goes wrong here ends anything but this answer."""
        try:
            with self._scope:
                await self._read()
                self._error = None
        except Exception as error:
            self._error = error
        finally:
            self._has_ended = True
            self._came.set()

    async def _read(self) -> None:
        asked = self._question
        async with (
            self._client.stream(
                "POST",
                asked.path,
                asked.headers,
                asked.body,
                head_seconds=asked.head_seconds,
                silence_seconds=asked.silence_seconds,
                endpoint=asked.endpoint,
            ) as response,
            aclosing(response.body) as pieces,
        ):
            self._response = response
            self._came.set()
            async for piece in pieces:
                if piece:
                    await self._hand(piece)

    async def _hand(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        self._came.set()
        if self._size >= MOST_AHEAD:
            self._taken = trio.Event()
            await self._taken.wait()
