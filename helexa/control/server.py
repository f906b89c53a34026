"""The control socket's server: one task per connection, none of which can hold up another."""

import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from pathlib import Path

import trio
from attrs import define, field, frozen

from helexa import logs
from helexa.control.peer import group_id, may_change, peer_of
from helexa.control.protocol import (
    LONGEST_REQUEST,
    Args,
    Json,
    end_line,
    error_line,
    item_line,
    parse_request,
)
from helexa.control.socketfile import listening
from helexa.errors import ConfigError, Forbidden, HelexaError, InvalidRequest, NotFound
from helexa.escape import escape

log = logs.get("helexa.control")

MOST_CONNECTIONS = 32
REQUEST_SECONDS = 10.0  # for the question to arrive
SEND_SECONDS = 30.0  # for a client to take one line


@frozen
class Verb:
    """Something that can be asked.  `handle` yields what is told, item by item; HelexaError refuses.

    `changes` tells whether it may change anything: then not everyone who can connect may ask it.
    """

    name: str
    changes: bool
    handle: Callable[[Args], AsyncGenerator[Json, None]]


async def serve(
    path: Path,
    group: str,
    verbs: Mapping[str, Verb],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer at the socket `path` until cancelled.  Raises CannotBind.

    `group` may open it and ask for changes, if this machine has such a group.
    """
    gid = await trio.to_thread.run_sync(group_id, group)
    server = Server(verbs, gid)
    async with listening(path, gid) as listener, trio.open_nursery() as nursery:
        task_status.started()
        await trio.serve_listeners(server.serve_one, [listener], handler_nursery=nursery)


class Left(Exception):
    """The client is gone, or takes nothing."""


@define(eq=False)
class Server:
    """What all connections share."""

    verbs: Mapping[str, Verb]
    group: int | None
    _places: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(MOST_CONNECTIONS))

    async def serve_one(self, stream: trio.SocketStream) -> None:
        """One connection, from its question to its last line."""
        async with stream:
            with suppress(Left):
                await self._serve_one(stream)

    async def _serve_one(self, stream: trio.SocketStream) -> None:
        try:
            self._places.acquire_nowait()
        except trio.WouldBlock:
            await send(stream, error_line("too many control connections are open", None))
            return
        try:
            await self._answer(stream)
        finally:
            self._places.release()

    async def _answer(self, stream: trio.SocketStream) -> None:
        try:
            line = await receive_line(stream)
            verb, args = self._allowed(stream, line)
        except HelexaError as refusal:
            await send(stream, error_line(escape(refusal.message), refusal.code))
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when_gone, stream, nursery.cancel_scope)
            await tell(stream, verb, args)
            nursery.cancel_scope.cancel()

    def _allowed(self, stream: trio.SocketStream, line: bytes) -> tuple[Verb, Args]:
        name, args = parse_request(line)
        verb = self.verbs.get(name)
        if verb is None:
            known = ", ".join(sorted(self.verbs))
            raise NotFound(
                f"this helexa does not answer {name[:40]!r}, but {known}; "
                "keys, budgets and nodes are asked of a gateway"
            )
        peer = peer_of(stream.socket)
        if verb.changes and not may_change(peer, os.getuid(), self.group):
            raise Forbidden(
                f"{name} changes what runs: it needs root, the service's own user, or the group "
                "that [control] group names"
            )
        if verb.changes:
            log.info("asked at the control socket", verb=name, uid=peer.uid, pid=peer.pid)
        return verb, args


async def tell(stream: trio.SocketStream, verb: Verb, args: Args) -> None:
    """Send what the verb yields, and how it ended."""
    last = end_line()
    try:
        async with aclosing(verb.handle(args)) as items:
            async for item in items:
                await send(stream, item_line(item))
    except Left:
        return
    except HelexaError as refusal:
        last = error_line(escape(refusal.message), refusal.code)
    except ConfigError as refusal:
        last = error_line(str(refusal), None)
    except Exception as bug:  # one question's bug is no reason to stop answering others
        log.exception("control verb failed", bug, verb=verb.name)
        last = error_line(f"{verb.name} failed by an internal error; see the log", None)
    with suppress(Left):
        await send(stream, last)


async def send(stream: trio.SocketStream, line: bytes) -> None:
    try:
        with trio.fail_after(SEND_SECONDS):
            await stream.send_all(line)
    except (trio.BrokenResourceError, trio.TooSlowError):
        raise Left from None


async def receive_line(stream: trio.SocketStream) -> bytes:
    """The client's one line; Left if none comes."""
    line = b""
    with trio.move_on_after(REQUEST_SECONDS):
        while not line.endswith(b"\n"):
            if len(line) > LONGEST_REQUEST:
                raise InvalidRequest(f"a request has at most {LONGEST_REQUEST} bytes")
            line += await receive(stream)
        return line
    raise Left


async def receive(stream: trio.SocketStream) -> bytes:
    try:
        received = await stream.receive_some(4096)
    except trio.BrokenResourceError:
        raise Left from None
    if not received:
        raise Left
    return bytes(received)


async def cancel_when_gone(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    """End what was asked for once the client has closed its end."""
    with suppress(Left):
        while True:
            await receive(stream)
    scope.cancel()
