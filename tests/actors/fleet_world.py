"""A fleet of virtual nodes on the mock clock, and clients as the gateway is one."""

import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import define, field

from helexa.actors.fleet import Fleet, Outcome
from helexa.actors.fleet_messages import FleetMessage, Tick
from helexa.actors.place import Asker
from helexa.actors.poller import Poller
from helexa.actors.supervisor import RestartPolicy, keep_running
from helexa.config.schema import Config, Eviction, Node
from helexa.config.schema import Fleet as FleetConfig
from helexa.conversation import Events
from helexa.errors import Busy, HelexaError, ModelBusy, ModelNotFound, NotLoaded, ServiceUnavailable
from helexa.fleet.catalogue import Catalogue, CatalogueModel
from helexa.fleet.entry import ModelEntry, ModelStatus
from helexa.fleet.limits import Limit
from helexa.fleet.placement import Room, place
from helexa.fleet.view import DeviceView, ModelView, NodeKind, NodeView
from helexa.metrics import Metrics
from helexa.nodes.asked import Prepared
from helexa.nodes.port import NodeLost
from helexa.shelf import Shelf
from helexa.trace import Trace

CONFIG = Config(
    node=Node(enabled=False),
    fleet=FleetConfig(max_load_waiters=8, load_wait_secs=120),
    eviction=Eviction(turn_seconds=20, defrag_after_cycles=0),
)
WIDTH = 2


def happened() -> trio.Event:
    event = trio.Event()
    event.set()
    return event


@define(eq=False)
class VirtualModel:
    mb: int
    device: int
    status: ModelStatus = "loading"
    loaded_at: float = math.inf
    running: int = 0
    served: int = 0
    idle: trio.Event = field(factory=happened)


