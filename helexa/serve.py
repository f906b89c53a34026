"""The process: its actors nested in the order in which they stop, the listeners first.

listeners (drain) < control < fleet < node and its models < devices < records < state directory
"""

import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import trio
from attrs import define, field, frozen

from helexa import logs
from helexa.accounting import Accounts, open_accounts
from helexa.accounts.provider import Unmetered
from helexa.actors.node import tick_seconds
from helexa.capture import Capture
from helexa.config.read import catalogue_file, read_catalogue, read_config
from helexa.config.schema import Config, Places
from helexa.control.accounts import AccountVerbs
from helexa.control.server import serve as serve_control
from helexa.desired import at_start
from helexa.fleet.catalogue import Catalogue
from helexa.front import Front
from helexa.front import front as open_front
from helexa.http.server import serve as serve_http
from helexa.http.tls import Certificates, certificates
from helexa.listeners import Kept, Roles
from helexa.local import LocalNode, MakeWorker, local_node, torch_worker
from helexa.logs import Ring
from helexa.metrics import Metrics
from helexa.nodes.local import LocalPort
from helexa.records import Records
from helexa.reload import Reload
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
    kept: Kept
    ring: Ring
    notifier: Notifier
    stopping: Stopping
    make_worker: MakeWorker
    certificates: Certificates
    reload: Reload
    config_file: Path | None = None


async def serve(
    config: Config,
    catalogue: Catalogue,
    places: Places,
    ring: Ring,
    environ: Mapping[str, str],
    config_file: Path | None = None,
    *,
    greet: bool = False,
    make_worker: MakeWorker = torch_worker,
) -> Exit:
    """Serve until told to stop; how the process should end.

    With `greet` a command to try is printed once everything is up.
    Raises ConfigError, StateInUse, CannotBind or GaveUp, alone or in a group.
    """
    with open_state(places.state_dir) as state:
        shelf = Shelf(catalogue, partial(read_catalogue, config), partial(catalogue_file, config))
        certs, read = certificates(config), partial(read_config, config_file, environ)
        process = Process(
            config,
            places,
            shelf,
            Kept(
                Metrics(shelf.lists),
                Records.open(state.path),
                Capture(state.path / "captures"),
                Responses(),
            ),
            ring,
            Notifier.from_environ(environ),
            Stopping(),
            make_worker,
            certs,
            Reload(config, config_file, read, shelf, certs),
            config_file,
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
        await base.start(process.kept.records.run)
        await base.start(desired.run)
        await base.start(process.shelf.watch)
        await base.start(heed_signals, process)
        every = watchdog_seconds(environ)
        if every is not None:
            await base.start(keep_alive, process.notifier, every)
        async with AsyncExitStack() as stack:
            accounts = await stack.enter_async_context(accounts_if_enabled(process))
            process.reload.accounts = accounts
            local = await stack.enter_async_context(node_if_enabled(process, desired))
            front = await stack.enter_async_context(front_if_enabled(process, local))
            urls: dict[str, str] = {}
            control = Control(
                process.shelf,
                local.host if local else None,
                local.loads if local else None,
                front,
                process.kept.records,
                process.kept.capture,
                process.ring,
                urls,
                lambda: int(trio.current_time() - started_at),
                lambda: process.stopping.ask("helexa-ctl drain"),
                process.reload,
                account_verbs(process, accounts),
            )
            await stack.enter_async_context(
                running(
                    serve_control,
                    process.places.socket,
                    process.config.control.group,
                    control.verbs(),
                )
            )
            await listen(process, local, front, accounts, urls, greet=greet)
            log.info("stopping")
        base.cancel_scope.cancel()


def preload_ids(process: Process) -> list[str]:
    return [process.shelf.resolve(name).id for name in process.config.models.preload]


@asynccontextmanager
async def accounts_if_enabled(process: Process) -> AsyncGenerator[Accounts | None, None]:
    """A node alone has no ledger: whoever asks it has counted."""
    if not process.config.gateway.enabled:
        yield None
        return
    state_dir, registry = process.places.state_dir, process.kept.metrics.registry
    async with open_accounts(process.config, state_dir, registry) as accounts:
        yield accounts


def account_verbs(process: Process, accounts: Accounts | None) -> AccountVerbs | None:
    if accounts is None:
        return None
    state_dir, catalogue = process.places.state_dir, catalogue_file(process.config)
    files = {
        "keys.json": state_dir / "keys.json",
        "desired.json": state_dir / "desired.json",
        "helexa.toml": process.config_file,
        "models.toml": catalogue,
    }
    there = {name: path for name, path in files.items() if path is not None}
    return AccountVerbs(accounts, there, state_dir)


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
        process.kept.metrics,
        lambda name: poisoned(f"device {name} is poisoned"),
        process.make_worker,
    ) as local:
        yield local


@asynccontextmanager
async def front_if_enabled(
    process: Process, local: LocalNode | None
) -> AsyncGenerator[Front | None, None]:
    if not process.config.gateway.enabled:
        yield None
        return
    port = LocalPort(local.host, tick_seconds(process.config)) if local else None
    async with open_front(process.config, process.shelf, process.kept.metrics, port) as front:
        yield front


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
    process: Process,
    local: LocalNode | None,
    front: Front | None,
    accounts: Accounts | None,
    urls: dict[str, str],
    *,
    greet: bool,
) -> None:
    """Bind every listener, say that we are ready, and return when all have drained."""
    config, stopping = process.config, process.stopping
    async with trio.open_nursery() as nursery:
        for listener in roles(process, local, front, accounts).listeners():
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


def roles(
    process: Process, local: LocalNode | None, front: Front | None, accounts: Accounts | None
) -> Roles:
    return Roles(
        process.config,
        process.shelf,
        process.kept,
        accounts.ledger if accounts else Unmetered(),
        local,
        front,
        process.certificates,
        process.ring,
    )


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


# -- signals ---------------------------------------------------------------------------------------


async def heed_signals(
    process: Process, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """SIGHUP reads again what may change; SIGTERM and SIGINT drain, a second one stops at once."""
    wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    with trio.open_signal_receiver(*wanted) as signals:
        task_status.started()
        async for number in signals:
            if number == signal.SIGHUP:
                process.notifier.reloading()
                await process.reload()
                process.notifier.ready()
            elif process.stopping.asked.is_set():
                raise KeyboardInterrupt
            else:
                process.stopping.ask(signal.Signals(number).name)
