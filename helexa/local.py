"""The node role: this host's devices, its model store and the node actor over them."""

import gc
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio
from attrs import frozen

from helexa import logs
from helexa.actors.device import Device, DeviceThread, Worker
from helexa.actors.learned import Learned
from helexa.actors.node import Node
from helexa.actors.place import AtStart
from helexa.actors.supervisor import RestartPolicy, keep_running
from helexa.config.schema import Config, Places
from helexa.desired import DesiredModel
from helexa.devices.cuda import CudaError
from helexa.devices.discovery import DeviceInfo, discover
from helexa.devices.faults import classify
from helexa.devices.host import cpu_flags
from helexa.devices.monitor import Device as Watched
from helexa.devices.monitor import Readings, open_device
from helexa.devices.nvml import NvmlError
from helexa.errors import DevicePoisoned, HelexaError
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.dtype import choose_dtype
from helexa.host import Host
from helexa.library import Library
from helexa.loads import Loads
from helexa.metrics import Metrics
from helexa.renderers import open_renderers
from helexa.shelf import Shelf
from helexa.state import DesiredModels
from helexa.store import Store
from helexa.store.nodes import nodes_of

log = logs.get("helexa.node")

NODE_POLICY = RestartPolicy(max_restarts=3, within=300.0, first_delay=0.5)
DEVICE_POLICY = RestartPolicy(max_restarts=3, within=300.0, first_delay=1.0)
READ_SECONDS = 5.0  # for one reading; a driver whose card fell off the bus may never answer


# What a device's thread drives, given the device and the number of threads for its CPU work.
MakeWorker = Callable[[Watched, int], Worker]


@frozen(eq=False)
class LocalNode:
    host: Host
    loads: Loads


@asynccontextmanager
async def local_node(
    config: Config,
    places: Places,
    shelf: Shelf,
    desired: DesiredModels,
    metrics: Metrics,
    on_poisoned: Callable[[str], None],
    make_worker: MakeWorker,
) -> AsyncGenerator[LocalNode, None]:
    """Run this host's devices, then its node, for as long as the block lasts."""
    found = await trio.to_thread.run_sync(discover, config.node)
    for warning in found.warnings:
        log.warning("device warning", reason=warning)
    if found.cuda_unavailable_reason:
        log.info("no GPU is used", reason=found.cuda_unavailable_reason)
    store = await trio.to_thread.run_sync(Store, config.store, places.store_dir, nodes_of(config))
    flags = cpu_flags()
    devices = [make_device(config, info, make_worker, on_poisoned) for info in found.devices]
    dtypes = [
        choose_dtype(config.engine.dtype, device.info.compute_capability, flags)
        for device in devices
    ]
    on_crash = partial(count_crash, metrics)
    async with open_renderers() as renderers, trio.open_nursery() as below:
        library = Library(store, config.limits, renderers)
        learned = Learned(await trio.to_thread.run_sync(desired.state.read_lessons))
        await below.start(learned.keep, desired.state.write_lessons)
        computing = list(zip(devices, dtypes, strict=True))
        node = Node(config, computing, library, desired, metrics, learned=learned)
        for device in devices:
            name = f"device {device.info.index}"
            await below.start(
                partial(keep_running, on_crash=on_crash), name, device.run, DEVICE_POLICY
            )
        async with trio.open_nursery() as above:
            at_start = partial(models_at_start, shelf, desired, found.devices)
            run_node = partial(node.run, at_start)
            await above.start(
                partial(keep_running, on_crash=on_crash), "node", run_node, NODE_POLICY
            )
            yield LocalNode(
                Host(node, found, library, trio.current_time()),
                Loads(shelf, library, config.node.allow_sources),
            )
            above.cancel_scope.cancel()
        node.close()
        below.cancel_scope.cancel()


def count_crash(metrics: Metrics, actor: str) -> None:
    metrics.restarts.labels(actor).inc()


def make_device(
    config: Config,
    info: DeviceInfo,
    make_worker: MakeWorker,
    on_poisoned: Callable[[str], None],
) -> Device:
    watched = open_device(info, config.node)
    thread = DeviceThread(
        f"helexa-{info.torch_name}", partial(make_worker, watched, config.engine.threads)
    )
    return Device(
        info,
        thread,
        partial(read, watched, trio.CapacityLimiter(1)),
        on_poisoned,
        drain_seconds=config.server.drain_seconds,
    )


def torch_worker(watched: Watched, threads: int) -> Worker:
    """On the device's thread, and only when it has an order: importing torch takes seconds."""
    from helexa.engine.worker import Worker as TorchWorker

    gc.freeze()  # else the collection at each load and unload stops every stream for 0.3 s
    return TorchWorker(watched, threads)


async def read(watched: Watched, one_at_a_time: trio.CapacityLimiter) -> Readings | None:
    """What the device tells; None if not this time.  Raises DevicePoisoned if it is lost.

    A reading that hangs is left behind; with a limiter of its own it takes no thread from others,
    and the next reading waits for it.
    """
    reason = f"no answer within {READ_SECONDS:g} s"
    with trio.move_on_after(READ_SECONDS):
        try:
            return await trio.to_thread.run_sync(
                watched.readings, abandon_on_cancel=True, limiter=one_at_a_time
            )
        except (CudaError, NvmlError, HelexaError, OSError) as error:
            if classify(error) == "sticky":
                raise DevicePoisoned(str(error)) from error
            reason = str(error)
    log.warning("device not read", device=watched.info.index, reason=reason)
    return None


def models_at_start(
    shelf: Shelf, desired: DesiredModels, devices: Sequence[DeviceInfo]
) -> list[AtStart]:
    """What this life of the node brings up, or leaves alone; cards are known by their uuid."""
    indexes = {device.uuid: device.index for device in devices}
    value = desired.value
    return [start_of(shelf, model, indexes) for model in (*value.given_up, *value.to_load)]


def start_of(shelf: Shelf, model: DesiredModel, indexes: Mapping[str, int]) -> AtStart:
    """A model that was sent to cards which are not here stays down until somebody decides."""
    there = tuple(indexes[uuid] for uuid in model.devices if uuid in indexes)
    missing = f"its device {', '.join(model.devices)} is not here" if model.devices else ""
    return AtStart(entry_of(shelf, model), there, model.failed or ("" if there else missing))


def entry_of(shelf: Shelf, model: DesiredModel) -> CatalogueModel:
    """The catalogue's entry, else one for the source that the model was loaded from."""
    found = shelf.catalogue.resolve(model.id)
    return found or CatalogueModel(id=model.id, source=model.source)
