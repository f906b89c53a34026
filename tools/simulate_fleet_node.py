"""A simulated node: memory, loads and admission as a real one has them, computing nothing."""

import itertools
import math

import trio
from attrs import define, field
from simulate_fleet_traffic import NODE_MB, WIDTH, Ask, Scene

from helexa.actors.place import Asker
from helexa.conversation import Events, Principal
from helexa.errors import Busy, ModelBusy, ModelNotFound, NotLoaded
from helexa.fleet.admission import Line, Rules
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.entry import ModelEntry, ModelStatus
from helexa.fleet.placement import Room, place
from helexa.fleet.turns import Ticket
from helexa.fleet.view import DeviceView, ModelView, NodeView
from helexa.nodes.asked import Prepared
from helexa.nodes.port import NodeLost
from helexa.trace import Trace

UNLOAD_SECONDS = 0.5
RULES = Rules(WIDTH, max_queue_depth=8)


@define(eq=False)
class SimModel:
    """`sessions` are those whose prompts are kept here."""

    mb: int
    status: ModelStatus = "loading"
    line: Line = field(factory=lambda: Line(RULES))
    admitted: dict[int, trio.Event] = field(factory=dict)
    sessions: set[str] = field(factory=set)
    served: int = 0
    last_used: float = 0.0

    @property
    def is_busy(self) -> bool:
        return bool(self.line.running or self.line.waiting)


@define(eq=False)
class SimNode:
    name: str
    scene: Scene
    models: dict[str, SimModel] = field(factory=dict)
    is_down: bool = False
    died: trio.Event = field(factory=trio.Event)
    num_loads: int = 0
    num_unloads: int = 0
    _tickets: "itertools.count[int]" = field(factory=itertools.count)

    # -- as a port of the fleet --------------------------------------------------------------------

    async def look(self) -> NodeView:
        self._check()
        views = tuple(
            ModelView(
                ModelEntry(name, status=model.status, devices=(0,), vram_used_mb=model.mb),
                len(model.line.running),
                len(model.line.waiting),
                width=WIDTH,
            )
            for name, model in self.models.items()
        )
        devices = (DeviceView(0, "card", NODE_MB, self.room.free_mb),)
        now = trio.current_time()
        return NodeView(self.name, "helexa", devices=devices, models=views, seen_at=now)

    async def tell(self, entry: CatalogueModel) -> None:
        """Limits play no part here."""

    async def load(self, entry: CatalogueModel, by: Asker = "request") -> None:
        self._check()
        place(entry.id, entry.vram_mb, 0, [self.room])
        model = self.models[entry.id] = SimModel(entry.vram_mb)
        self.num_loads += 1
        await self._spend(self.scene.load_seconds(entry, self.name, self.num_loads))
        model.status, model.last_used = "loaded", trio.current_time()

    async def unload(self, model: str, *, if_idle: bool) -> None:
        self._check()
        found = self.models.get(model)
        if found is None:
            raise ModelNotFound(f"model {model} is not here")
        if if_idle and (found.is_busy or not found.served):
            raise ModelBusy(f"model {model} is busy")
        assert not found.is_busy, "an answer would be interrupted"
        found.status = "unloading"
        self.num_unloads += 1
        await self._spend(UNLOAD_SECONDS)
        self.models.pop(model, None)

    def generate(self, prepared: Prepared, trace: Trace) -> Events:
        raise NotImplementedError

    # -- answering ---------------------------------------------------------------------------------

    async def answer(self, ask: Ask) -> float:
        """The time at which the first token came."""
        self._check()
        model = self.models.get(ask.model)
        if model is None or model.status != "loaded":
            raise NotLoaded(f"model {ask.model} is not loaded")
        ticket = Ticket(next(self._tickets), Principal(ask.session, ask.session))
        try:
            await self._admission(model, ticket)
            ask.prefix_was_kept = ask.session in model.sessions
            await self._spend(ask.prefill_seconds)
            first_token_at = trio.current_time()
            ask.has_begun = True
            await self._spend(ask.decode_seconds)
            model.sessions.add(ask.session)
            model.served += 1
            return first_token_at
        finally:
            model.last_used = trio.current_time()
            for started in model.line.leave(ticket.id):
                model.admitted[started.id].set()
            model.admitted.pop(ticket.id, None)

    async def _admission(self, model: SimModel, ticket: Ticket) -> None:
        admitted = model.admitted[ticket.id] = trio.Event()
        decision, started = model.line.arrive(ticket)
        for each in started:
            model.admitted[each.id].set()
        if decision not in ("admitted", "queued"):
            raise Busy("the queue is full", retry_after=1)
        await self._unless_dead(math.inf, admitted)

    # -- life --------------------------------------------------------------------------------------

    @property
    def room(self) -> Room:
        used = sum(model.mb for model in self.models.values())
        return Room(0, "card", NODE_MB, NODE_MB - used)

    @property
    def in_flight(self) -> int:
        return sum(len(m.line.running) + len(m.line.waiting) for m in self.models.values())

    def die(self) -> None:
        self.is_down = True
        self.models.clear()
        self.died.set()
        self.died = trio.Event()

    def come_back(self) -> None:
        self.is_down = False

    def _check(self) -> None:
        if self.is_down:
            raise NodeLost(f"node {self.name} does not answer")

    async def _spend(self, seconds: float) -> None:
        await self._unless_dead(seconds, None)

    async def _unless_dead(self, seconds: float, until: trio.Event | None) -> None:
        """Wait for so long, or for the event; NodeLost if the node dies meanwhile."""
        died, has_died = self.died, False

        async def watch(scope: trio.CancelScope) -> None:
            nonlocal has_died
            await died.wait()
            has_died = True
            scope.cancel()

        if until is None:
            with trio.move_on_after(seconds):
                await died.wait()
                has_died = True
        elif not until.is_set():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch, nursery.cancel_scope)
                await until.wait()
                nursery.cancel_scope.cancel()
        if has_died:
            raise NodeLost(f"node {self.name} died")
