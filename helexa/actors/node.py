"""The node actor: the only writer of which model is on which device of this host.

Each hosted model runs as a supervised task in the node's nursery and tells the node what becomes of
it; the node places, remembers failures, and answers whoever waits for a load or an unload.
"""

import math
from collections.abc import Sequence
from contextlib import aclosing
from typing import Protocol

import trio

from helexa import logs
from helexa.actors.device import Device
from helexa.actors.mailbox import Mailbox
from helexa.actors.model import Hosted, LoadMoved, Model, Ready, Recovering
from helexa.actors.place import NodeStatus, Place, required_mb, state_of
from helexa.actors.supervisor import RestartPolicy, keep_running
from helexa.config.schema import Config
from helexa.conversation import Conversation, Events
from helexa.engine.orders import Dtype
from helexa.errors import (
    ContextLengthExceeded,
    GaveUp,
    HelexaError,
    ModelBusy,
    NotFound,
    NotLoaded,
    ServiceUnavailable,
)
from helexa.fleet.admission import Rules
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.known import Known
from helexa.fleet.limits import clamp_output
from helexa.fleet.placement import Room
from helexa.fleet.placement import place as place_model
from helexa.messages import (
    FindModel,
    GetStatus,
    Gone,
    LoadModel,
    NodeMessage,
    UnloadModel,
)
from helexa.metrics import Metrics
from helexa.text.prompt import Prompt
from helexa.trace import Trace

log = logs.get("helexa.node")

RECOVERING_SECONDS = 2.0
FIRST_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 5.0, 300.0


class Library(Protocol):
    """The models whose files this host has (`helexa.library`)."""

    async def known(self, entry: CatalogueModel) -> Known: ...
    async def fetch(self, entry: CatalogueModel) -> None: ...
    async def touch(self, entry: CatalogueModel) -> None: ...
    async def prompt(self, known: Known, conversation: Conversation) -> Prompt: ...


