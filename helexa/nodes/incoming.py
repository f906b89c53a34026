"""One request to a node and its answer on its way, read as fast as it is taken.

Who asked may look at the clock while nothing comes: what is cut short here is a wait, never a read.
"""

import math
from contextlib import suppress

import trio
from attrs import define, field, frozen

from helexa.errors import UpstreamError, UpstreamMalformed
from helexa.http.transport import GONE
from helexa.nodes.connection import Connection, Place, Pool
from helexa.nodes.framing import Answer, Garbled, Head, Headers
from helexa.nodes.port import NodeLost
from helexa.nodes.reasons import reason

BROKEN = (*GONE, trio.TooSlowError, Garbled)


class UpstreamLost(UpstreamError):
    """The node went away in the middle of its answer, or before it and no other could give one."""

    code = "upstream_connection_error"


@frozen(eq=False)
class Question:
    """What is sent.

    `head_seconds` bounds the wait for the answer's head, `silence_seconds` that for each piece of its
    body; they may be infinite.  `endpoint` takes the place of the node's own.
    """

    path: str
    headers: Headers = ()
    body: bytes = field(default=b"", repr=False)
    endpoint: str = ""
    head_seconds: float = math.inf
    silence_seconds: float = math.inf
    method: str = "POST"


@define(eq=False)
class Incoming:
    """`request` goes to `place` when the answer is asked for first.

    Call `close`, which does not wait, whatever happens: unless the answer has ended, its connection is
    cut.
    """

    _node: str
    _pool: Pool
    _place: Place
    _request: bytes
    _head_seconds: float
    _silence_seconds: float
    _connection: Connection | None = field(default=None, init=False)
    _answer: Answer = field(factory=Answer, init=False)
    heard_at: float = field(
        factory=trio.current_time, init=False
    )  # or asked, before the first byte

    async def head(self, seconds: float = math.inf) -> Head | None:
        """The answer up to its body, None if it is not there within `seconds` (connecting and sending
        not counted).  NodeLost; UpstreamMalformed for an answer that cannot be used (a redirect, a
        packed body).
        """
        until = self.heard_at + self._head_seconds
        try:
            await self._ask()
            with trio.move_on_at(min(until, trio.current_time() + seconds)):
                while self._answer.head is None:
                    await self._receive()
        except BROKEN as error:
            raise NodeLost(f"node {self._node} cannot be reached: {reason(error)}") from None
        head = self._answer.head
        if head is None and trio.current_time() >= until:
            raise NodeLost(f"node {self._node} has not answered within {self._head_seconds:.0f} s")
        return head and checked(self._node, head)

    async def piece(self, seconds: float = math.inf) -> bytes | None:
        """More of the body, b"" at its end, None if there is none within `seconds`.  UpstreamLost."""
        try:
            piece = await self._wait(seconds)
        except BROKEN as error:
            raise UpstreamLost(f"node {self._node} went away: {reason(error)}") from None
        if self._answer.ended and self._answer.keeps and self._connection is not None:
            self._pool.give(self._connection)
            self._connection = None
        return piece if piece or self._answer.ended else None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    async def _ask(self) -> None:
        """Send the request, once; each step of that has limits of its own.  A node that refuses it
        half-way may still say why."""
        if self._connection is None and self._answer.head is None:
            self._connection = await self._pool.take(self._place)
            with suppress(*GONE):
                await self._connection.send(self._request)

    async def _wait(self, seconds: float) -> bytes:
        """For a piece of the body or its end, but not too long."""
        piece, until = self._answer.take(), self.heard_at + self._silence_seconds
        if piece or self._answer.ended:
            return piece
        with trio.move_on_at(min(until, trio.current_time() + seconds)):
            while not piece and not self._answer.ended:
                await self._receive()
                piece = self._answer.take()
            return piece
        if trio.current_time() >= until:
            longest = f"{self._silence_seconds:.0f} s"
            raise UpstreamLost(f"node {self._node} was silent for {longest}")
        return b""

    async def _receive(self) -> None:
        if self._connection is None:
            raise trio.ClosedResourceError("it is not asked any more")
        self._answer.feed(await self._connection.receive())
        self.heard_at = trio.current_time()


def checked(node: str, head: Head) -> Head:
    if head.status < 200:
        raise UpstreamMalformed(f"node {node} speaks no HTTP/1.1 any more")
    if 300 <= head.status < 400:
        raise UpstreamMalformed(f"node {node} redirects ({head.status}), which is never followed")
    if head.header("content-encoding") not in ("", "identity"):
        raise UpstreamMalformed(f"node {node} packs its answers, unasked")
    return head
