"""The process: its actors nested in the order in which they stop, the listeners first.

listeners (drain) < control < node and its models < devices < records < state directory
"""

import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import trio
from attrs import define, field, frozen

from helexa import logs
from helexa.actors.node import Node, tick_seconds
from helexa.capture import Capture
from helexa.config import schema
from helexa.config.read import read_catalogue
from helexa.config.schema import Config, Places
from helexa.control.server import serve as serve_control
from helexa.desired import at_start
from helexa.fleet.catalogue import Catalogue
from helexa.fleet.entry import ModelEntry
from helexa.gateway import Gateway
from helexa.here import Here
from helexa.host import fleet_entries
from helexa.http.api import Api, Entries
from helexa.http.doors import Door
from helexa.http.gateway import gateway_app
from helexa.http.inference import Answers
from helexa.http.metrics import metrics_app
from helexa.http.node import node_app
from helexa.http.server import Listener
from helexa.http.server import serve as serve_http
from helexa.local import LocalNode, MakeWorker, local_node, torch_worker
from helexa.logs import Ring
from helexa.metrics import Metrics
from helexa.recorder import Recorder
from helexa.records import Records
from helexa.responses import Responses
from helexa.service import Exit, Notifier, ending, keep_alive, watchdog_seconds
from helexa.shelf import Shelf
from helexa.state import DesiredModels, StateDir, open_state
from helexa.verbs import Control

log = logs.get("helexa.serve")

# Ends that no load can have brought about: it is not held against a model that was loading.
NO_LOAD_S_FAULT = (Exit.STOPPED, Exit.CONFIG, Exit.CANNOT_BIND, Exit.STATE_IN_USE)
STOPPING_MARGIN_SECONDS = 60.0  # beyond the drain: unloading, and the step in hand


@define(eq=False)
class Stopping:
    """Whether the process is to end, and as what.  The first cause counts."""

    asked: trio.Event = field(factory=trio.Event, init=False)
    code: Exit = field(default=Exit.STOPPED, init=False)

    def ask(self, why: str, code: Exit = Exit.STOPPED) -> None:
        if not self.asked.is_set():
            log.info("draining", why=why)
            self.code = code
            self.asked.set()


@frozen(eq=False)
class Process:
    """What the parts of one process share."""

    config: Config
    places: Places
    shelf: Shelf
    metrics: Metrics
    records: Records
    capture: Capture
    responses: Responses
    ring: Ring
    notifier: Notifier
    stopping: Stopping
    make_worker: MakeWorker


async def serve(
    config: Config,
    catalogue: Catalogue,
    places: Places,
    ring: Ring,
    environ: Mapping[str, str],
    *,
    greet: bool = False,
    make_worker: MakeWorker = torch_worker,
) -> Exit:
    """Serve until told to stop; how the process should end.

    With `greet` a command to try is printed once everything is up.
    Raises ConfigError, StateInUse, CannotBind or GaveUp, alone or in a group.
    """
    with open_state(places.state_dir) as state:
        shelf = Shelf(catalogue, partial(read_catalogue, config))
        process = Process(
            config,
            places,
            shelf,
            Metrics(shelf.lists),
            Records.open(state.path),
            Capture(state.path / "captures"),
            Responses(),
            ring,
            Notifier.from_environ(environ),
            Stopping(),
            make_worker,
        )
        return await run(process, state, environ, greet=greet)


async def run(
    process: Process, state: StateDir, environ: Mapping[str, str], *, greet: bool
) -> Exit:
    started_at = trio.current_time()
    found = state.read_desired()
    desired = DesiredModels(state, found, at_start(found, preload_ids(process)))
    try:
        await run_all(process, desired, environ, started_at, greet=greet)
    except BaseException as error:
        if ending(error)[0] in NO_LOAD_S_FAULT:
            desired.stopped()
        raise
    if process.stopping.code is Exit.STOPPED:  # a load that poisoned its device stays marked
        desired.stopped()
    return process.stopping.code


async def run_all(
    process: Process,
    desired: DesiredModels,
    environ: Mapping[str, str],
    started_at: float,
    *,
    greet: bool,
) -> None:
    async with trio.open_nursery() as base:
        await base.start(process.records.run)
        await base.start(desired.run)
        await base.start(heed_signals, process)
        every = watchdog_seconds(environ)
        if every is not None:
            await base.start(keep_alive, process.notifier, every)
        async with AsyncExitStack() as stack:
            local = await stack.enter_async_context(node_if_enabled(process, desired))
            urls: dict[str, str] = {}
            control = Control(
                process.shelf,
                local.host if local else None,
                local.loads if local else None,
                process.records,
                process.capture,
                process.ring,
                urls,
                lambda: int(trio.current_time() - started_at),
                lambda: process.stopping.ask("helexa-ctl drain"),
            )
            await stack.enter_async_context(
                running(
                    serve_control,
                    process.places.socket,
                    process.config.control.group,
                    control.verbs(),
                )
            )
            await listen(process, local, urls, greet=greet)
            log.info("stopping")
        base.cancel_scope.cancel()


def preload_ids(process: Process) -> list[str]:
    return [process.shelf.resolve(name).id for name in process.config.models.preload]


