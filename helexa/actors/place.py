"""A model's place on a node: what the node actor keeps of it, and what a status shows."""

from typing import Literal

import trio
from attrs import define, field, frozen

from helexa.actors.device import Device, DeviceStatus
from helexa.actors.mailbox import Request
from helexa.actors.model import Model
from helexa.engine.orders import Dtype
from helexa.errors import HelexaError
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.dtype import BYTES
from helexa.fleet.entry import ModelStatus
from helexa.fleet.known import Known

PLACED_CONTEXT_TOKENS = 4096  # KV cache that placement counts in for a model


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
    required_mb: int = 0
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
        if self.status == "recovering":
            return self.required_mb
        if self.status != "loading":
            return 0
        left = 1 - self.done_bytes / self.total_bytes if self.total_bytes else 1.0
        return int(self.required_mb * left)

    def answer_loads(self, error: HelexaError | None = None) -> None:
        """Tell those who wait for the load that it is done, or of the error, a copy each."""
        while self.load_waiters:
            settle(self.load_waiters.pop(), error)

    def answer_unloads(self) -> None:
        while self.unload_waiters:
            settle(self.unload_waiters.pop(), None)


def settle(request: Request[None], error: HelexaError | None) -> None:
    if error is None:
        request.reply.set(None)
    else:
        request.reply.fail(error.again())


@frozen
class ModelState:
    """What a status shows of one model."""

    entry: CatalogueModel
    known: Known | None
    status: ModelStatus
    devices: tuple[int, ...]
    vram_used_mb: int
    in_flight: int
    queue_depth: int
    kv_tokens: int
    kv_bytes: int
    tokens_per_second: float
    done_bytes: int
    total_bytes: int
    error: str | None


@frozen
class NodeStatus:
    devices: tuple[DeviceStatus, ...]
    models: tuple[ModelState, ...]
    pending: tuple[str, ...]
    failed: tuple[str, ...]
    activated: bool

    @property
    def activation(self) -> Literal["starting", "loading", "ready"]:
        if any(model.status == "loading" for model in self.models):
            return "loading"
        return "ready" if self.activated else "starting"

    def model(self, model: str) -> ModelState | None:
        return next((state for state in self.models if state.entry.id == model), None)


def required_mb(known: Known, dtype: Dtype) -> int:
    """MiB for the weights and the KV cache of one usual sequence."""
    width = BYTES[dtype]
    context = min(known.limit.context, PLACED_CONTEXT_TOKENS)
    kv = known.size.kv_bytes(context, width)
    return (known.size.weights_bytes(width) + kv) // 2**20 + 1


def state_of(place: Place) -> ModelState:
    model, known = place.model, place.known
    kv_bytes = model.kv_bytes(BYTES[place.dtype]) if model else 0
    return ModelState(
        entry=place.entry,
        known=known,
        status=place.status,
        devices=(place.device.info.index,) if place.device else (),
        vram_used_mb=place.weights_mb + kv_bytes // 2**20 if model else 0,
        in_flight=model.in_flight if model else 0,
        queue_depth=model.queue_depth if model else 0,
        kv_tokens=model.kv_tokens if model else 0,
        kv_bytes=kv_bytes,
        tokens_per_second=model.tokens_per_second if model else 0.0,
        done_bytes=place.done_bytes,
        total_bytes=place.total_bytes,
        error=place.error.message if place.error else None,
    )
