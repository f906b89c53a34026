"""A listener: binds an address, serves an application on it, drains when told to.

Each role of the process runs one `serve`; the listener's door stands before every request.
Hypercorn's protocol and lifespan do the HTTP; its connection class is ours (`connection`), and so is
the loop around it, which neither a client nor an application can bring down.
"""

import logging
import socket
from contextlib import suppress
from functools import partial
from typing import cast

import trio
from attrs import evolve, field, frozen
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, LifespanState

from helexa.accounts.provider import Budgets
from helexa.config.schema import Limits
from helexa.http.address import own_names, split_address
from helexa.http.bind import bind, url_of
from helexa.http.call import App
from helexa.http.connection import Connection
from helexa.http.crowd import Crowd
from helexa.http.doors import Door
from helexa.http.guard import Guard
from helexa.http.refusals import CountRefusal, Refusals, not_counted
from helexa.http.tls import Certificate
from helexa.http.transport import Plain

KEEP_ALIVE_SECONDS = 75.0  # longer than the pools of clients and proxies keep a connection
KIB = 2**10
NO_LIFESPAN = trio.ClosedResourceError  # raised if the application returns without waiting for it


@frozen
class Listener:
    """An ASGI application at an address: `127.0.0.1:31313`, `[::1]:0`; port 0 is any free one.

    `on_refusal` hears the code of every error that is told instead of an answer, but of those that
    a route keeps a record of.  With a `certificate` it speaks TLS.  `budgets` knows the keys that
    its door takes.
    """

    app: App
    bind: str
    name: str
    door: Door = field(factory=Door)
    on_refusal: CountRefusal = not_counted
    certificate: Certificate | None = None
    budgets: Budgets | None = None


async def serve(
    listener: Listener,
    limits: Limits,
    *,
    drain: trio.Event,
    drain_seconds: float,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `drain` is set and the running responses are done; starts with the URL.

    When draining, new connections are refused and idle ones closed; what still runs after
    `drain_seconds` is cancelled.  Cancelling `serve` cancels everything at once.  Raises CannotBind.
    """
    accepting = await bind(listener.name, listener.bind, limits)
    async with accepting:
        refusals = Refusals(listener.name, listener.on_refusal)
        guard = Guard(listener.app, door_of(listener), limits, refusals, listener.budgets)
        app = ASGIWrapper(cast(ASGIFramework, guard))
        config, state = hypercorn_config(limits), LifespanState()
        lifespan = Lifespan(app, config, state)
        async with trio.open_nursery() as nursery:
            await nursery.start(lifespan.handle_lifespan)
            with suppress(NO_LIFESPAN):
                await lifespan.wait_for_startup()
            nursery.start_soon(refusals.run)
            certificate = listener.certificate
            task_status.started(url_of(accepting, is_secure=certificate is not None))
            context = WorkerContext(None)
            connect = partial(
                Connection, app, config, context, state, limits, refusals, certificate or Plain
            )
            crowd = Crowd(connect, limits, refusals)
            await serve_connections(accepting, crowd, context, drain, drain_seconds)
            with suppress(NO_LIFESPAN):
                await lifespan.wait_for_shutdown()
            nursery.cancel_scope.cancel()


async def serve_connections(
    accepting: trio.SocketListener,
    crowd: Crowd,
    context: WorkerContext,
    drain: trio.Event,
    drain_seconds: float,
) -> None:
    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as acceptor:
            acceptor.start_soon(
                partial(
                    trio.serve_listeners, crowd.receive, [accepting], handler_nursery=connections
                )
            )
            await drain.wait()
            acceptor.cancel_scope.cancel()
        await context.terminated.set()
        connections.cancel_scope.deadline = trio.current_time() + drain_seconds
        crowd.drain()


def door_of(listener: Listener) -> Door:
    host, _ = split_address(listener.bind)
    return evolve(listener.door, names=own_names(host, socket.gethostname()))


def hypercorn_config(limits: Limits) -> Config:
    config = Config()
    config.h11_max_incomplete_size = int(limits.max_header_kb * KIB)
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    config.errorlog = logging.getLogger("helexa.http")
    return config
