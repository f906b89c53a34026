"""The node actor: the only writer of which model is on which device of this host.

Each hosted model runs as a supervised task in the node's nursery and tells the node what becomes of
it; the node places, remembers failures, and answers whoever waits for a load or an unload.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from functools import partial

import trio
from attrs import evolve

from helexa import logs
from helexa.actors.admission import ModelGone
from helexa.actors.device import Device
from helexa.actors.devices import Devices
from helexa.actors.learned import Learned
from helexa.actors.mailbox import Mailbox
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
from helexa.actors.place import (
    Asker,
    AtStart,
    NodeStatus,
    Place,
    check_devices,
    check_quant,
    state_of,
)
from helexa.actors.placing import Placing
from helexa.actors.ports import Desired, Library
from helexa.actors.preparing import prepare
from helexa.actors.supervisor import RestartPolicy, keep_running
from helexa.config.schema import Config
from helexa.conversation import Conversation, Events
from helexa.engine.orders import Dtype
from helexa.errors import (
    GaveUp,
    HelexaError,
    InsufficientVram,
    ModelBusy,
    ModelNotFound,
    NotLoaded,
    ServiceUnavailable,
)
from helexa.fleet.backoff import pause
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.known import Known
from helexa.fleet.pool import Counted
from helexa.messages import (
    Emptied,
    FindModel,
    GetStatus,
    Gone,
    LoadModel,
    NodeMessage,
    Prepare,
    Told,
    UnloadModel,
)
from helexa.metrics import Metrics
from helexa.text.prompt import Prompt
from helexa.trace import Trace

log = logs.get("helexa.node")

RECOVERING_SECONDS = 2.0
KEEP_ALIVE_SECONDS = 10.0


def tick_seconds(config: Config) -> float:
    """How often a request that waits is told so: in time to open its stream, and to keep it alive."""
    return min(config.admission.stream_open_seconds or 1.0, KEEP_ALIVE_SECONDS)


class Node:
    """This host's devices and models, as one port: generate, load, unload, status."""

    def __init__(
        self,
        config: Config,
        devices: Sequence[tuple[Device, Dtype]],
        library: Library,
        desired: Desired,
        metrics: Metrics,
        policy: RestartPolicy = RestartPolicy(max_restarts=3, within=600.0, first_delay=1.0),
        learned: Learned | None = None,
    ) -> None:
        self.name = config.node.name
        self._config = config
        self._devices = Devices(config, devices, learned or Learned())
        self.choice = self._devices.choice  # how a load would keep a model's weights
        self._placing = Placing(self._devices)
        self._library = library
        self._desired = desired
        self._metrics = metrics
        self._policy = policy
        self._mailbox: Mailbox[NodeMessage] = Mailbox(f"node {self.name}")
        self._places: dict[str, Place] = {}
        self._pending: list[str] = []
        self._not_activated: set[str] = set()
        self._may_activate = trio.Event()
        self.activated = trio.Event()
        self._nursery: trio.Nursery

    # -- what others call ------------------------------------------------------------------------

    def load(
        self,
        entry: CatalogueModel,
        by: Asker = "request",
        devices: tuple[int, ...] = (),
        quant: str = "",
    ) -> LoadModel:
        """Begin or join a load; wait on the `reply` of what this returns."""
        entry = evolve(entry, quant=quant) if quant else entry
        request = LoadModel(entry, by, devices, quant)
        self._mailbox.post(request)
        return request

    async def unload(self, model: str, *, if_idle: bool = False) -> None:
        await self._mailbox.ask(UnloadModel(model, if_idle))

    async def status(self) -> NodeStatus:
        return await self._mailbox.ask(GetStatus())

    @property
    def max_prompt_tokens(self) -> int:
        """The operator's bound on every prompt; 0 for none."""
        return self._config.limits.max_prompt_tokens

    async def loaded(self, model: str) -> Known:
        """What a loaded model was loaded with.  NotLoaded, or ServiceUnavailable while it recovers."""
        return (await self._mailbox.ask(FindModel(model))).hosted.known

    async def known(self, entry: CatalogueModel) -> Known:
        """What the model has where it was placed, else what its files say and a load would find.

        A HelexaError if neither is known.
        """
        try:
            return await self.loaded(entry.id)
        except NotLoaded:
            place = self._places.get(entry.id)
            if place and place.known and place.device:  # it comes, or goes
                return place.known
            known = await self._library.known(entry)
            return self._devices.estimated(known, self._places.values())

    def could_fit(self, known: Known) -> bool:
        """Whether the model would fit a device of this host that is otherwise empty."""
        return self._devices.could_fit(known)

    def prepare(self, known: Known, conversation: Conversation) -> Prepare:
        """Begin to make the prompts; wait on the `reply` of what this returns."""
        request = Prepare(known, conversation)
        self._mailbox.post(request)
        return request

    async def count(self, known: Known, conversation: Conversation) -> int:
        """The tokens of the prompts that `prepare` makes, also of one that is too long."""
        return await self._library.count(known, conversation)

    async def generate(
        self,
        known: Known,
        conversation: Conversation,
        prompts: Sequence[Prompt],
        trace: Trace,
    ) -> Events:
        """Answer on the loaded model.  Raises ModelGone, before any token, when it was unloaded."""
        model = await self._mailbox.ask(FindModel(known.id))
        trace.node = self.name
        answer = model.generate(conversation, prompts, trace, tick_seconds(self._config))
        async with aclosing(answer) as batches:
            async for batch in batches:
                yield batch

    # -- the actor -------------------------------------------------------------------------------

    async def run(
        self,
        at_start: Callable[[], Sequence[AtStart]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve; once `activate` is called, bring up the models of `at_start` one after the other.

        It may crash and be run again: its models end with it and are brought up anew.
        """
        for place in self._places.values():
            # of a life that crashed: no load of it ended the process
            if place.status == "loading":
                self._desired.failed(place.entry.id)
        self._places.clear()
        entries = at_start()
        for start in entries:
            if start.given_up:
                error = ServiceUnavailable(start.given_up, retry_after=math.inf)
                self._places[start.entry.id] = Place(
                    start.entry, "failed", error=error, retry_at=math.inf
                )
        wanted = [start for start in entries if not start.given_up]
        self._pending = [start.entry.id for start in wanted]
        self._not_activated = {start.entry.id for start in entries if start.given_up}
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._placing.run, self._places.values())
            self._nursery.start_soon(self._bring_up, wanted)
            task_status.started()
            await self._mailbox.serve(self._handle)

    def activate(self) -> None:
        """The listeners are bound: the models of the start may come up."""
        self._may_activate.set()

    def close(self) -> None:
        """Nobody will run this node again."""
        self._mailbox.close()

    async def _bring_up(self, wanted: Sequence[AtStart]) -> None:
        await self._may_activate.wait()
        for start in wanted:
            model = start.entry.id
            self._pending.remove(model)
            try:
                await self._mailbox.ask(LoadModel(start.entry, "start", start.devices))
            except HelexaError as error:
                self._not_activated.add(model)
                log.error("model not brought up", model=model, reason=error.message)
        self.activated.set()

    async def _handle(self, message: NodeMessage) -> None:
        match message:
            case LoadModel():
                self._load(message)
            case UnloadModel():
                self._unload(message)
            case FindModel():
                message.reply.set(self._find(message.model))
            case Prepare():
                self._nursery.start_soon(prepare, self._library, message)
            case GetStatus():
                message.reply.set(self._status())
            case Emptied(place, request):
                self._emptied(place, request)
            case Told(place, what) if self._places.get(place.entry.id) is place:
                self._told(place, what)

    def _told(self, place: Place, what: ModelNews | Gone) -> None:
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
                self._metrics.decided(model, self.name, verdict)
            case PrefixesUsed(model, counted):
                self._metrics.prefixes_used(model, self.name, counted)
            case Gone(error):
                self._gone(place, error)

    def _tell(self, place: Place, what: ModelNews | Gone) -> None:
        self._mailbox.tell(Told(place, what))

    # -- finding ---------------------------------------------------------------------------------

    def _find(self, model: str) -> Model:
        place = self._places.get(model)
        if place is not None and place.status == "recovering":
            raise ServiceUnavailable(
                f"model {model} is recovering from a crash", retry_after=RECOVERING_SECONDS
            )
        if place is None or place.model is None or place.status != "loaded":
            raise NotLoaded(f"model {model} is not loaded on this node", param="model")
        return place.model

    # -- loading ---------------------------------------------------------------------------------

    def _load(self, request: LoadModel) -> None:
        place = self._places.get(request.entry.id)
        check_devices(request.entry.id, request.devices, self._devices.indexes, place)
        if request.by == "operator":
            check_quant(request.entry.id, request.quant, place)
        if place is None:
            place = self._places[request.entry.id] = Place(request.entry)
        elif place.status == "loaded":
            request.reply.set(None)
            return
        elif place.status != "failed":
            if place.status == "unloading" and not place.load_waiters:
                self._ask_for(place, request)  # the next life is this request's
            place.load_waiters.append(request)
            return
        elif request.by != "operator" and trio.current_time() < place.retry_at:
            raise self._still_failed(place)
        place.load_waiters.append(request)
        self._ask_for(place, request)
        self._begin(place)

    def _ask_for(self, place: Place, request: LoadModel) -> None:
        """Whose load it is; a request that names no devices leaves those that were named before."""
        place.entry, place.by = request.entry, request.by
        if request.by != "request" or request.devices:
            place.allowed_devices = request.devices

    def _still_failed(self, place: Place) -> HelexaError:
        assert place.error is not None
        return place.error.again(max(1.0, place.retry_at - trio.current_time()))

    def _begin(self, place: Place) -> None:
        place.status, place.error, place.model = "loading", None, None
        place.done_bytes = place.total_bytes = 0
        place.scope = trio.CancelScope()
        self._nursery.start_soon(self._host, place)

    async def _host(self, place: Place) -> None:
        """One model's life on this node, from its files to the end of its actor."""
        error: HelexaError | None = None
        try:
            with place.scope:
                await self._run_model(place)
        except HelexaError as refusal:
            error = refusal
        except GaveUp as gave_up:
            error = ServiceUnavailable(str(gave_up))
        except Exception as bug:  # one model's bug must not take the node down
            log.exception("model ended by a bug", bug, model=place.entry.id)
            error = ServiceUnavailable(f"model {place.entry.id} ended by an internal error")
        self._tell(place, Gone(error))

    async def _run_model(self, place: Place) -> None:
        entry, uuids = place.entry, self._devices.uuids(place.allowed_devices)
        self._desired.loading(entry.id, entry.source, uuids, asked=place.by == "operator")
        await self._desired.saved()  # a load that ends the process must be found marked
        if place.by != "request" or entry.download == "on_demand":
            await self._library.fetch(entry, self._show_fetch(place))
        known = await self._library.known(entry)
        hosted, device = await self._placing.place(place, known, self._places.values())
        place.model = model = Model(hosted, device, partial(self._tell, place))
        await keep_running(f"model {entry.id}", model.run, self._policy, on_crash=self._count_crash)

    def _show_fetch(self, place: Place) -> Callable[[str, int, int], None]:
        """Progress of a download, told from its thread."""
        token = trio.lowlevel.current_trio_token()

        def show(phase: str, done: int, total: int) -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(self._tell, place, LoadMoved(place.entry.id, done, total))

        return show

    def _count_crash(self, actor: str) -> None:
        self._metrics.restarts.labels("model").inc()

    def _ready(self, place: Place, seconds: float, weights_mb: int) -> None:
        if place.status == "unloading":  # called off in the moment when it was done
            return
        model = place.entry.id
        place.status, place.weights_mb, place.num_failures = "loaded", weights_mb, 0
        self._not_activated.discard(model)
        self._metrics.load_ended(model, self.name, "loaded", seconds)
        self._metrics.prefixes_used(model, self.name, Counted())  # series begin at 0
        if place.by == "request":
            self._metrics.cold_start(model, self.name)
        log.info("model loaded", model=model, seconds=seconds, weights_mb=weights_mb)
        self._desired.loaded(model)
        self._nursery.start_soon(self._library.touch, place.entry)
        place.answer_loads()

    def _recovering(self, place: Place) -> None:
        log.warning("model crashed", model=place.entry.id)
        if place.status == "loaded":
            place.status = "recovering"

    # -- unloading and failing -------------------------------------------------------------------

    def _unload(self, request: UnloadModel) -> None:
        place = self._places.get(request.model)
        if place is None:
            raise ModelNotFound(f"model {request.model} is not on this node", param="model_id")
        if place.status == "failed":
            self._forget(place)
            request.reply.set(None)
        elif place.status == "unloading":
            place.unload_waiters.append(request)
        elif place.status != "loaded" or place.model is None:
            self._call_off(place, request)
        elif request.if_idle:
            self._nursery.start_soon(self._ask_if_idle, place, place.model, request)
        else:
            self._going(place, request)
            self._nursery.start_soon(self._drain, place, place.model)

    def _going(self, place: Place, request: UnloadModel) -> None:
        """From here on the model is let go, whatever happens to it."""
        place.status = "unloading"
        place.unload_waiters.append(request)
        self._desired.gone(place.entry.id)

    def _call_off(self, place: Place, request: UnloadModel) -> None:
        if request.if_idle:
            raise ModelBusy(f"model {request.model} is {place.status}")
        self._going(place, request)
        place.answer_loads(
            ServiceUnavailable(f"the load of {request.model} was called off", retry_after=5)
        )
        place.scope.cancel()

    async def _ask_if_idle(self, place: Place, model: Model, request: UnloadModel) -> None:
        """Beside the mailbox's loop: the model's own door has the word."""
        try:
            await model.close_if_idle()
        except ModelBusy as busy:
            request.reply.fail(busy)
        except (ModelGone, HelexaError):
            request.reply.fail(ModelBusy(f"model {request.model} is leaving or recovering"))
        else:
            self._mailbox.tell(Emptied(place, request))

    def _emptied(self, place: Place, request: UnloadModel) -> None:
        if self._places.get(request.model) is not place or place.model is None:
            request.reply.set(None)  # another unload was quicker
        elif place.status == "unloading":
            place.unload_waiters.append(request)
        else:
            has_crashed = place.status != "loaded"
            self._going(place, request)
            place.model.leave()
            if has_crashed:
                place.scope.cancel()

    async def _drain(self, place: Place, model: Model) -> None:
        """Beside the mailbox's loop: it takes as long as the answers that still run."""
        try:
            await model.drain(self._config.server.drain_seconds)
        except (ModelGone, HelexaError):  # it crashed meanwhile: it need not come back
            place.scope.cancel()
        model.leave()

    def _gone(self, place: Place, error: HelexaError | None) -> None:
        was_asked = place.status == "unloading"
        is_poisoned = place.device is not None and place.device.status().poisoned
        place.model, place.device = None, None
        self._placing.freed()
        place.answer_unloads()
        if was_asked and place.load_waiters:  # asked for again while it went
            self._begin(place)
        elif was_asked or error is None:
            log.info("model unloaded", model=place.entry.id)
            self._forget(place)
        else:
            self._failed(place, error, is_poisoned)

    def _forget(self, place: Place) -> None:
        model = place.entry.id
        del self._places[model]
        self._not_activated.discard(model)
        self._desired.gone(model)

    def _failed(self, place: Place, error: HelexaError, is_poisoned: bool) -> None:
        model = place.entry.id
        self._metrics.load_ended(model, self.name, "failed")
        if not is_poisoned:  # else the load stays marked: it may be what ends the process
            self._desired.failed(model)
        if isinstance(error, InsufficientVram | ModelNotFound):  # asking again costs nothing
            log.warning("model not placed", model=model, reason=error.message)
            del self._places[model]
            place.answer_loads(error)
            return
        place.num_failures += 1
        backoff = pause(place.num_failures)
        place.status, place.error = "failed", error
        place.retry_at = trio.current_time() + backoff
        log.error("model failed", model=model, reason=error.message, retry_in=backoff)
        place.answer_loads(error.again(backoff))

    # -- status ----------------------------------------------------------------------------------

    def _status(self) -> NodeStatus:
        return NodeStatus(
            self._devices.status(),
            tuple(state_of(place) for place in self._places.values()),
            tuple(self._pending),
            tuple(sorted(self._not_activated)),
            self.activated.is_set(),
        )
