"""A model's place on a node: what the node actor keeps of it, and what a status shows."""

from collections.abc import Mapping
from typing import Literal

import trio
from attrs import define, field, frozen

from helexa.actors.admission import Occupancy
from helexa.actors.device import Device, DeviceStatus
from helexa.actors.mailbox import Request
from helexa.actors.model import Model
from helexa.engine.orders import Dtype
from helexa.errors import HelexaError, InvalidRequest, ModelBusy
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.entry import ModelStatus
from helexa.fleet.known import Known
from helexa.fleet.pool import Pool
from helexa.fleet.quant import Choice, is_same
from helexa.fleet.resizing import Holding

Asker = Literal["request", "operator", "start"]


@frozen
class AtStart:
    """A model that a start brings up, on `devices` (indexes, any if empty), or leaves alone."""

    entry: CatalogueModel
    devices: tuple[int, ...] = ()
    given_up: str = ""  # why it is not tried until an operator asks


@define(eq=False)
class Place:
    """One model that is, was or is to be on this node."""

    entry: CatalogueModel
    status: ModelStatus = "loading"
    by: Asker = "request"  # who the load is for
    allowed_devices: tuple[int, ...] = ()
    known: Known | None = None
    device: Device | None = None
    dtype: Dtype = "fp32"
    choice: Choice = Choice("none")  # how its weights are kept
    reserved_mb: int = 0  # for its weights, until they are there
    weights_mb: int = 0
    model: Model | None = None
    done_bytes: int = 0
    total_bytes: int = 0
    error: HelexaError | None = None
    num_failures: int = 0
    retry_at: float = 0.0
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    load_waiters: list[Request[None]] = field(factory=list)
    unload_waiters: list[Request[None]] = field(factory=list)

    @property
    def promised_mb(self) -> int:
        """What of its memory is not taken yet and yet not to be given away."""
        if self.model is None:
            return 0
        if self.status == "recovering":
            return self.reserved_mb + self.model.kv_mb
        if self.status == "loading":
            left = 1 - self.done_bytes / self.total_bytes if self.total_bytes else 1.0
            return int(self.reserved_mb * left) + self.model.kv_mb
        return self.model.growing_mb + (self.pool.untouched_mb if self._is_lazy else 0)

    @property
    def looks_for_room(self) -> bool:
        return self.status == "loading" and self.device is None

    @property
    def holding(self) -> Holding | None:
        """Its KV pool, if it is loaded: what it could give to others, or get back."""
        if self.status != "loaded" or not self.known or not self.device or not self.model:
            return None
        pool, granted = self.pool, self.model.hosted.granted.kv_tokens
        return Holding(
            self.entry.id,
            self.device.info.index,
            pool.tokens,
            granted,
            promised_tokens=self.known.limit.context,
            running_tokens=pool.use.running_tokens,
            bytes_per_token=pool.bytes_per_token,
        )

    @property
    def pool(self) -> Pool:
        return self.model.pool if self.model else Pool()

    @property
    def _is_lazy(self) -> bool:
        """A CPU's memory is taken only when it is first written."""
        return self.device is not None and self.device.info.kind == "cpu"

    @property
    def used_mb(self) -> int:
        """MiB of its device that the model holds."""
        if self.model is None:
            return 0
        pool = self.pool
        return self.weights_mb + (pool.held_bytes >> 20 if self._is_lazy else pool.total_mb)

    def ask_for(self, entry: CatalogueModel, by: Asker, devices: tuple[int, ...]) -> None:
        """Whose load it is; a request that names no devices leaves those that were named before."""
        self.entry, self.by = entry, by
        if by != "request" or devices:
            self.allowed_devices = devices

    def begin(self) -> None:
        """A load, from its beginning."""
        self.status, self.error, self.model = "loading", None, None
        self.done_bytes = self.total_bytes = 0
        self.scope = trio.CancelScope()

    def still_failed(self) -> HelexaError:
        """What the last load failed by, to be asked again once its pause is over."""
        assert self.error is not None
        return self.error.again(max(1.0, self.retry_at - trio.current_time()))

    def answer_loads(self, error: HelexaError | None = None) -> None:
        """Tell those who wait for the load that it is done, or of the error, a copy each."""
        while self.load_waiters:
            settle(self.load_waiters.pop(), error)

    def answer_unloads(self) -> None:
        while self.unload_waiters:
            settle(self.unload_waiters.pop(), None)


def check_devices(
    model: str, devices: tuple[int, ...], there: list[int], place: Place | None
) -> None:
    """Whoever names devices gets them, or is told why not."""
    if not devices:
        return
    if not set(devices) & set(there):
        raise InvalidRequest(
            f"this node has no such device; it has {', '.join(map(str, there))}",
            param="devices",
        )
    if not place or not place.device or place.status == "unloading":
        return
    if place.device.info.index not in devices:
        raise InvalidRequest(
            f"model {model} is on device {place.device.info.index}; unload it first",
            param="devices",
        )


def check_quant(model: str, quant: str, place: Place | None) -> None:
    """Whoever states how the weights are kept gets that, or is told what there is."""
    if not quant or not place or place.status in ("failed", "unloading"):
        return
    if not is_same(quant, place.entry.quant):
        raise ModelBusy(
            f"model {model} is {place.status} with quant {place.entry.quant or 'none'}, not {quant}: "
            "unload it first",
            param="quant",
        )


def settle(request: Request[None], error: HelexaError | None) -> None:
    if error is None:
        request.reply.set(None)
    else:
        request.reply.fail(error.again())


@frozen
class ModelState:
    """What a status shows of one model; `spare_mb` is what its KV pool could give to others."""

    entry: CatalogueModel
    known: Known | None
    status: ModelStatus
    devices: tuple[int, ...]
    vram_used_mb: int
    occupancy: Occupancy
    pool: Pool
    spare_mb: int
    tokens_per_second: float
    done_bytes: int
    total_bytes: int
    error: str | None
    choice: Choice = Choice("none")

    @property
    def in_flight(self) -> int:
        """Slots in use."""
        return self.occupancy.in_flight

    @property
    def queue_depth(self) -> int:
        """Requests that wait."""
        return self.occupancy.queue_depth


@frozen
class NodeStatus:
    devices: tuple[DeviceStatus, ...]
    models: tuple[ModelState, ...]
    pending: tuple[str, ...]
    failed: Mapping[str, str]  # of the start's models, and why
    activated: bool

    @property
    def activation(self) -> Literal["starting", "loading", "ready"]:
        if any(model.status == "loading" for model in self.models):
            return "loading"
        return "ready" if self.activated else "starting"

    def model(self, model: str) -> ModelState | None:
        return next((state for state in self.models if state.entry.id == model), None)


def state_of(place: Place) -> ModelState:
    model = place.model
    return ModelState(
        entry=place.entry,
        known=place.known,
        status=place.status,
        devices=(place.device.info.index,) if place.device else (),
        vram_used_mb=place.used_mb,
        occupancy=model.occupancy if model else Occupancy(),
        pool=place.pool,
        spare_mb=place.holding.spare_mb if place.holding else 0,
        tokens_per_second=model.tokens_per_second if model else 0.0,
        done_bytes=place.done_bytes,
        total_bytes=place.total_bytes,
        error=place.error.message if place.error else None,
        choice=place.choice,
    )
