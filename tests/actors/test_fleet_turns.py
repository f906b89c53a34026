"""Models that share a device take turns: nobody is interrupted, and nobody waits beyond a bound."""

import math

import trio
from attrs import evolve
from fleet_world import CONFIG, WIDTH, VirtualNode, World, entry, world
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from helexa.config.schema import Fleet
from helexa.fleet.rotation import longest_wait

TURN = CONFIG.eviction.turn_seconds
SWAP = 5 + 1 + 1  # a load, an unload, and what the fleet takes to notice
ROOMY = evolve(CONFIG, fleet=Fleet(max_load_waiters=1000))


async def ask_again_and_again(
    fleet: World, model: str, every: float, seconds: float, until: float
) -> None:
    while trio.current_time() < until:
        fleet.start(model, seconds, patience=math.inf)
        await trio.sleep(every)


async def test_models_in_steady_use_take_turns_within_the_bound(autojump_clock: MockClock) -> None:
    node = VirtualNode("gpu1", load_seconds=15)
    models = ["a", "b", "c"]
    async with world([node], [entry(model) for model in models], ROOMY) as fleet:
        until = trio.current_time() + 1200
        for model in models:
            fleet.nursery.start_soon(ask_again_and_again, fleet, model, 8, 2, until)
    assert not fleet.failed
    assert len(fleet.answered) == 450
    assert max(fleet.waits) <= longest_wait(3, TURN, TURN, 2, SWAP + 10)
    swaps = len(node.unloads)
    assert swaps <= 1200 / TURN  # and yet they do not swap for every request


async def test_a_turn_serves_those_that_waited_when_it_began(autojump_clock: MockClock) -> None:
    """Both models have more requests than a turn can answer: each turn still answers its batch."""
    node = VirtualNode("gpu1")
    async with world([node], [entry("a"), entry("b")], ROOMY) as fleet:
        for _ in range(20):
            fleet.start("a", 8, patience=math.inf)
        await trio.sleep(1)
        for _ in range(20):
            fleet.start("b", 8, patience=math.inf)
        await trio.sleep(30)
        for _ in range(20):
            fleet.start("a", 8, patience=math.inf)
    order = [model for _, model, _ in fleet.answered]
    assert order == ["a"] * 20 + ["b"] * 20 + ["a"] * 20
    assert [model for _, model in node.loads] == ["a", "b", "a"]


async def test_a_device_that_nobody_else_wants_is_not_taken_from_a_model(
    autojump_clock: MockClock,
) -> None:
    node = VirtualNode("gpu1")
    async with world([node], [entry("a"), entry("b")]) as fleet:
        fleet.start("a", 100)
        await trio.sleep(10)
        fleet.start("b", patience=5)  # leaves before a's turn is over
        await trio.sleep(30)
        fleet.start("a", 1)
    assert node.unloads == []
    assert max(fleet.waits) < 10


arrivals = st.lists(
    st.tuples(st.integers(0, 200), st.sampled_from("abc"), st.integers(1, 10)), max_size=25
)


@settings(max_examples=40)
@given(arrivals)
def test_nobody_waits_longer_than_the_bound(arrivals: list[tuple[int, str, int]]) -> None:
    trio.run(all_within_the_bound, sorted(arrivals), clock=MockClock(autojump_threshold=0))


async def all_within_the_bound(arrivals: list[tuple[int, str, int]]) -> None:
    node = VirtualNode("gpu1")
    models = sorted({model for _, model, _ in arrivals})
    async with world([node], [entry(model) for model in "abc"], ROOMY) as fleet:
        began_at = trio.current_time()
        for at, model, seconds in arrivals:
            await trio.sleep_until(began_at + at)
            fleet.start(model, seconds, patience=math.inf)
    assert not fleet.failed
    assert len(fleet.answered) == len(arrivals)
    longest = max((seconds for _, _, seconds in arrivals), default=0)
    batch = math.ceil(len(arrivals) / WIDTH) * longest
    bound = longest_wait(len(models), TURN, batch, longest, SWAP) if models else 0
    own = batch + SWAP  # its own load, and those before it in its own line
    assert max(fleet.waits, default=0) <= bound + own