class Desired(Protocol):
    """What must be loaded again after a restart (`helexa.state`)."""

    async def loading(self, model: str, source: str, *, asked: bool) -> None: ...
    async def loaded(self, model: str) -> None: ...
    async def gone(self, model: str) -> None: ...
    async def failed(self, model: str) -> None: ...


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
    ) -> None:
        self.name = config.node.name
        self._config = config
        self._devices = devices
        self._library = library
        self._desired = desired
        self._metrics = metrics
        self._policy = policy
        self._mailbox: Mailbox[NodeMessage] = Mailbox(f"node {self.name}")
        self._places: dict[str, Place] = {}
        self._pending: list[str] = []
        self._not_activated: list[str] = []
        self.activated = trio.Event()
        self._nursery: trio.Nursery

    # -- what others call ------------------------------------------------------------------------

    def load(
        self, entry: CatalogueModel, *, insist: bool = False, devices: tuple[int, ...] = ()
    ) -> LoadModel:
        """Begin or join a load; wait on the `reply` of what this returns."""
        request = LoadModel(entry, insist, devices)
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

    async def known(self, entry: CatalogueModel) -> Known | None:
        """What the model's files say, if this host has them."""
        try:
            return await self._library.known(entry)
        except HelexaError:
            return None

    def could_fit(self, entry: CatalogueModel, known: Known) -> bool:
        """Whether the model would fit a device of this host that is otherwise empty."""
        required = entry.vram_mb or required_mb(known, self._devices[0][1])
        rooms = (self._room(device) for device, _ in self._devices)
        return any(required + room.spare_mb <= room.total_mb for room in rooms)

    async def prepare(
        self, entry: CatalogueModel, conversation: Conversation
    ) -> tuple[Known, Prompt]:
        """The prompt's tokens, whether or not the model is loaded; refused when it is too long."""
        known = await self._library.known(entry)
        prompt = await self._library.prompt(known, conversation)
        if len(prompt.ids) > known.limit.input:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {known.limit.context} tokens. However, "
                f"your messages have {len(prompt.ids)} tokens, and {known.limit.output} are kept for "
                f"the answer. Shorten the messages to {known.limit.input} tokens.",
                param="messages",
                prompt_len=len(prompt.ids),
                max=known.limit.input,
            )
        return known, prompt

    async def generate(
        self,
        known: Known,
        conversation: Conversation,
        prompt: Prompt,
        trace: Trace,
    ) -> Events:
        """Answer on the loaded model.  Raises ModelGone, before any token, when it was unloaded."""
        model = await self._mailbox.ask(FindModel(known.id))
        trace.node = self.name
        max_tokens = clamp_output(conversation.max_tokens, len(prompt.ids), known.limit)
        tick = self._config.admission.stream_open_seconds or 1.0
        answer = model.generate(conversation, prompt, max_tokens, trace, tick)
        async with aclosing(answer) as batches:
            async for batch in batches:
                yield batch

    async def answer(self, model: str, conversation: Conversation, trace: Trace) -> Events:
        """Answer on a model that is loaded already: what the node's own listener offers."""
        found = await self._mailbox.ask(FindModel(model))
        trace.model = model
        known, prompt = await self.prepare(found.hosted.known.entry, conversation)
        async with aclosing(self.generate(known, conversation, prompt, trace)) as batches:
            async for batch in batches:
                yield batch

    # -- the actor -------------------------------------------------------------------------------

    async def run(
        self,
        at_start: Sequence[CatalogueModel],
        given_up: Sequence[tuple[CatalogueModel, str]] = (),
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve, and bring up the models of `at_start` one after the other.

        `given_up` are models with the reason why they are not tried until an operator asks.
        """
        for entry, reason in given_up:
            error = ServiceUnavailable(reason)
            self._places[entry.id] = Place(entry, "failed", error=error, retry_at=math.inf)
            self._not_activated.append(entry.id)
        try:
            async with trio.open_nursery() as self._nursery:
                self._pending = [entry.id for entry in at_start]
                self._nursery.start_soon(self._activate, at_start)
                task_status.started()
                await self._mailbox.serve(self._handle)
        finally:
            self._mailbox.close()

    async def _activate(self, entries: Sequence[CatalogueModel]) -> None:
        for entry in entries:
            try:
                await self._library.fetch(entry)
                await self._mailbox.ask(LoadModel(entry))
            except HelexaError as error:
                self._not_activated.append(entry.id)
                log.error("model not brought up", model=entry.id, reason=error.message)
            self._pending.remove(entry.id)
        self.activated.set()

    async def _handle(self, message: NodeMessage) -> None:
        match message:
            case LoadModel():
                self._load(message)
            case UnloadModel():
                await self._unload(message)
            case FindModel():
                message.reply.set(self._find(message.model))
            case GetStatus():
                message.reply.set(self._status())
            case LoadMoved(model, done, total):
                place = self._places[model]
                place.done_bytes, place.total_bytes = done, total
            case Ready(model, seconds, weights_mb):
                await self._ready(self._places[model], seconds, weights_mb)
            case Recovering(model):
                self._places[model].status = "recovering"
                log.warning("model crashed", model=model)
            case Gone(model, error):
                await self._gone(self._places[model], error)

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
        if place is None:
            place = self._places[request.entry.id] = Place(request.entry)
        elif place.status == "loaded":
            request.reply.set(None)
            return
        elif place.status != "failed":
            place.load_waiters.append(request)
            return
        elif not request.insist and trio.current_time() < place.retry_at:
            raise self._still_failed(place)
        place.load_waiters.append(request)
        place.allowed_devices = request.devices
        self._begin(place, request.entry, asked=request.insist)

    def _still_failed(self, place: Place) -> HelexaError:
        left = place.retry_at - trio.current_time()
        why = place.error.message if place.error else "it could not be loaded"
        if math.isinf(left):
            return ServiceUnavailable(f"model {place.entry.id} is not loaded again: {why}")
        return ServiceUnavailable(
            f"model {place.entry.id} failed to load and is not tried again for {left:.0f} s: {why}",
            retry_after=max(1.0, left),
        )

    def _begin(self, place: Place, entry: CatalogueModel, *, asked: bool = False) -> None:
        place.entry, place.asked = entry, asked
        place.status, place.error, place.model = "loading", None, None
        place.done_bytes = place.total_bytes = 0
        self._nursery.start_soon(self._host, place)

    async def _host(self, place: Place) -> None:
        """One model's life on this node, from its files to the end of its actor."""
        error: HelexaError | None = None
        with trio.CancelScope() as place.scope:
            error = await self._run_model(place)
        self._mailbox.tell(Gone(place.entry.id, error))

    async def _run_model(self, place: Place) -> HelexaError | None:
        """Why the model's actor ended; None if it was asked to."""
        try:
            await self._desired.loading(place.entry.id, place.entry.source, asked=place.asked)
            known = await self._library.known(place.entry)
            for device, _ in self._devices:
                await device.refresh()
            hosted, device = self._place(place, known)
            model = Model(hosted, device, self._mailbox.tell)
            place.model = model
            name = f"model {place.entry.id}"
            await keep_running(name, model.run, self._policy, on_crash=self._count_crash)
        except HelexaError as refusal:
            return refusal
        except GaveUp as gave_up:
            return ServiceUnavailable(str(gave_up))
        except Exception as bug:  # one model's bug must not take the node down
            log.exception("model ended by a bug", bug, model=place.entry.id)
            return ServiceUnavailable(f"model {place.entry.id} ended by an internal error")
        return None

    def _count_crash(self, actor: str) -> None:
        self._metrics.restarts.labels(actor).inc()

    def _place(self, place: Place, known: Known) -> tuple[Hosted, Device]:
        """Choose a device and count the model's memory as taken there, with no await in between."""
        allowed = place.allowed_devices
        rooms = [
            self._room(device)
            for device, _ in self._devices
            if not allowed or device.info.index in allowed
        ]
        dtype = self._devices[0][1]  # all of one kind: cards, or the CPU alone
        required = place.entry.vram_mb or required_mb(known, dtype)
        room = place_model(known.id, required, place.entry.min_device_vram_mb, rooms)
        device = next(device for device, _ in self._devices if device.info.index == room.index)
        dtype = next(dtype for other, dtype in self._devices if other is device)
        place.known, place.device = known, device
        place.dtype, place.required_mb = dtype, required
        admission, engine = self._config.admission, self._config.engine
        rules = Rules(
            admission.max_in_flight or engine.batch_width,
            admission.max_queue_depth,
            admission.max_per_principal,
        )
        hosted = Hosted(
            known,
            device.info.torch_name,
            dtype,
            rules,
            admission.max_wait_secs,
            engine.prefill_chunk_tokens,
            engine.batch_width,
        )
        log.info("model placed", model=known.id, device=room.index, required_mb=required)
        return hosted, device

    def _room(self, device: Device) -> Room:
        status = device.status()
        promised = sum(
            place.required_mb
            for place in self._places.values()
            if place.device is device and place.status == "loading"
        )
        free = status.readings.vram_free_mb if status.readings and not status.poisoned else 0
        info = device.info
        return Room(info.index, info.name, info.usable_mb, max(0, free - promised))

    async def _ready(self, place: Place, seconds: float, weights_mb: int) -> None:
        place.status, place.weights_mb = "loaded", weights_mb
        place.num_failures = 0
        self._metrics.loads.labels(place.entry.id, self.name, "loaded").inc()
        self._metrics.load_seconds.labels(place.entry.id, self.name).observe(seconds)
        log.info("model loaded", model=place.entry.id, seconds=seconds, weights_mb=weights_mb)
        await self._desired.loaded(place.entry.id)
        self._nursery.start_soon(self._library.touch, place.entry)
        while place.load_waiters:
            place.load_waiters.pop().reply.set(None)

    # -- unloading and failing -------------------------------------------------------------------

    async def _unload(self, request: UnloadModel) -> None:
        place = self._places.get(request.model)
        if place is None or place.status == "failed":
            if place is None:
                raise NotFound(f"model {request.model} is not on this node", param="model_id")
            del self._places[request.model]
            await self._desired.gone(request.model)
            request.reply.set(None)
            return
        if place.status in ("loading", "recovering"):
            self._cancel_load(place, request)
            return
        if place.status == "unloading":
            place.unload_waiters.append(request)
            return
        self._nursery.start_soon(self._close, place, request)

    def _cancel_load(self, place: Place, request: UnloadModel) -> None:
        if request.if_idle:
            raise ModelBusy(f"model {request.model} is {place.status}")
        place.status = "unloading"
        place.unload_waiters.append(request)
        for waiter in place.load_waiters:
            waiter.reply.fail(ServiceUnavailable(f"the load of {request.model} was called off"))
        place.load_waiters.clear()
        place.scope.cancel()

    async def _close(self, place: Place, request: UnloadModel) -> None:
        """Outside the mailbox's loop: draining takes as long as the answers that still run."""
        assert place.model is not None
        before, place.status = place.status, "unloading"
        try:
            await place.model.close(
                if_idle=request.if_idle, drain_seconds=self._config.server.drain_seconds
            )
        except HelexaError as refusal:
            place.status = before
            request.reply.fail(refusal)
        else:
            place.unload_waiters.append(request)

    async def _gone(self, place: Place, error: HelexaError | None) -> None:
        model = place.entry.id
        place.model, place.device = None, None
        if error is not None:
            await self._failed(place, error)
        elif place.load_waiters:  # asked for again while it went
            self._answer_unloaded(place)
            self._begin(place, place.entry)
        else:
            del self._places[model]
            log.info("model unloaded", model=model)
            await self._desired.gone(model)
            self._answer_unloaded(place)

    def _answer_unloaded(self, place: Place) -> None:
        while place.unload_waiters:
            place.unload_waiters.pop().reply.set(None)

    async def _failed(self, place: Place, error: HelexaError) -> None:
        place.num_failures += 1
        backoff = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** (place.num_failures - 1))
        place.status, place.error = "failed", error
        place.retry_at = trio.current_time() + backoff
        log.error("model failed", model=place.entry.id, reason=error.message, retry_in=backoff)
        self._metrics.loads.labels(place.entry.id, self.name, "failed").inc()
        await self._desired.failed(place.entry.id)
        self._answer_unloaded(place)
        while place.load_waiters:
            place.load_waiters.pop().reply.fail(error)

    # -- status ----------------------------------------------------------------------------------

    def _status(self) -> NodeStatus:
        return NodeStatus(
            tuple(device.status() for device, _ in self._devices),
            tuple(state_of(place) for place in self._places.values()),
            tuple(self._pending),
            tuple(self._not_activated),
            self.activated.is_set(),
        )
