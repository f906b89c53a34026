"""The fleet actor: the only writer of who is leased to which node, and of what is loaded where."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import trio

from helexa import logs
from helexa.actors.fleet_messages import (
    DrainAsk,
    FleetMessage,
    Heard,
    Leave,
    Lost,
    PinAsk,
    PlanAsk,
    Seen,
    Sweep,
    Tick,
)
from helexa.actors.leases import Acquire, Lease, Outcome
from helexa.actors.lines import LoadAsk
from helexa.actors.loading import Loading
from helexa.actors.mailbox import Mailbox
from helexa.actors.members import Member
from helexa.actors.membership import Members
from helexa.actors.moves import Move, Moved, UnloadAsk, look
from helexa.actors.pins import Pins
from helexa.actors.upkeep import Upkeep
from helexa.config.schema import Config
from helexa.errors import HelexaError, InvalidRequest, ModelNotFound
from helexa.fleet import breaker
from helexa.fleet.activation import ActivationView
from helexa.fleet.breaker import Breaker
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.entry import ModelEntry
from helexa.fleet.site import Plan
from helexa.fleet.view import ModelView, NodeKind, NodeView
from helexa.metrics import Metrics
from helexa.nodes.port import NodePort
from helexa.shelf import Shelf

__all__ = ["Acquire", "Fleet", "Lease", "Outcome"]

log = logs.get("helexa.fleet")

TICK_SECONDS = 1.0
SOON_SECONDS = 0.05  # in which changes gather before those that wait are looked at again
LOST_SECONDS = 15.0  # until a load on a node that does not answer is given up
IN_USE_SECONDS = (
    300.0  # since its last request a model counts as in use, and moves when its node drains
)


class Fleet:
    """All nodes as one: which of them answers a request, what is loaded where, and what must leave."""

    def __init__(
        self,
        config: Config,
        shelf: Shelf,
        ports: Mapping[str, NodePort],
        metrics: Metrics,
        now: Callable[[], float] = trio.current_time,
    ) -> None:
        kinds: dict[str, NodeKind] = {node.name: node.kind for node in config.nodes}
        self._config = config
        self._shelf = shelf
        self._metrics = metrics
        self._now = now
        self._members = Members(ports, kinds)
        self._pins = Pins(shelf)
        self._preload = self._first_models()
        self._unloading: dict[UnloadAsk, tuple[str, ...]] = {}
        self._mailbox: Mailbox[FleetMessage] = Mailbox("fleet", size=4096)
        self._health: dict[str, tuple[bool, bool]] = {}  # as the metrics have it
        self._is_sweeping = False  # whether those that wait are looked at again soon
        self._nursery: trio.Nursery
        self._loading: Loading
        self._upkeep: Upkeep

    # -- what others call ------------------------------------------------------------------------

    @property
    def views(self) -> tuple[NodeView, ...]:
        """The nodes as they were seen last, in the order of the configuration."""
        return tuple(member.view for member in self._members)

    def view(self, node: str) -> NodeView:
        """One of them; NotFound for a name that is none."""
        return self._members[node].view

    def breaker_of(self, node: str) -> Breaker:
        """Whether requests may go to the node now, from how the last ones went."""
        return self._members[node].breaker

    def is_draining(self, node: str) -> bool:
        """Whether the node gets no more requests, by an operator's word."""
        return self._members[node].draining

    def is_pinned(self, model: str, node: str) -> bool:
        """Whether the model is never evicted there."""
        return self._pins.has(model, node)

    @property
    def num_open(self) -> int:
        """Requests that have a lease, or wait for one."""
        return self._loading.board.num_waiting + sum(len(member.leases) for member in self._members)

    @property
    def activation(self) -> ActivationView:
        """How far the models are that come up by themselves."""
        return self._upkeep.activation

    def telling(self, model: str) -> list[ModelView]:
        """The model as every node tells of it that has it, whatever its status, and is up."""
        having = (member.view for member in self._members.having(model))
        found = (view.model(model) for view in having if view.up)
        return [each for each in found if each is not None]

    @property
    def told(self) -> dict[str, ModelEntry]:
        """Models by their ids, as the node with the tightest limit told of them last, loaded or not."""
        learned = (pair for member in self._members for pair in member.learned.items())
        told = [(model, each.told) for model, each in learned if each.told]
        return dict(sorted(told, key=lambda pair: room_of(pair[1]), reverse=True))

    @property
    def is_down(self) -> bool:
        """Whether all nodes were looked at, and none is up."""
        views = self.views
        return bool(views) and self._members.are_known and not any(view.up for view in views)

    def knows(self, model: str) -> bool:
        """Whether a node has the model, had it when it was seen last, or is said to offer it."""
        offered = (node.models for node in self._config.nodes)
        return bool(self._members.having(model)) or any(model in models for models in offered)

    def acquire(
        self,
        entry: CatalogueModel,
        *,
        session: str = "",
        avoid: frozenset[str] = frozenset(),
        kind: NodeKind | None = None,
    ) -> Acquire:
        """Ask for a node; wait on the `reply` of what this returns, with `reply.ticks` and `progress()`.

        Nodes in `avoid` get it only after a load.  Where only those have the model, the reply is
        `routing.NoOther`: raise what they said instead.  With `kind` only nodes of that kind are meant,
        and nothing is loaded or waited for.
        Raises Busy at once where the fleet has too much to do.
        """
        acquire = Acquire(entry, session, avoid, kind)
        self._mailbox.post(acquire)
        return acquire

    def leave(self, acquire: Acquire, outcome: Outcome) -> None:
        """Give back the lease, or the place among those that wait.  Never waits, never fails."""
        acquire.waits.is_over = True  # a crash may swallow what is told
        self._mailbox.tell(Leave(acquire, outcome))

    def seen(self, view: NodeView) -> None:
        """The poller tells what a node said."""
        self._mailbox.tell(Seen(view))

    def lost(self, node: str, why: str) -> None:
        """The poller tells that a node cannot be reached."""
        self._mailbox.tell(Lost(node, why))

    async def load(
        self, entry: CatalogueModel, node: str | None = None, by: str = "operator"
    ) -> str:
        """Have the model loaded on the node, or wherever it fits best; the name of the node.

        An operator's word has files fetched, and is tried at once whatever failed before.
        """
        return await self._mailbox.ask(LoadAsk(entry, node, by))

    async def unload(self, model: str, node: str | None = None) -> tuple[str, ...]:
        """Unload it there, or everywhere: running answers are drained.  The nodes that had it."""
        return await self._mailbox.ask(UnloadAsk(model, node))

    async def pin(self, model: str, node: str | None = None) -> tuple[str, ...]:
        """Load it on the node and keep it there, or keep it wherever it is loaded now; the nodes."""
        return await self._mailbox.ask(PinAsk(model, node, True))

    async def unpin(self, model: str, node: str | None = None) -> tuple[str, ...]:
        """Let it be evicted again, also where the catalogue pins it, until helexa restarts."""
        return await self._mailbox.ask(PinAsk(model, node, False))

    async def drain(self, node: str, on: bool = True) -> tuple[str, ...]:
        """Lease nothing more there; the models that are now loaded elsewhere, as they were in use."""
        return await self._mailbox.ask(DrainAsk(node, on))

    async def plan(self, entry: CatalogueModel) -> Plan:
        """What would happen if the model were asked for now.  Raises what a request would get."""
        return await self._mailbox.ask(PlanAsk(entry))

    # -- the actor -------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve.  It may crash and be run again: whoever waited is told, leases and views stay."""
        self._unloading.clear()
        self._is_sweeping = False
        self._members.begin_anew(self._now())
        async with trio.open_nursery() as self._nursery:
            self._loading = Loading(
                self._config,
                self._shelf,
                self._members,
                self._pins,
                self._metrics,
                self._now,
                self._mailbox.tell,
                self._nursery,
                self._now(),
            )
            self._upkeep = Upkeep(self._loading, self._preload)
            self._nursery.start_soon(self._tick)
            task_status.started()
            await self._mailbox.serve(self._handle)

    def close(self) -> None:
        """Nobody will run this fleet again."""
        self._mailbox.close()

    def _first_models(self) -> list[str]:
        """What a gateway without a node of its own loads at its start; a node does so itself."""
        if self._config.node.enabled:
            return []
        found = (self._shelf.catalogue.resolve(name) for name in self._config.models.preload)
        return list(dict.fromkeys(entry.id for entry in found if entry is not None))

    async def _tick(self) -> None:
        while True:
            await trio.sleep(TICK_SECONDS)
            self._mailbox.tell(Tick())

    def _sweep_soon(self) -> None:
        if self._loading.board.lines and not self._is_sweeping:
            self._is_sweeping = True
            self._nursery.start_soon(self._sweep_in_a_moment)

    async def _sweep_in_a_moment(self) -> None:
        await trio.sleep(SOON_SECONDS)
        self._mailbox.tell(Sweep())

    def _handle(self, message: FleetMessage) -> None:
        match message:
            case Acquire():
                self._acquire(message)
            case Leave(acquire, outcome):
                self._leave(acquire, outcome)
            case Seen(view):
                self._seen(view)
            case Lost(node, why):
                self._lost(node, why)
            case Heard(node, model, told):
                self._members[node].of(model).told = told
            case Moved():
                self._moved(message)
            case Tick():
                self._time_passed()
            case Sweep():
                self._is_sweeping = False
                self._loading.sweep()
            case LoadAsk():
                self._loading.ask(message)
            case UnloadAsk():
                self._unload(message)
            case PinAsk():
                self._pin(message)
            case DrainAsk():
                self._drain(message)
            case PlanAsk(entry):
                message.reply.set(self._loading.expected(entry))

    # -- requests --------------------------------------------------------------------------------

    def _acquire(self, acquire: Acquire) -> None:
        if acquire.avoid:
            self._metrics.retried(acquire.entry.id)
        self._loading.acquire(acquire)

    def _leave(self, acquire: Acquire, outcome: Outcome) -> None:
        model = acquire.entry.id
        member = self._members.leave(acquire, outcome, self._now())
        if member is None:
            self._loading.left(acquire)
            return
        if outcome.how == "gone" and member.loaded(model) and not member.changing[model]:
            self._members.gone(member, model)
            member.is_stale = True
            self._look_again(member)
        elif outcome.how == "lost" and member.view.up:
            member.away("it did not answer a request", self._now())
            self._look_again(member)
        self._loading.freed(model)
        self._sweep_soon()

    # -- nodes -----------------------------------------------------------------------------------

    def _seen(self, view: NodeView) -> None:
        self._members.seen(view, self._now())
        member = self._members[view.name]
        self._loading.moving.progressed(member)
        if models := member.to_ask(self._shelf.catalogue.models):
            self._nursery.start_soon(self._ask_of, member.port, models)
        self._sweep_soon()

    async def _ask_of(self, port: NodePort, models: Sequence[CatalogueModel]) -> None:
        """What the node knows of models before they are loaded, one after the other."""
        for entry in models:
            with suppress(HelexaError):
                if told := await port.tell(entry):
                    self._mailbox.tell(Heard(port.name, entry.id, told))

    def _look_again(self, member: Member) -> None:
        """At once: the poller may come late, and what it is being told now may be out of date."""
        member.changed(self._now())
        self._nursery.start_soon(self._look, member)

    async def _look(self, member: Member) -> None:
        if (view := await look(member.port)) is not None:
            self.seen(view)

    def _lost(self, node: str, why: str) -> None:
        self._members[node].lost(why, self._now())
        self._sweep_soon()

    def _moved(self, moved: Moved) -> None:
        if moved.move not in self._loading.board.moves:  # from a life of the fleet that is over
            return
        self._loading.moved(moved)
        ask = moved.move.ask
        if ask is None:
            return
        if moved.error is not None:
            ask.reply.fail(moved.error)
        if not any(move.ask is ask for move in self._loading.board.moves):
            ask.reply.set(self._unloading.pop(ask))

    def _time_passed(self) -> None:
        self._loading.moving.give_up_on_lost(LOST_SECONDS)
        self._upkeep.look()
        self._measure()
        self._loading.sweep()

    def _measure(self) -> None:
        self._metrics.fleet_waiting.set(self._loading.board.num_waiting)
        for member in self._members:
            health = member.view.up, breaker.allows(member.breaker, self._now())
            if self._health.get(member.name) != health:
                self._health[member.name] = health
                self._metrics.node_is(member.name, up=health[0], breaker_open=not health[1])

    # -- operators -------------------------------------------------------------------------------

    def _unload(self, ask: UnloadAsk) -> None:
        members = self._loading.moving.having(ask.model, ask.node)
        was_to_come = self._upkeep.forget(ask.model)
        if not members and was_to_come:
            ask.reply.set(())
            return
        if not members:
            where = f"node {ask.node}" if ask.node else "no node"
            raise ModelNotFound(f"model {ask.model} is not on {where}", param="model")
        self._unloading[ask] = tuple(member.name for member in members)
        for member in members:
            only = (ask.model,)
            move = Move(member.name, None, only, frozenset(only), cause="operator", ask=ask)
            self._loading.moving.start(move)

    def _pin(self, ask: PinAsk) -> None:
        if ask.node is not None:
            nodes = [self._members[ask.node].name]
        elif ask.on:
            nodes = [member.name for member in self._loading.moving.having(ask.model, None)]
        else:
            nodes = sorted(self._pins.nodes_of(ask.model))
        if not nodes and ask.on:
            raise InvalidRequest(f"model {ask.model} is loaded nowhere: name a node", param="node")
        for node in nodes:
            self._pins.say(ask.model, node, ask.on)
        ask.reply.set(tuple(nodes))

    def _drain(self, ask: DrainAsk) -> None:
        member, now = self._members[ask.node], self._now()
        member.draining = ask.on
        self._sweep_soon()
        moving = []
        for model, stay in sorted(member.stays.items()) if ask.on else ():
            in_use = member.busy(model) or now - stay.last_used < IN_USE_SECONDS
            entry = self._shelf.catalogue.resolve(model)
            if in_use and entry is not None:
                elsewhere = LoadAsk(entry, None, "drain")
                self._loading.ask(elsewhere)
                if elsewhere.reply.error is None:
                    moving.append(model)
        log.info("draining" if ask.on else "not draining", node=ask.node, moving=", ".join(moving))
        ask.reply.set(tuple(moving))


def room_of(told: ModelEntry) -> float:
    """Tokens that a prompt may have; infinite where that is not known."""
    return told.limit.input if told.limit else math.inf
