"""What a device thread drives: the loads, models and sequences of one device.

Made and called by that thread alone.  Answers come back as notices; only DevicePoisoned, after which
the process must end, is raised.
"""

import time
import traceback
from collections.abc import Generator, Iterator
from contextlib import contextmanager

from attrs import define, field

from helexa import logs
from helexa.devices.faults import Fault, chain
from helexa.devices.monitor import Device
from helexa.engine.batch import Batch
from helexa.engine.kept_trial import KeptTrial
from helexa.engine.kv.parked import Parking
from helexa.engine.loader import load
from helexa.engine.orders import (
    Abort,
    Add,
    Crashed,
    Failed,
    Load,
    Loaded,
    LoadProgress,
    Measure,
    Measured,
    Notice,
    Resize,
    Unload,
    Unloaded,
)
from helexa.engine.quant.speed import measure
from helexa.engine.skeleton import first_line
from helexa.engine.torch_setup import prepare_thread
from helexa.errors import (
    DevicePoisoned,
    HelexaError,
    InsufficientVram,
    ServiceUnavailable,
    StoreError,
)
from helexa.store.contents import contents

log = logs.get("helexa.engine")

LOAD_SECONDS = 0.03  # that a load may take of one step, before its last slice


@define
class Loading:
    """A load, or what is measured before one."""

    order: Load | Measure
    slices: Generator[LoadProgress, None, Batch | Measured]
    began: float = field(factory=time.monotonic)