@define(eq=False)
class VirtualNode:
    """Loads in `load_seconds`, answers for as long as it is told to; notes what no fleet may do.

    `refuse` are errors of the next loads; one that `is_full` refuses requests at once.  A look tells what
    was `look_seconds` ago.
    """

    name: str
    total_mb: tuple[int, ...] = (10_000,)
    kind: NodeKind = "neuron"
    load_seconds: float = 5.0
    unload_seconds: float = 1.0
    look_seconds: float = 0.0
    stored: frozenset[str] | None = None
    is_down: bool = False
    is_full: bool = False
    num_refused: int = 0  # requests
    refuse: list[HelexaError] = field(factory=list)
    models: dict[str, VirtualModel] = field(factory=dict)
    loads: list[tuple[float, str]] = field(factory=list)  # begun
    unloads: list[tuple[float, str]] = field(factory=list)
    limit: Limit | None = None  # what it tells of models that it has the files of
    told: list[str] = field(factory=list)
    asked_by: list[Asker] = field(factory=list)  # for whom loads were asked for
    asked: set[str] = field(factory=set)  # models that a load is under way for
    given_up: set[str] = field(factory=set)  # models that an operator unloads whatever they do
    violations: list[str] = field(factory=list)
    died: trio.Event = field(factory=trio.Event)
    answers: trio.Event = field(factory=happened)

    async def look(self) -> NodeView:
        await self._reached()
        view = self._view()
        await trio.sleep(self.look_seconds)
        return view

    def _view(self) -> NodeView:
        return NodeView(
            self.name,
            self.kind,
            devices=tuple(
                DeviceView(index, "card", total, self._free(index))
                for index, total in enumerate(self.total_mb)
            ),
            models=tuple(
                ModelView(
                    ModelEntry(name, status=m.status, devices=(m.device,), vram_used_mb=m.mb),
                    m.running,
                    width=WIDTH,
                )
                for name, m in self.models.items()
            ),
            harnesses=("torch",),
            stored=self.stored,
            can_load=self.kind != "openai",
            seen_at=trio.current_time(),
        )

    async def tell(self, entry: CatalogueModel) -> ModelEntry | None:
        await self._reached()
        self.told.append(entry.id)
        return ModelEntry(entry.id, limit=self.limit) if self.limit else None

    async def load(self, entry: CatalogueModel, by: Asker = "request") -> None:
        model = entry.id
        self.asked_by.append(by)
        if model in self.asked:
            self.violations.append(f"two loads of {model} on {self.name} at once")
        self.asked.add(model)
        try:
            await self._reached()
            await self._load(entry)
        finally:
            self.asked.discard(model)

    async def _load(self, entry: CatalogueModel) -> None:
        self.loads.append((trio.current_time(), entry.id))
        if self.refuse:
            if self.kind == "helexa":
                self.models[entry.id] = VirtualModel(0, 0, "failed")
            raise self.refuse.pop(0)
        if entry.id in self.models and self.models[entry.id].status != "failed":
            return
        rooms = [
            Room(index, "card", total, self._free(index))
            for index, total in enumerate(self.total_mb)
        ]
        room = place(entry.id, size_mb(entry), entry.min_device_vram_mb, rooms)
        model = self.models[entry.id] = VirtualModel(size_mb(entry), room.index)
        model.loaded_at = trio.current_time() + self.load_seconds
        await self._unless_dead(self.load_seconds)
        model.status = "loaded"

    async def unload(self, model: str, *, if_idle: bool) -> None:
        await self._reached()
        found = self.models.get(model)
        if found is None:
            raise ModelNotFound(f"model {model} is not on this node")
        if if_idle and (found.running or not found.served or found.status != "loaded"):
            raise ModelBusy(f"model {model} is busy")
        if found.running and model not in self.given_up:
            self.violations.append(f"{self.name} unloads {model}, which is busy")
        found.status = "unloading"
        self.unloads.append((trio.current_time(), model))
        await found.idle.wait()
        await self._unless_dead(self.unload_seconds)
        self.models.pop(model, None)

    def generate(self, prepared: Prepared, trace: Trace) -> Events:
        raise NotImplementedError

    async def answer(self, model: str, seconds: float) -> None:
        """What a generation is here."""
        await self._reached()
        if self.is_full:
            self.num_refused += 1
            raise Busy("the queue is full", retry_after=1)
        found = self.models.get(model)
        if found is None or found.status != "loaded":
            raise NotLoaded(f"model {model} is not loaded")
        if not found.running:
            found.idle = trio.Event()
        found.running += 1
        try:
            await self._unless_dead(seconds)
            found.served += 1
        finally:
            found.running -= 1
            if not found.running:
                found.idle.set()

    def die(self) -> None:
        """As by `kill -9`: everything is gone."""
        self.is_down = True
        self.models.clear()
        self.break_off()

    def break_off(self) -> None:
        """All that runs there is lost, and nothing else."""
        self.died.set()
        self.died = trio.Event()

    def come_back(self) -> None:
        self.is_down = False
        self.answers.set()

    def hang(self) -> None:
        """As by SIGSTOP."""
        if self.answers.is_set():  # else somebody waits for it already
            self.answers = trio.Event()

    async def _reached(self) -> None:
        await trio.lowlevel.checkpoint()
        await self.answers.wait()
        if self.is_down:
            raise NodeLost(f"node {self.name} does not answer")
        for model in self.models.values():  # a load goes on when who asked is gone
            if model.status == "loading" and trio.current_time() > model.loaded_at:
                model.status = "loaded"

    async def _unless_dead(self, seconds: float) -> None:
        died = self.died
        with trio.move_on_after(seconds):
            await died.wait()
            raise NodeLost(f"node {self.name} died")

    def _free(self, index: int) -> int:
        used = sum(model.mb for model in self.models.values() if model.device == index)
        return self.total_mb[index] - used


def size_mb(entry: CatalogueModel) -> int:
    return entry.vram_mb or 4000


def entry(model: str, mb: int = 6000, **more: object) -> CatalogueModel:
    return CatalogueModel(model, vram_mb=mb, **more)  # type: ignore[arg-type]


