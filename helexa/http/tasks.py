"""Running the application of a connection: one task and one inbox for each request."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.typing import AppWrapper

from helexa import logs

log = logs.get("helexa.http")

LEFT = {"type": "http.disconnect"}

AppSend = Callable[[Any], Awaitable[None]]


class Tasks:
    """What hypercorn calls a task group, in the nursery of the connection."""

    def __init__(self, nursery: trio.Nursery, invite_body: Callable[[], Awaitable[None]]) -> None:
        self._nursery = nursery
        self._invite_body = invite_body

    def spawn(self, func: Callable[..., Awaitable[Any]], *args: Any) -> None:
        self._nursery.start_soon(func, *args)

    async def spawn_app(
        self, app: AppWrapper, config: Config, scope: Any, send: AppSend
    ) -> Callable[[Any], Awaitable[None]]:
        inbox = Inbox(self._invite_body, config.max_app_queue_size)
        scope["state"]["leaving"] = inbox.leaving
        self._nursery.start_soon(run_app, app, scope, inbox, send)
        return inbox.put


async def run_app(app: AppWrapper, scope: Any, inbox: "Inbox", send: AppSend) -> None:
    try:
        await app(scope, inbox.receive, send, trio.to_thread.run_sync, trio.from_thread.run)
    except Exception as error:
        log.exception("an application failed", error)
    await send(None)  # says 500, or cuts the response short, unless it is complete


class Inbox:
    """What the client sent, on its way to one run of the application.

    A disconnect needs no room in the queue: it ends the queue, and frees whoever waits to put more.  It
    also cancels `leaving`, in which an application may run that has no task to wait for it.
    """

    def __init__(self, before_receiving: Callable[[], Awaitable[None]], size: int) -> None:
        self.leaving = trio.CancelScope()
        self._before_receiving = before_receiving
        self._send, self._receive = trio.open_memory_channel[Any](size)

    async def put(self, message: Any) -> None:
        if message["type"] == "http.disconnect":
            self.leaving.cancel()
            return self._send.close()
        try:
            self._send.send_nowait(message)
        except trio.WouldBlock:
            with suppress(trio.ClosedResourceError):
                await self._send.send(message)

    async def receive(self) -> Any:
        await self._before_receiving()
        try:
            return self._receive.receive_nowait()
        except trio.WouldBlock:
            pass
        except trio.EndOfChannel:
            return LEFT
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            return LEFT