class Worker:
    """`threads` are for CPU work, 0 = all cores.  The device is not touched before its first load."""

    def __init__(self, device: Device, threads: int = 0) -> None:
        self._device = device
        self._threads = threads
        self._loads: dict[int, Loading] = {}
        self._batches: dict[int, Batch] = {}
        self._leaving: list[Unload | Abort] = []
        self._parking = Parking()

    @property
    def idle(self) -> bool:
        """Nothing to step: no load, no sequence, nothing to free."""
        return not (self._loads or self._leaving or any(b.is_busy for b in self._batches.values()))

    def apply(self, order: Load | Measure | Unload | Resize | Add | Abort) -> list[Notice]:
        """Take an order in; what costs time is done by `step`.  Gives refusals, and what an end frees."""
        with poison_named(self._device):
            match order:
                case Load():
                    self._loads[order.uid] = Loading(order, self._slices(order))
                case Measure():
                    self._loads[order.uid] = Loading(order, self._measurement(order))
                case Add():
                    return self._add(order)
                case Unload():
                    self._leaving.append(order)
                case Resize():
                    return self._resize(order)
                case Abort(uid) if uid in self._loads or uid in self._batches:
                    self._leaving.append(order)
                case Abort(uid):
                    return [n for batch in self._batches.values() for n in batch.abort(uid)]
        return []

    def step(self) -> list[Notice]:
        """Free what is to be freed, go on with the oldest load, and step every model once."""
        notices: list[Notice] = []
        with poison_named(self._device):
            while self._leaving:
                notices += self._leave(self._leaving.pop(0))
            if self._loads:
                notices += self._load_slice(min(self._loads))
            for uid in list(self._batches):
                if self._batches[uid].is_busy:
                    notices += self._step_model(uid)
        return notices

    def _add(self, order: Add) -> list[Notice]:
        batch = self._batches.get(order.model_uid)
        if batch is None:
            gone = ServiceUnavailable("the model was unloaded before this request could start")
            return [Failed(order.uid, gone)]
        return batch.add(order)

    def _resize(self, order: Resize) -> list[Notice]:
        if order.uid not in self._batches:
            return []
        use = self._batches[order.uid].resize(order.kv_tokens)
        self._device.trim()
        return [use]

    # -- leaving -----------------------------------------------------------------------------------

    def _leave(self, order: Unload | Abort) -> list[Notice]:
        notices: list[Notice] = []
        if order.uid in self._loads:
            self._loads.pop(order.uid).slices.close()
        if order.uid in self._batches:
            notices += self._end(order.uid)
        self._device.trim()  # nobody holds the model any more, or it would give nothing back
        return [*notices, Unloaded(order.uid)] if isinstance(order, Unload) else notices

    def _end(self, uid: int) -> list[Notice]:
        error = ServiceUnavailable("the model was unloaded while this request ran on it")
        batch = self._batches.pop(uid)
        notices = batch.fail_all(error)
        self._parking.put(batch.identity, batch.park(), batch.order.parked_bytes)
        return notices

    # -- loading -----------------------------------------------------------------------------------

    def _slices(self, order: Load) -> Generator[LoadProgress, None, Batch]:
        prepare_thread(order.device, self._threads)
        self._device.retain()
        files = identity(order)
        loaded = yield from load(order, KeptTrial.of(order))
        batch = Batch(order, loaded, files)
        batch.unpark(self._parking.take(files))
        return batch

    def _measurement(self, order: Measure) -> Generator[LoadProgress, None, Measured]:
        prepare_thread(order.device, self._threads)
        self._device.retain()
        return (yield from measure(order))

    def _load_slice(self, uid: int) -> list[Notice]:
        loading = self._loads[uid]
        deadline = time.monotonic() + LOAD_SECONDS
        try:
            while True:
                progress = next(loading.slices)
                if time.monotonic() >= deadline:
                    return [progress]
        except StopIteration as end:
            return [self._done(self._loads.pop(uid), end.value)]
        except Exception as error:
            failure = self._why_not_loaded(loading.order, error)
        del self._loads[uid]
        self._device.trim()
        return [Failed(uid, failure)]

    def _done(self, loading: Loading, found: Batch | Measured) -> Loaded | Measured:
        self._device.trim()  # what was made on the way
        if isinstance(found, Measured):
            return found
        uid, batch = loading.order.uid, found
        self._batches[uid] = batch
        return Loaded(
            uid,
            batch.weights_bytes,
            time.monotonic() - loading.began,
            batch.kv_tokens,
            batch.kv_bytes_per_token,
            batch.alone,
        )

    def _why_not_loaded(self, order: Load | Measure, error: Exception) -> HelexaError:
        kind = survived(error, self._device)
        if kind == "out_of_memory":
            return InsufficientVram(
                f"{order.model} does not fit into the free memory of {self._device.info.name}",
                retry_after=5,
            )
        if isinstance(error, HelexaError):
            return error
        log.exception("load failed", error, model=order.model)
        return StoreError(f"{order.model} could not be loaded: {first_line(error)}")

    # -- running -----------------------------------------------------------------------------------

    def _step_model(self, uid: int) -> list[Notice]:
        try:
            return self._batches[uid].step()
        except Exception as error:
            survived(error, self._device)
            model, reason = self._batches[uid].model, first_line(error)
            log.exception("model crashed", error, model=model)
        failed = ServiceUnavailable(f"{model} crashed while it ran this request", retry_after=2)
        notices = self._batches.pop(uid).fail_all(failed)
        self._device.trim()
        return [*notices, Crashed(uid, f"{model} crashed: {reason}")]


def identity(order: Load) -> tuple[object, ...]:
    """What the numbers in a KV cache depend on: what the files hold, and how they are run."""
    files = tuple(contents(order.path).items())
    return (files, order.device, order.dtype, order.quant, order.kv_dtype)


@contextmanager
def poison_named(device: Device) -> Iterator[None]:
    """Raise DevicePoisoned for an error after which the device is lost to this process."""
    try:
        yield
    except Exception as error:
        if device.diagnose(error) == "sticky":
            raise DevicePoisoned(f"{device.info.name}: {first_line(error)}") from error
        raise


def survived(error: Exception, device: Device) -> Fault:
    """What the error is to the device; raises it again if the device is lost.

    An error holds the frames it came through, and they hold tensors: they are made to let go.
    """
    kind = device.diagnose(error)
    if kind == "sticky":
        raise error
    for cause in chain(error):
        traceback.clear_frames(cause.__traceback__)
    return kind
