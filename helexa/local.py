"""The node role: this host's devices, its model store and the node actor over them."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio
from attrs import frozen

from helexa import logs
from helexa.actors.device import Device, DeviceThread, Worker
from helexa.actors.node import Node
from helexa.actors.supervisor import RestartPolicy, keep_running
from helexa.config.schema import Config, Places
from helexa.desired import Desired, DesiredModel
from helexa.devices.cuda import CudaError
from helexa.devices.discovery import DeviceInfo, discover
from helexa.devices.faults import classify
from helexa.devices.host import cpu_flags
from helexa.devices.monitor import Device as Watched
from helexa.devices.monitor import Readings, open_device
from helexa.devices.nvml import NvmlError
from helexa.errors import DevicePoisoned
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.dtype import choose_dtype
from helexa.host import Host
from helexa.library import Library
from helexa.loads import Loads
from helexa.metrics import Metrics
from helexa.shelf import Shelf
from helexa.state import DesiredModels
from helexa.store import Store

log = logs.get("helexa.node")

DEVICE_POLICY = RestartPolicy(max_restarts=3, within=300.0, first_delay=1.0)


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
    store = await trio.to_thread.run_sync(Store, config.store, places.store_dir)
    library = Library(store, config.limits)
    flags = cpu_flags()
    devices = [make_device(config, info, make_worker, on_poisoned) for info in found.devices]
    dtypes = [
        choose_dtype(config.engine.dtype, device.info.compute_capability, flags)
        for device in devices
    ]
    node = Node(config, list(zip(devices, dtypes, strict=True)), library, desired, metrics)
    on_crash = partial(count_crash, metrics)
    async with trio.open_nursery() as below:
        for device in devices:
            name = f"device {device.info.index}"
            await below.start(
                partial(keep_running, on_crash=on_crash), name, device.run, DEVICE_POLICY
            )
        async with trio.open_nursery() as above:
            await above.start(
                node.run, to_load(shelf, desired.value), given_up(shelf, desired.value)
            )
            yield LocalNode(
                Host(node, found, trio.current_time()),
                Loads(shelf, library, config.node.allow_sources),
            )
            above.cancel_scope.cancel()
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
    return Device(info, thread, partial(read, watched), on_poisoned)


def torch_worker(watched: Watched, threads: int) -> Worker:
    """On the device's thread, and only when it has an order: importing torch takes seconds."""
    from helexa.engine.worker import Worker as TorchWorker

    return TorchWorker(watched, threads)


async def read(watched: Watched) -> Readings | None:
    """What the device tells; None if not this time.  Raises DevicePoisoned if it is lost."""
    try:
        return await trio.to_thread.run_sync(watched.readings)
    except (CudaError, NvmlError) as error:
        if classify(error) == "sticky":
            raise DevicePoisoned(str(error)) from error
        log.warning("device not read", device=watched.info.index, reason=str(error))
        return None


def to_load(shelf: Shelf, desired: Desired) -> Sequence[CatalogueModel]:
    return [entry_of(shelf, model) for model in desired.to_load]


def given_up(shelf: Shelf, desired: Desired) -> Sequence[tuple[CatalogueModel, str]]:
    return [(entry_of(shelf, model), model.failed) for model in desired.given_up]


def entry_of(shelf: Shelf, model: DesiredModel) -> CatalogueModel:
    """The catalogue's entry, else one for the source that the model was loaded from."""
    found = shelf.catalogue.resolve(model.id)
    return found or CatalogueModel(id=model.id, source=model.source)
