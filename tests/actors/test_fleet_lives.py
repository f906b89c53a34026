"""However requests, nodes, operators and the fleet itself come and go, nobody is forgotten."""

from contextlib import suppress

import trio
from attrs import evolve
from fleet_world import CONFIG, Fragile, VirtualNode, World, entry, world
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from helexa.errors import HelexaError, ServiceUnavailable

NODES = ("one", "two")
MODELS = {"small": 3000, "big": 6000, "huge": 9000, "vast": 20_000}
FIRST = evolve(CONFIG, models=evolve(CONFIG.models, preload=("small", "vast")))
Script = list[tuple[float, tuple[object, ...]]]

seconds = st.integers(0, 40).map(lambda halves: halves / 2)
pauses = st.one_of(st.just(0.0), st.just(0.0), seconds)
nodes = st.sampled_from(NODES)
models = st.sampled_from(tuple(MODELS))
patience = st.one_of(st.integers(0, 90), st.just(10**9))
asking = st.tuples(st.just("ask"), models, seconds, patience, st.sampled_from("-xy"))
failing = st.tuples(st.sampled_from(["kill", "hang", "revive", "revive", "refuse"]), nodes)
operating = st.one_of(
    st.tuples(st.just("drain"), nodes, st.booleans()),
    st.tuples(st.sampled_from(["load", "unload"]), models, st.sampled_from([None, *NODES])),
    st.tuples(st.sampled_from(["pin", "unpin"]), models, st.sampled_from([None, *NODES])),
)
crashing = st.just(("crash",))
steps = st.lists(
    st.tuples(pauses, st.one_of(asking, asking, asking, failing, operating, crashing)), max_size=25
)


async def operate(fleet: World, what: str, model: str, node: str | None) -> None:
    """An operator, who is patient for a while."""
    if what == "unload":
        for each in fleet.nodes.values():
            each.given_up.add(model)
    verb = getattr(fleet.fleet, what)
    first = fleet.entries[model] if what == "load" else model
    with trio.move_on_after(100):
        with suppress(HelexaError):
            await verb(first, node)


async def live_through(script: Script) -> None:
    with trio.fail_after(3600):  # else somebody was forgotten
        await live(script)


async def live(script: Script) -> None:
    num_asked = 0
    virtual = [VirtualNode("one"), VirtualNode("two", total_mb=(10_000, 10_000))]
    entries = [entry(model, mb) for model, mb in MODELS.items()]
    async with world(virtual, entries, FIRST, make=Fragile) as fleet:
        for pause, (what, *args) in script:
            await trio.sleep(pause)
            match what, args:
                case "ask", (str(model), float(length), int(patience), str(session)):
                    num_asked += 1
                    fleet.start(model, length, patience=patience, session=session.strip("-"))
                case "kill", (str(node),):
                    fleet.nodes[node].die()
                case "hang", (str(node),):
                    fleet.nodes[node].hang()
                case "revive", (str(node),):
                    fleet.nodes[node].come_back()
                case "refuse", (str(node),):
                    fleet.nodes[node].refuse.append(ServiceUnavailable("torn"))
                case "drain", (str(node), bool(on)):
                    fleet.nursery.start_soon(drain, fleet, node, on)
                case "crash", ():
                    fleet.fleet.crack()
                case _:
                    fleet.nursery.start_soon(operate, fleet, what, *args)
        for each in virtual:
            await trio.sleep(5)
            each.come_back()
            each.given_up.clear()
    assert fleet.num_ended == num_asked


async def drain(fleet: World, node: str, on: bool) -> None:
    with suppress(HelexaError):
        await fleet.fleet.drain(node, on)


@settings(max_examples=80)
@given(script=steps)
def test_random_lives_leave_nothing_behind(script: Script) -> None:
    trio.run(live_through, script, clock=MockClock(autojump_threshold=0))