@asynccontextmanager
async def node_if_enabled(
    process: Process, desired: DesiredModels
) -> AsyncGenerator[LocalNode | None, None]:
    if not process.config.node.enabled:
        yield None
        return
    poisoned = partial(process.stopping.ask, code=Exit.DEVICE_POISONED)
    async with local_node(
        process.config,
        process.places,
        process.shelf,
        desired,
        process.metrics,
        lambda name: poisoned(f"device {name} is poisoned"),
        process.make_worker,
    ) as local:
        yield local


@asynccontextmanager
async def running(
    actor: Callable[..., Awaitable[object]], *args: object
) -> AsyncGenerator[None, None]:
    """Run an actor beside the block, and end it with the block."""
    async with trio.open_nursery() as nursery:
        await nursery.start(actor, *args)
        yield
        nursery.cancel_scope.cancel()


# -- listeners -------------------------------------------------------------------------------------


async def listen(
    process: Process, local: LocalNode | None, urls: dict[str, str], *, greet: bool
) -> None:
    """Bind every listener, say that we are ready, and return when all have drained."""
    config, stopping = process.config, process.stopping
    async with trio.open_nursery() as nursery:
        for listener in listeners(process, local):
            urls[listener.name] = await nursery.start(
                partial(
                    serve_http,
                    listener,
                    config.limits,
                    drain=stopping.asked,
                    drain_seconds=config.server.drain_seconds,
                )
            )
            log.info("listening", role=listener.name, url=urls[listener.name])
        if local is not None:
            local.host.node.activate()
        process.notifier.ready(" ".join(urls.values()))
        async with trio.open_nursery() as meanwhile:
            if greet and "gateway" in urls:
                meanwhile.start_soon(greet_when_up, process, local, urls["gateway"])
            await stopping.asked.wait()
            meanwhile.cancel_scope.cancel()
        process.notifier.stopping(config.server.drain_seconds + STOPPING_MARGIN_SECONDS)


def listeners(process: Process, local: LocalNode | None) -> list[Listener]:
    config = process.config
    node = local.host.node if local else None
    found = []
    if config.gateway.enabled:
        gateway = Gateway(config, process.shelf, node)
        entries = partial(entries_of, process.shelf, node)
        app = gateway_app(api(process, gateway, entries), config.limits)
        found.append(("gateway", app, config.gateway.listen, gateway_door(config)))
    if local is not None:
        here = Here(local.host.node, local.loads, tick_seconds(config))
        app = node_app(
            api(process, here, local.host.entries), local.host, local.loads, config.limits
        )
        found.append(("node", app, config.node.listen, node_door(config)))
    app = metrics_app(process.metrics, node, config.limits)
    found.append(("metrics", app, config.metrics.listen, metrics_door(config)))
    count = process.metrics.refused
    return [
        Listener(app, listen, name, door, on_refusal=partial(count, name))
        for name, app, listen, door in found
    ]


async def greet_when_up(process: Process, local: LocalNode | None, url: str) -> None:
    """Print a curl line that works, once the models of the start are up."""
    if local is not None:
        await local.host.node.activated.wait()
    models = process.shelf.catalogue.models
    if models:
        print(greeting(url, models[0].id), flush=True)


def greeting(url: str, model: str) -> str:
    body = (
        f'{{"model": "{model}", "temperature": 0, '
        '"messages": [{"role": "user", "content": "What is the capital of France?"}]}'
    )
    return (
        "\nhelexa is ready.  Try:\n\n"
        f"  curl -s {url}/v1/chat/completions -H 'content-type: application/json' \\\n"
        f"    -d '{body}'\n"
    )


async def entries_of(shelf: Shelf, node: Node | None) -> list[ModelEntry]:
    """The fleet's models by the catalogue that is in force when they are asked for."""
    return await fleet_entries(shelf.catalogue, node)


def api(process: Process, answers: Answers, entries: Entries) -> Api:
    return Api(
        answers,
        entries,
        process.responses,
        Recorder(process.metrics, process.records),
        process.capture,
        process.config.admission.stream_open_seconds,
    )


def gateway_door(config: Config) -> Door:
    return door_of(config.gateway, cors_origins=config.gateway.cors_origins)


def node_door(config: Config) -> Door:
    return door_of(
        config.node,
        token=config.node.token,
        public_paths=("/health",),
        believe_principals=True,
        trusted_peers=config.node.trusted_peers,
    )


def metrics_door(config: Config) -> Door:
    return door_of(config.metrics, token=config.metrics.token)


def door_of(settings: schema.Gateway | schema.Node | schema.Metrics, **more: Any) -> Door:
    """What every listener's door is told, and what only this one's is."""
    return Door(
        allowed_hosts=settings.allowed_hosts, allowed_origins=settings.allowed_origins, **more
    )


# -- signals ---------------------------------------------------------------------------------------


async def heed_signals(
    process: Process, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """SIGHUP reads the catalogue again; SIGTERM and SIGINT drain, a second one stops at once."""
    wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    with trio.open_signal_receiver(*wanted) as signals:
        task_status.started()
        async for number in signals:
            if number == signal.SIGHUP:
                process.notifier.reloading()
                await process.shelf.reload()
                process.notifier.ready()
            elif process.stopping.asked.is_set():
                raise KeyboardInterrupt
            else:
                process.stopping.ask(signal.Signals(number).name)