class Fragile(Fleet):
    """A fleet that may be made to crash on its next message."""

    is_cracked = False

    def crack(self) -> None:
        self.is_cracked = True

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        policy = RestartPolicy(max_restarts=1000, within=1.0, first_delay=0.1, max_delay=0.5)
        await keep_running("fleet", super().run, policy, task_status=task_status)

    def _handle(self, message: FleetMessage) -> None:
        if self.is_cracked and not isinstance(message, Tick):
            self.is_cracked = False
            raise RuntimeError("a bug in the fleet")
        super()._handle(message)


@define(eq=False)
class World:
    nodes: dict[str, VirtualNode]
    entries: dict[str, CatalogueModel]
    fleet: Any
    nursery: trio.Nursery
    answered: list[tuple[float, str, str]] = field(factory=list)  # when, model, node
    failed: list[HelexaError] = field(factory=list)
    num_ended: int = 0
    waits: list[float] = field(factory=list)  # until a lease
    why: list[str] = field(factory=list)

    async def ask(
        self, model: str, seconds: float = 1.0, session: str = "", patience: float = 120.0
    ) -> None:
        """One request, tried on further nodes as a gateway does it; its client leaves in the end."""
        try:
            with trio.move_on_after(patience):
                await self._try(model, seconds, session)
        finally:
            self.num_ended += 1

    async def _try(self, model: str, seconds: float, session: str) -> None:
        avoid: frozenset[str] = frozenset()
        said: HelexaError | None = None
        for _ in range(4):
            acquire = self.fleet.acquire(self.entries[model], session=session, avoid=avoid)
            outcome, node = Outcome("cancelled"), ""
            began_at = trio.current_time()
            try:
                lease = await acquire.reply.wait()
                node = lease.node
                self.waits.append(trio.current_time() - began_at)
                self.why.append(lease.why)
                await self.nodes[node].answer(model, seconds)
                outcome = Outcome("ok", seconds)
                self.answered.append((trio.current_time(), model, node))
                return
            except NotLoaded as error:
                said, outcome = error, Outcome("gone")
            except NodeLost as error:
                said, outcome, avoid = error, Outcome("lost"), avoid | {node}
            except HelexaError as error:
                if not node:
                    self.failed.append(error)
                    return
                said, outcome, avoid = error, Outcome("refused"), avoid | {node}
            finally:
                self.fleet.leave(acquire, outcome)
        self.failed.append(said or ServiceUnavailable("no try"))

    def start(self, model: str, seconds: float = 1.0, **more: object) -> None:
        self.nursery.start_soon(lambda: self.ask(model, seconds, **more))  # type: ignore[arg-type]

    def assert_at_rest(self) -> None:
        """Nothing is leased, waits, turns or changes."""
        board = self.fleet._loading.board
        assert not board.lines
        assert not board.turns
        assert not board.moves
        assert not board.promised
        for member in self.fleet._members:
            assert not member.leases
            assert not member.open
            assert not member.changing
        assert [node.violations for node in self.nodes.values()] == [[] for _ in self.nodes]


@asynccontextmanager
async def world(
    nodes: Sequence[VirtualNode],
    entries: Sequence[CatalogueModel],
    config: Config = CONFIG,
    poll_seconds: float = 2.0,
    make: Callable[..., Fleet] = Fleet,
) -> AsyncGenerator[World, None]:
    """Run the fleet for the block and until its clients are done; nothing may be left of them."""
    catalogue = Catalogue(tuple(entries))
    shelf = Shelf(catalogue, lambda: catalogue)
    ports = {node.name: node for node in nodes}
    fleet = make(config, shelf, ports, Metrics())
    poller = Poller(list(nodes), fleet, poll_seconds, lambda low, high: (low + high) / 2)
    async with trio.open_nursery() as nursery:
        await nursery.start(fleet.run)
        await nursery.start(poller.run)
        async with trio.open_nursery() as clients:
            made = World(ports, {e.id: e for e in entries}, fleet, clients)
            yield made
        for _ in range(60):  # loads that nobody waits for any more end, and pinned models come up
            await trio.sleep(30)
            if not (fleet._loading.board.moves or fleet._loading.board.lines):
                break
        made.assert_at_rest()
        nursery.cancel_scope.cancel()
