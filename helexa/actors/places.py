"""The models of a node and what becomes of each: decided at once, while `hosting` does what takes time."""

import math

import trio
from attrs import define, field

from helexa import logs
from helexa.actors.devices import Devices
from helexa.actors.hosting import Hosting
from helexa.actors.model import (
    Decided,
    LoadMoved,
    Model,
    ModelNews,
    Prefilled,
    PrefixesUsed,
    Ready,
    Recovering,
)
from helexa.actors.place import ModelState, Place, check_devices, check_quant, state_of
from helexa.actors.ports import Desired
from helexa.errors import (
    HelexaError,
    InsufficientVram,
    ModelBusy,
    ModelNotFound,
    NotLoaded,
    ServiceUnavailable,
)
from helexa.fleet.backoff import pause
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.pool import Counted
from helexa.messages import Gone, LoadModel, UnloadModel
from helexa.metrics import Metrics

log = logs.get("helexa.node")

RECOVERING_SECONDS = 2.0


@define(eq=False)
class Places:
    """The part of the node actor that has the models.  Nothing here waits, so what is read is still true."""

    _node: str
    _devices: Devices
    _hosting: Hosting
    _desired: Desired
    _metrics: Metrics
    there: dict[str, Place]  # by the models' ids
    # Models of the start that are not up yet, and why that failed, "" until it was tried.
    missing: dict[str, str] = field(factory=dict, init=False)

    def begin(self) -> None:
        """A life of the node begins; what a life before it had is gone with it."""
        for place in self.there.values():
            if place.status == "loading":  # no load of a life that crashed ended the process
                self._desired.failed(place.entry.id)
        self.there.clear()
        self.missing.clear()

    def leave_alone(self, entry: CatalogueModel, why: str) -> None:
        """Not to be loaded until an operator asks for it."""
        error = ServiceUnavailable(why, retry_after=math.inf)
        self.there[entry.id] = Place(entry, "failed", error=error, retry_at=math.inf)
        self.missing[entry.id] = why

    def find(self, model: str) -> Model:
        """The loaded model; NotLoaded, or ServiceUnavailable while it recovers."""
        place = self.there.get(model)
        if place is not None and place.status == "recovering":
            raise ServiceUnavailable(
                f"model {model} is recovering from a crash", retry_after=RECOVERING_SECONDS
            )
        if place is None or place.model is None or place.status != "loaded":
            raise NotLoaded(f"model {model} is not loaded on this node", param="model")
        return place.model

    def states(self) -> tuple[ModelState, ...]:
        return tuple(state_of(place) for place in self.there.values())

    # -- loading ---------------------------------------------------------------------------------

    def load(self, request: LoadModel) -> None:
        place = self.there.get(request.entry.id)
        check_devices(request.entry.id, request.devices, self._devices.indexes, place)
        if request.by == "operator":
            check_quant(request.entry.id, request.quant, place)
        if place is None:
            place = self.there[request.entry.id] = Place(request.entry)
        elif place.status == "loaded":
            request.reply.set(None)
            return
        elif place.status != "failed":
            if place.status == "unloading" and not place.load_waiters:
                # the next life is this request's
                place.ask_for(request.entry, request.by, request.devices)
            place.load_waiters.append(request)
            return
        elif request.by != "operator" and trio.current_time() < place.retry_at:
            raise place.still_failed()
        place.load_waiters.append(request)
        place.ask_for(request.entry, request.by, request.devices)
        self._begin(place)

    def _begin(self, place: Place) -> None:
        place.begin()
        self._hosting.begin(place)

    # -- unloading -------------------------------------------------------------------------------

    def unload(self, request: UnloadModel) -> None:
        place = self.there.get(request.model)
        if place is None and (request.if_idle or request.model not in self.missing):
            raise ModelNotFound(f"model {request.model} is not on this node", param="model_id")
        if place is None or place.status == "failed":
            self._forget(request.model)
            request.reply.set(None)
        elif place.status == "unloading":
            place.unload_waiters.append(request)
        elif place.status != "loaded" or place.model is None:
            self._call_off(place, request)
        elif request.if_idle:
            self._hosting.empty(place, place.model, request)
        else:
            self._going(place, request)
            self._hosting.drain(place, place.model)

    def _going(self, place: Place, request: UnloadModel) -> None:
        """From here on the model is let go, whatever happens to it."""
        place.status = "unloading"
        place.unload_waiters.append(request)
        self.missing.pop(place.entry.id, None)
        self._desired.gone(place.entry.id)

    def _call_off(self, place: Place, request: UnloadModel) -> None:
        if request.if_idle:
            raise ModelBusy(f"model {request.model} is {place.status}")
        self._going(place, request)
        place.answer_loads(
            ServiceUnavailable(f"the load of {request.model} was called off", retry_after=5)
        )
        place.scope.cancel()

    def emptied(self, place: Place, request: UnloadModel) -> None:
        """The model was idle, and its door is closed."""
        if self.there.get(request.model) is not place or place.model is None:
            request.reply.set(None)  # another unload was quicker
        elif place.status == "unloading":
            place.unload_waiters.append(request)
        else:
            has_crashed = place.status != "loaded"
            self._going(place, request)
            place.model.leave()
            if has_crashed:
                place.scope.cancel()

    def _forget(self, model: str) -> None:
        self.there.pop(model, None)
        self.missing.pop(model, None)
        self._desired.gone(model)

    # -- what is told of them --------------------------------------------------------------------

    def told(self, place: Place, what: ModelNews | Gone) -> None:
        """It may come late: from a life of the node that is over, even."""
        if self.there.get(place.entry.id) is not place:
            return
        match what:
            case LoadMoved(_, done, total):
                place.done_bytes, place.total_bytes = done, total
            case Ready(_, seconds, weights_mb):
                self._ready(place, seconds, weights_mb)
            case Recovering():
                self._recovering(place)
            case Prefilled(model, tokens, seconds):
                self._devices.learned.prefilled(model, tokens, seconds)
            case Decided(model, verdict):
                self._metrics.decided(model, self._node, verdict)
            case PrefixesUsed(model, counted):
                self._metrics.prefixes_used(model, self._node, counted)
            case Gone(error):
                self._gone(place, error)

    def _ready(self, place: Place, seconds: float, weights_mb: int) -> None:
        if place.status == "unloading":  # called off in the moment when it was done
            return
        model = place.entry.id
        place.status, place.weights_mb, place.num_failures = "loaded", weights_mb, 0
        self.missing.pop(model, None)
        self._metrics.load_ended(model, self._node, "loaded", seconds)
        self._metrics.prefixes_used(model, self._node, Counted())  # series begin at 0
        if place.by == "request":
            self._metrics.cold_start(model, self._node)
        log.info("model loaded", model=model, seconds=seconds, weights_mb=weights_mb)
        self._desired.loaded(model)
        self._hosting.touch(place.entry)
        place.answer_loads()

    def _recovering(self, place: Place) -> None:
        log.warning("model crashed", model=place.entry.id)
        if place.status == "loaded":
            place.status = "recovering"

    def _gone(self, place: Place, error: HelexaError | None) -> None:
        was_asked = place.status == "unloading"
        is_poisoned = place.device is not None and place.device.status().poisoned
        place.model, place.device = None, None
        self._hosting.freed()
        place.answer_unloads()
        if was_asked and place.load_waiters:  # asked for again while it went
            self._begin(place)
        elif was_asked or error is None:
            log.info("model unloaded", model=place.entry.id)
            self._forget(place.entry.id)
        else:
            self._failed(place, error, is_poisoned)

    def _failed(self, place: Place, error: HelexaError, is_poisoned: bool) -> None:
        model = place.entry.id
        self._metrics.load_ended(model, self._node, "failed")
        if not is_poisoned:  # else the load stays marked: it may be what ends the process
            self._desired.failed(model)
        if isinstance(error, InsufficientVram | ModelNotFound):  # asking again costs nothing
            log.warning("model not placed", model=model, reason=error.message)
            del self.there[model]
            place.answer_loads(error)
            return
        place.num_failures += 1
        backoff = pause(place.num_failures)
        place.status, place.error = "failed", error
        place.retry_at = trio.current_time() + backoff
        log.error("model failed", model=model, reason=error.message, retry_in=backoff)
        place.answer_loads(error.again(backoff))
