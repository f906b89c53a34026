"""The traffic, the models and the failures of a simulated fleet: the same for every policy."""

import random
from bisect import bisect
from collections.abc import Awaitable, Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import trio
from attrs import define, field, frozen

from helexa.fleet.catalogue import CatalogueModel

if TYPE_CHECKING:
    from simulate_fleet_node import SimNode

NODE_MB = 24_000
WIDTH = 8
SIZES_MB = (4_000, 6_000, 9_000, 12_000, 16_000, 19_000)
MB_PER_SECOND = 1_500.0
SLOW_LOADS = 0.05  # of all loads take five times as long
ZIPF = 0.9
TURNS, THINK_SECONDS = 5, 25.0  # of a session
DECODE_SECONDS = 4.0
UP_SECONDS, DOWN_SECONDS = 4 * 3600.0, 120.0  # of a node, on average


@define(eq=False)
class Ask:
    """One request.  Its prompt is read again where it is not kept."""

    model: str
    session: str
    turn: int
    decode_seconds: float
    was_warm: bool = field(default=True, init=False)  # its model was there when it came
    prefix_was_kept: bool = field(default=False, init=False)
    has_begun: bool = field(default=False, init=False)

    @property
    def prefill_seconds(self) -> float:
        return 0.15 if self.prefix_was_kept else 0.4 + 0.4 * self.turn


@frozen
class Outcome:
    """`wait` is the time to the first token; `how` is ok, broken (in its middle), refused or lost."""

    ask: Ask
    how: str
    wait: float


@frozen
class Session:
    at: float
    model: str
    name: str
    turns: tuple[tuple[float, float], ...]  # pause before it, decode seconds


@define(eq=False)
class Scene:
    nodes: Sequence[str]
    entries: dict[str, CatalogueModel]
    sessions: Sequence[Session]
    deaths: Sequence[tuple[float, int, float]]  # when, which node, for how long
    seconds: float
    seed: int
    outcomes: list[Outcome] = field(factory=list)

    def load_seconds(self, entry: CatalogueModel, node: str, number: int) -> float:
        slow = random.Random(f"{self.seed} {node} {number}").random() < SLOW_LOADS
        return (2 + entry.vram_mb / MB_PER_SECOND) * (5 if slow else 1)


def make_scene(nodes: int, models: int, rate: float, minutes: float, seed: int) -> Scene:
    chance = random.Random(seed)
    names = [f"model{index:03}" for index in range(models)]
    entries = {name: CatalogueModel(name, vram_mb=chance.choice(SIZES_MB)) for name in names}
    weights = list(accumulate(1 / (rank + 1) ** ZIPF for rank in range(models)))
    seconds = minutes * 60
    sessions: list[Session] = []
    at = 0.0
    while (at := at + chance.expovariate(rate / TURNS)) < seconds:
        model = names[bisect(weights, chance.random() * weights[-1])]
        turns = tuple(
            (
                chance.expovariate(1 / THINK_SECONDS) if turn else 0.0,
                chance.lognormvariate(0, 0.6) * DECODE_SECONDS,
            )
            for turn in range(chance.randint(1, 2 * TURNS - 1))
        )
        sessions.append(Session(at, model, f"session{len(sessions)}", turns))
    deaths = sorted(
        (chance.uniform(0, seconds), node, chance.expovariate(1 / DOWN_SECONDS))
        for node in range(nodes)
        if chance.random() < seconds / UP_SECONDS
    )
    return Scene([f"node{i:04}" for i in range(nodes)], entries, sessions, deaths, seconds, seed)


Client = Callable[[Ask], Awaitable[Outcome]]


async def run_scene(scene: Scene, nodes: "Sequence[SimNode]", client: Client) -> None:
    """Until every session is over."""
    began_at = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail_nodes, scene, nodes)
        for session in scene.sessions:
            await trio.sleep_until(began_at + session.at)
            nursery.start_soon(live, scene, session, client)


async def live(scene: Scene, session: Session, client: Client) -> None:
    for number, (pause, decode_seconds) in enumerate(session.turns):
        await trio.sleep(pause)
        ask = Ask(session.model, session.name, number, decode_seconds)
        scene.outcomes.append(await client(ask))


async def fail_nodes(scene: Scene, nodes: "Sequence[SimNode]") -> None:
    began_at = trio.current_time()
    async with trio.open_nursery() as nursery:
        for at, node, seconds in scene.deaths:
            await trio.sleep_until(began_at + at)
            nodes[node].die()
            nursery.start_soon(revive, nodes[node], seconds)


async def revive(node: "SimNode", seconds: float) -> None:
    await trio.sleep(seconds)
    node.come_back()
