"""Who answers a request: helexa's fleet, or nodes that swap by themselves behind a simpler choice."""

import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count

import trio
from attrs import define, field
from simulate_fleet_node import SimNode
from simulate_fleet_traffic import Ask, Client, Outcome, Scene

from helexa.actors import leases
from helexa.actors.fleet import Fleet
from helexa.actors.poller import Poller
from helexa.config.schema import Config, Node, RemoteNode
from helexa.config.schema import Fleet as FleetConfig
from helexa.errors import Busy, HelexaError, NotLoaded
from helexa.fleet.catalogue import Catalogue
from helexa.metrics import Metrics
from helexa.nodes.port import NodeLost
from helexa.shelf import Shelf

MOST_TRIES = 4
PATIENCE = 120.0  # of a client, in seconds to its first token

Policy = Callable[[Scene, Sequence[SimNode]], AbstractAsyncContextManager[Client]]


# -- helexa ------------------------------------------------------------------------------------------


@asynccontextmanager
async def helexa(scene: Scene, nodes: Sequence[SimNode]) -> AsyncGenerator[Client, None]:
    catalogue = Catalogue(tuple(scene.entries.values()))
    config = Config(
        node=Node(enabled=False),
        nodes=tuple(RemoteNode(node.name, "http://node") for node in nodes),
        fleet=FleetConfig(max_load_waiters=100_000),
    )
    ports = {node.name: node for node in nodes}
    fleet = Fleet(config, Shelf(catalogue, lambda: catalogue), ports, Metrics())
    poller = Poller(
        list(nodes), fleet, config.fleet.poll_seconds, lambda low, high: (low + high) / 2
    )

    async def ask_fleet(ask: Ask) -> Outcome:
        return await through(fleet, ports, scene, ask)

    async with trio.open_nursery() as nursery:
        await nursery.start(fleet.run)
        await nursery.start(poller.run)
        yield ask_fleet
        nursery.cancel_scope.cancel()


async def through(fleet: Fleet, ports: Mapping[str, SimNode], scene: Scene, ask: Ask) -> Outcome:
    """As the gateway does it."""
    began_at, avoid = trio.current_time(), frozenset[str]()
    for _ in range(MOST_TRIES):
        acquire = fleet.acquire(scene.entries[ask.model], session=ask.session, avoid=avoid)
        outcome, node = leases.Outcome("cancelled"), ""
        try:
            with trio.move_on_at(began_at + PATIENCE) as patience:
                node = (await acquire.reply.wait()).node
            if patience.cancelled_caught:
                return Outcome(ask, "refused", PATIENCE)
            ask.was_warm = ask.was_warm and not acquire.waits.since
            sent_at = trio.current_time()
            first_token_at = await ports[node].answer(ask)
            outcome = leases.Outcome("ok", trio.current_time() - sent_at)
            return Outcome(ask, "ok", first_token_at - began_at)
        except NotLoaded:
            outcome = leases.Outcome("gone")
        except NodeLost:
            outcome, avoid = leases.Outcome("lost"), avoid | {node}
        except Busy:
            outcome, avoid = leases.Outcome("refused"), avoid | {node}
        except HelexaError:
            return Outcome(ask, "refused", trio.current_time() - began_at)
        finally:
            fleet.leave(acquire, outcome)
        if ask.has_begun:
            return Outcome(ask, "broken", 0)
    return Outcome(ask, "refused", trio.current_time() - began_at)


# -- nodes that swap by themselves -------------------------------------------------------------------


@define(eq=False)
class Swapping:
    """One node in front of which requests wait until their model is there: idle ones leave by LRU."""

    node: SimNode
    scene: Scene
    changed: trio.Event = field(factory=trio.Event)

    async def answer(self, ask: Ask, deadline: float) -> float:
        while True:
            with trio.move_on_at(deadline):
                await self._have(ask, ask.model)
            if trio.current_time() >= deadline:
                raise Busy("too long", retry_after=1)
            try:
                return await self.node.answer(ask)
            except NotLoaded:
                continue  # it was swapped out again before this request came to it
            finally:
                self._change()

    async def _have(self, ask: Ask, model: str) -> None:
        while True:
            self.node._check()
            found = self.node.models.get(model)
            if found is not None and found.status == "loaded":
                return
            ask.was_warm = False
            if found is None and self._has_room(model):
                await self.node.load(self.scene.entries[model])
                self._change()
            elif found is None and (victim := self._idle()) is not None:
                await self.node.unload(victim, if_idle=False)
                self._change()
            else:
                with trio.move_on_after(10):
                    await self.changed.wait()

    def _has_room(self, model: str) -> bool:
        room = self.node.room
        return self.scene.entries[model].vram_mb + room.spare_mb <= room.free_mb

    def _idle(self) -> str | None:
        idle = (
            (each.last_used, name)
            for name, each in self.node.models.items()
            if each.status == "loaded" and not each.is_busy
        )
        return min(idle, default=(math.inf, None))[1]

    def _change(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


Choice = Callable[[Sequence[SimNode], str], SimNode]


def swapping(make_choice: Callable[[], Choice]) -> Policy:
    @asynccontextmanager
    async def policy(scene: Scene, nodes: Sequence[SimNode]) -> AsyncGenerator[Client, None]:
        choose = make_choice()
        fronts = {node.name: Swapping(node, scene) for node in nodes}

        async def ask_node(ask: Ask) -> Outcome:
            began_at = trio.current_time()
            for _ in range(MOST_TRIES):
                up = [node for node in nodes if not node.is_down]
                front = fronts[choose(up, ask.model).name]
                try:
                    first_token_at = await front.answer(ask, began_at + PATIENCE)
                    return Outcome(ask, "ok", first_token_at - began_at)
                except (NodeLost, Busy):
                    if ask.has_begun:
                        return Outcome(ask, "broken", 0)
            return Outcome(ask, "refused", trio.current_time() - began_at)

        yield ask_node

    return policy


def round_robin() -> Choice:
    numbers = count()
    return lambda nodes, model: nodes[next(numbers) % len(nodes)]


def least_loaded() -> Choice:
    return lambda nodes, model: min(nodes, key=lambda node: node.in_flight)


def least_loaded_with_model() -> Choice:
    def choose(nodes: Sequence[SimNode], model: str) -> SimNode:
        having = [node for node in nodes if model in node.models]
        return min(having or nodes, key=lambda node: node.in_flight)

    return choose


POLICIES: Mapping[str, Policy] = {
    "helexa": helexa,
    "round robin": swapping(round_robin),
    "least loaded": swapping(least_loaded),
    "least loaded that has it": swapping(least_loaded_with_model),
}
