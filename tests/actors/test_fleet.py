"""The fleet actor: requests find their nodes, and cold models are loaded once for all who ask."""

import math
from collections.abc import Mapping
from itertools import pairwise

import pytest
import trio
from attrs import evolve
from fleet_world import CONFIG, Fragile, VirtualModel, VirtualNode, World, entry, world
from trio.testing import MockClock

from helexa.actors.leases import Outcome
from helexa.control.fleet import FleetVerbs
from helexa.errors import (
    ActorDown,
    Busy,
    InsufficientVram,
    ModelNotFound,
    NotFound,
    ServiceUnavailable,
)
from helexa.fleet.activation import ActivationView
from helexa.fleet.catalogue import Catalogue
from helexa.fleet.limits import Limit
from helexa.fleet.routing import NoOther
from helexa.shelf import Shelf
from helexa.store.source import name_of

# Two models of 6000 MB do not fit a device of 10 000 MB.


def failed(fleet: World) -> Mapping[str, str]:
    """The models that were to come up by themselves and did not, and why."""
    told: ActivationView = fleet.fleet.activation
    assert told.state == "ready"
    return told.failed


# -- loads -------------------------------------------------------------------------------------------


async def test_a_cold_model_is_loaded_once_however_many_ask(autojump_clock: MockClock) -> None:
    node = VirtualNode("gpu1")
    async with world([node], [entry("a")]) as fleet:
        for _ in range(6):
            fleet.start("a")
    assert [model for _, model in node.loads] == ["a"]
    assert len(fleet.answered) == 6


async def test_a_load_goes_on_though_everybody_left(autojump_clock: MockClock) -> None:
    node = VirtualNode("gpu1")
    async with world([node], [entry("a")]) as fleet:
        await fleet.ask("a", patience=2)
        await trio.sleep(10)
        await fleet.ask("a")
    assert [model for _, model in node.loads] == ["a"]
    assert fleet.waits == [0]


async def test_an_operator_s_load_is_joined_by_requests(autojump_clock: MockClock) -> None:
    nodes = [VirtualNode("gpu1"), VirtualNode("gpu2")]
    async with world(nodes, [entry("a")]) as fleet:
        fleet.start("a")
        await trio.sleep(1)
        assert await fleet.fleet.load(fleet.entries["a"]) in ("gpu1", "gpu2")
    assert sum(len(node.loads) for node in nodes) == 1


async def test_an_operator_says_where(autojump_clock: MockClock) -> None:
    nodes = [VirtualNode("gpu1"), VirtualNode("gpu2")]
    async with world(nodes, [entry("a")]) as fleet:
        await fleet.ask("a")
        assert await fleet.fleet.load(fleet.entries["a"], "gpu2") == "gpu2"
        assert await fleet.fleet.load(fleet.entries["a"], "gpu1") == "gpu1"
        assert await fleet.fleet.unload("a") == ("gpu1", "gpu2")
        with pytest.raises(ModelNotFound):
            await fleet.fleet.unload("a")
        with pytest.raises(NotFound, match="gpu1, gpu2"):
            await fleet.fleet.load(fleet.entries["a"], "gpu3")
    assert [len(node.loads) for node in nodes] == [1, 1]


async def test_a_node_is_told_whether_an_operator_asks(autojump_clock: MockClock) -> None:
    node = VirtualNode("gpu1")
    async with world([node], [entry("a"), entry("b")]) as fleet:
        await fleet.ask("a")
        await fleet.fleet.load(fleet.entries["b"])
    assert node.asked_by == ["request", "operator"]


async def test_so_many_may_wait_and_no_more(autojump_clock: MockClock) -> None:
    async with world([VirtualNode("gpu1")], [entry("a")]) as fleet:
        for _ in range(9):
            fleet.start("a")
    assert [type(error) for error in fleet.failed] == [Busy]
    assert fleet.failed[0].retry_after == 5
    assert len(fleet.answered) == 8


async def test_a_load_that_fails_is_tried_elsewhere_and_remembered(
    autojump_clock: MockClock,
) -> None:
    nodes = [VirtualNode("gpu1"), VirtualNode("gpu2")]
    for node in nodes:
        node.refuse.append(ServiceUnavailable("torn"))
    async with world(nodes, [entry("a")]) as fleet:
        await fleet.ask("a")
        await fleet.ask("a")
        assert [len(node.loads) for node in nodes] == [1, 1]
        assert [error.status for error in fleet.failed] == [503, 503]
        assert "gpu1" in fleet.failed[0].message
        assert 0 < (fleet.failed[1].retry_after or 0) <= 5
        await trio.sleep(6)
        await fleet.ask("a")
    assert len(fleet.answered) == 1


async def test_a_failure_is_forgotten_when_files_come(autojump_clock: MockClock) -> None:
    node = VirtualNode("gpu1", refuse=[ServiceUnavailable("torn")], stored=None)
    async with world([node], [entry("a", source="hf:org/a")]) as fleet:
        await fleet.ask("a")
        node.stored = frozenset({name_of("hf:org/a") or ""})
        await trio.sleep(2.5)
        await fleet.ask("a")
    assert len(fleet.answered) == len(fleet.failed) == 1


async def test_an_operator_tries_again_at_once(autojump_clock: MockClock) -> None:
    node = VirtualNode("gpu1", refuse=[ServiceUnavailable("torn")])
    async with world([node], [entry("a")]) as fleet:
        with pytest.raises(ServiceUnavailable, match="torn"):
            await fleet.fleet.load(fleet.entries["a"])
        assert await fleet.fleet.load(fleet.entries["a"]) == "gpu1"


async def test_a_load_that_hangs_is_given_up_and_another_node_tried(
    autojump_clock: MockClock,
) -> None:
    slow, other = VirtualNode("gpu1", (20_000,), load_seconds=math.inf), VirtualNode("gpu2")
    async with world([slow, other], [entry("a")]) as fleet:
        await fleet.ask("a", patience=math.inf)
        slow.die()
    assert [node for _, _, node in fleet.answered] == ["gpu2"]
    assert CONFIG.fleet.load_wait_secs <= fleet.waits[0] <= CONFIG.fleet.load_wait_secs + 20


async def test_a_node_that_has_no_room_says_so_and_something_leaves(
    autojump_clock: MockClock,
) -> None:
    """The catalogue says nothing of sizes: the node's refusal does."""
    node = VirtualNode("gpu1", kind="helexa")
    entries = [entry(model, 0) for model in "abcd"]  # 4000 MB each
    async with world([node], entries) as fleet:
        for model in "abc":
            await fleet.ask(model)
            await trio.sleep(1)
        assert set(node.models) == {"b", "c"}
    assert [model for _, model in node.unloads] == ["a"]
    assert not fleet.failed


async def test_files_that_are_nowhere_are_not_fetched_by_a_request(
    autojump_clock: MockClock,
) -> None:
    node = VirtualNode("gpu1", stored=frozenset())
    async with world([node], [entry("a", source="hf:org/a")]) as fleet:
        await fleet.ask("a")
        assert "helexa-ctl load a --node gpu1" in fleet.failed[0].message
        assert fleet.failed[0].status == 503
        assert await fleet.fleet.load(fleet.entries["a"]) == "gpu1"


async def test_the_node_with_the_files_loads(autojump_clock: MockClock) -> None:
    nodes = [
        VirtualNode("gpu1", (90_000,), stored=frozenset()),
        VirtualNode("gpu2", stored=frozenset({name_of("hf:org/a") or ""})),
    ]
    async with world(nodes, [entry("a", source="hf:org/a", download="on_demand")]) as fleet:
        await fleet.ask("a")
    assert [node for _, _, node in fleet.answered] == ["gpu2"]


async def test_a_node_is_asked_once_what_it_knows_of_files_that_it_has(
    autojump_clock: MockClock,
) -> None:
    stored = frozenset({name_of("hf:org/a") or ""})
    nodes = [
        VirtualNode("gpu1", stored=stored, limit=Limit(8192, 6144, 2048)),
        VirtualNode("gpu2", stored=stored, limit=Limit(4096, 3072, 1024)),
        VirtualNode("gpu3", stored=frozenset()),
    ]
    async with world(nodes, [entry("a", source="hf:org/a")]) as fleet:
        await trio.sleep(100)
        assert fleet.fleet.told["a"].limit == nodes[1].limit  # the tightest
        assert [node.told for node in nodes] == [["a"], ["a"], []]


async def test_a_node_that_could_not_tell_is_asked_again_when_it_is_back(
    autojump_clock: MockClock,
) -> None:
    node = VirtualNode("gpu1", stored=frozenset({name_of("hf:org/a") or ""}))
    async with world([node], [entry("a", source="hf:org/a")]) as fleet:
        await trio.sleep(100)
        assert (node.told, fleet.fleet.told) == (["a"], {})
        node.is_down, node.limit = True, Limit(8192, 6144, 2048)
        await trio.sleep(100)
        node.is_down = False
        await trio.sleep(100)
        assert node.told == ["a", "a"]
        assert fleet.fleet.told["a"].limit == node.limit


async def test_a_model_that_fits_nowhere_is_not_found(autojump_clock: MockClock) -> None:
    async with world([VirtualNode("gpu1")], [entry("a", 90_000)]) as fleet:
        await fleet.ask("a")
    assert [type(error) for error in fleet.failed] == [ModelNotFound]
    assert "gpu1: device 0 has 10000 MB" in fleet.failed[0].message


# -- evictions ---------------------------------------------------------------------------------------


async def test_an_idle_model_leaves_for_one_that_is_asked_for(autojump_clock: MockClock) -> None:
    node = VirtualNode("gpu1")
    async with world([node], [entry("a"), entry("b")]) as fleet:
        await fleet.ask("a")
        await fleet.ask("b")
        assert list(node.models) == ["b"]
    assert [model for _, model in node.unloads] == ["a"]
    assert not fleet.failed
    assert "a leaves" in fleet.why[1]


async def test_a_running_answer_is_finished_before_its_model_leaves(
    autojump_clock: MockClock,
) -> None:
    node = VirtualNode("gpu1")
    async with world([node], [entry("a"), entry("b")]) as fleet:
        fleet.start("a", seconds=60)
        await trio.sleep(10)
        fleet.start("b")
    assert [model for _, model, _ in fleet.answered] == ["a", "b"]
    assert not fleet.failed


async def test_a_model_that_nobody_came_for_leaves_after_a_turn(autojump_clock: MockClock) -> None:
    """Its node would never call it idle, as it has served nothing."""
    node = VirtualNode("gpu1")
    async with world([node], [entry("a"), entry("b")]) as fleet:
        await fleet.fleet.load(fleet.entries["a"])
        await trio.sleep(100)
        await fleet.ask("b")
    assert not fleet.failed
    assert fleet.waits[0] <= CONFIG.eviction.turn_seconds + 10


async def test_pinned_models_come_up_in_order_and_stay(autojump_clock: MockClock) -> None:
    node = VirtualNode("gpu1")
    entries = [entry("a", 3000, pinned_on=("gpu1",)), entry("b", 3000, pinned_on=("gpu1",))]
    async with world([node], [*entries, entry("c", 5000)]) as fleet:
        await trio.sleep(2)
        assert fleet.fleet.activation == ActivationView("loading", ("a",), ("b",))
        await trio.sleep(20)
        assert fleet.fleet.activation == ActivationView("ready")
        assert list(node.models) == ["a", "b"]
        await fleet.ask("c")
        assert [type(error) for error in fleet.failed] == [InsufficientVram]
        assert await fleet.fleet.unpin("a") == ("gpu1",)
        await fleet.ask("c")
        assert [model for _, model, _ in fleet.answered] == ["c"]
        assert await fleet.fleet.pin("c") == ("gpu1",)
        await fleet.ask("a")
    assert "c is pinned" in fleet.failed[-1].message


async def test_a_pinned_model_comes_back_with_its_node(autojump_clock: MockClock) -> None:
    node = VirtualNode("gpu1")
    async with world([node], [entry("a", pinned_on=("gpu1",))]) as fleet:
        await trio.sleep(20)
        node.die()
        await trio.sleep(5)
        node.come_back()
        await trio.sleep(60)
        assert list(node.models) == ["a"]
    assert not fleet.failed


async def test_a_pinned_model_that_failed_is_tried_again_ever_more_rarely(
    autojump_clock: MockClock,
) -> None:
    node = VirtualNode("gpu1", kind="helexa", refuse=[ServiceUnavailable("torn")] * 3)
    async with world([node], [entry("a", pinned_on=("gpu1",))]) as fleet:
        await trio.sleep(12)
        assert fleet.fleet.activation == ActivationView("ready", failed={"a": "torn"})
        await trio.sleep(50)
        assert fleet.fleet.activation == ActivationView("ready")
    assert [round(b - a) for (a, _), (b, _) in pairwise(node.loads)] == [6, 11, 21]


async def test_a_pinned_model_whose_files_are_away_is_not_asked_for_again_and_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    node = VirtualNode("gpu1", stored=frozenset())
    async with world([node], [entry("a", source="hf:org/a", pinned_on=("gpu1",))]) as fleet:
        await trio.sleep(100)
        assert "`helexa-ctl load a --node gpu1` fetches them" in failed(fleet)["a"]
        assert caplog.text.count("model not brought up") == 5


async def test_a_gateway_alone_preloads_in_order(autojump_clock: MockClock) -> None:
    node = VirtualNode("gpu1", (16_000,), refuse=[ServiceUnavailable("torn")])
    config = evolve(CONFIG, models=evolve(CONFIG.models, preload=("a", "b", "c")))
    async with world([node], [entry(model, 3000) for model in "abc"], config) as fleet:
        await trio.sleep(4)
        told = fleet.fleet.activation
        assert (told.loading, told.pending, told.failed) == (("b",), ("c",), {"a": "torn"})
        await trio.sleep(30)
        assert list(node.models) == ["b", "c", "a"]
        assert fleet.fleet.activation == ActivationView("ready")
        await fleet.fleet.unload("a")
        await trio.sleep(1000)
        assert list(node.models) == ["b", "c"]


async def test_a_preload_whose_files_are_away_is_asked_for_ever_more_rarely_until_unloaded(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    node = VirtualNode("gpu1", stored=frozenset())
    config = evolve(CONFIG, models=evolve(CONFIG.models, preload=("a",)))
    async with world([node], [entry("a", source="hf:org/a")], config) as fleet:
        await trio.sleep(100)
        assert "`helexa-ctl load a --node gpu1` fetches them" in failed(fleet)["a"]
        assert caplog.text.count("model not brought up") == 5
        assert await fleet.fleet.unload("a") == ()
        assert fleet.fleet.activation == ActivationView("ready")
        with pytest.raises(ModelNotFound):
            await fleet.fleet.unload("a")
        node.stored = frozenset({name_of("hf:org/a") or ""})
        await trio.sleep(1000)
    assert not node.loads


async def test_a_preload_that_is_called_off_does_not_come_again(autojump_clock: MockClock) -> None:
    node = VirtualNode("gpu1")
    config = evolve(CONFIG, models=evolve(CONFIG.models, preload=("a",)))
    async with world([node], [entry("a")], config) as fleet:
        await trio.sleep(3)
        assert fleet.fleet.activation.loading == ("a",)
        assert await fleet.fleet.unload("a") == ("gpu1",)
        await trio.sleep(1000)
        assert fleet.fleet.activation == ActivationView("ready")
    assert (node.models, len(node.loads)) == ({}, 1)


async def test_a_model_that_nobody_uses_is_unloaded_after_its_ttl(
    autojump_clock: MockClock,
) -> None:
    node = VirtualNode("gpu1")
    entries = [entry("a", 3000, ttl_seconds=60.0), entry("b", 3000)]
    async with world([node], entries) as fleet:
        await fleet.ask("a")
        await fleet.ask("b")
        fleet.start("a", 100)
        await trio.sleep(120)
        assert set(node.models) == {"a", "b"}
        await trio.sleep(70)
        assert set(node.models) == {"b"}


async def test_what_a_server_loads_by_itself_is_left_there(autojump_clock: MockClock) -> None:
    node = VirtualNode("vllm", kind="openai", models={"a": VirtualModel(3000, 0, "loaded")})
    async with world([node], [entry("a", 3000, ttl_seconds=60.0)]) as fleet:
        await fleet.ask("a")
        await trio.sleep(300)
    assert (list(node.models), node.unloads, node.loads) == (["a"], [], [])


class Clinging(VirtualNode):
    async def unload(self, model: str, *, if_idle: bool) -> None:
        self.unloads.append((trio.current_time(), model))
        raise ServiceUnavailable("it would not go")


async def test_a_node_that_cannot_unload_is_not_told_to_every_second(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    node = Clinging("gpu1")
    async with world([node], [entry("a", 3000, ttl_seconds=20.0)]) as fleet:
        await fleet.ask("a")
        await trio.sleep(100)
    assert 3 <= len(node.unloads) <= 6
    assert "not unloaded" in caplog.text


async def test_memory_is_mended_after_so_many_loads(autojump_clock: MockClock) -> None:
    config = evolve(CONFIG, eviction=evolve(CONFIG.eviction, defrag_after_cycles=3))
    node = VirtualNode("gpu1")
    async with world([node], [entry("a"), entry("b")], config) as fleet:
        for model in "aba":
            await fleet.ask(model)
            await trio.sleep(30)
        assert [model for _, model in node.loads] == ["a", "b", "a", "a"]
        assert list(node.models) == ["a"]


async def test_mending_memory_is_no_cause_to_mend_it_again(autojump_clock: MockClock) -> None:
    config = evolve(CONFIG, eviction=evolve(CONFIG.eviction, defrag_after_cycles=1))
    node = VirtualNode("gpu1")
    async with world([node], [entry("a")], config) as fleet:
        await fleet.ask("a")
        await trio.sleep(500)
    assert [model for _, model in node.loads] == ["a", "a"]


# -- nodes -------------------------------------------------------------------------------------------


async def test_a_node_that_is_lost_is_left_for_another(autojump_clock: MockClock) -> None:
    one, two = VirtualNode("gpu1"), VirtualNode("gpu2")
    async with world([one, two], [entry("a")]) as fleet:
        await fleet.ask("a")
        first = next(node for node in (one, two) if node.models)
        first.die()
        await fleet.ask("a")
    assert not fleet.failed
    assert [node == first.name for _, _, node in fleet.answered] == [True, False]


async def test_a_look_that_was_asked_before_a_node_was_lost_tells_nothing(
    autojump_clock: MockClock,
) -> None:
    node = VirtualNode("gpu1")
    async with world([node], [entry("a")], poll_seconds=0.5) as fleet:
        await fleet.ask("a")
        node.look_seconds = 5
        await trio.sleep(3)
        node.die()
        fleet.start("a", patience=8)
        for _ in range(80):
            await trio.sleep(0.1)
            assert not fleet.fleet.views[0].up


async def test_a_node_that_a_request_lost_is_looked_at_at_once(autojump_clock: MockClock) -> None:
    node = VirtualNode("gpu1")
    async with world([node], [entry("a")], poll_seconds=60) as fleet:
        await fleet.ask("a")
        fleet.start("a", 30)
        await trio.sleep(1)
        node.break_off()
        await trio.sleep(1)
        assert fleet.fleet.views[0].up


async def test_replicas_are_used_and_survive_the_loss_of_one(autojump_clock: MockClock) -> None:
    nodes = [VirtualNode("gpu1"), VirtualNode("gpu2")]
    async with world(nodes, [entry("a", pinned_on=("gpu1", "gpu2"))]) as fleet:
        await trio.sleep(20)
        for _ in range(4):
            fleet.start("a", 5)
        await trio.sleep(10)
        assert {node for _, _, node in fleet.answered} == {"gpu1", "gpu2"}
        for _ in range(4):
            fleet.start("a", 5)
        await trio.sleep(1)
        nodes[0].die()
    assert not fleet.failed
    assert len(fleet.answered) == 8


async def test_a_node_that_refuses_at_once_does_not_attract_requests(
    autojump_clock: MockClock,
) -> None:
    nodes = [VirtualNode("gpu1"), VirtualNode("gpu2")]
    async with world(nodes, [entry("a", pinned_on=("gpu1", "gpu2"))]) as fleet:
        await trio.sleep(20)
        nodes[0].is_full = True
        for _ in range(100):
            await fleet.ask("a", 0.1)
    assert not fleet.failed
    assert {node for _, _, node in fleet.answered} == {"gpu2"}
    assert 5 <= nodes[0].num_refused <= 8


async def test_who_waits_behind_others_on_a_node_that_dies_is_served_elsewhere(
    autojump_clock: MockClock,
) -> None:
    """They waited for its load, and for those before them to be answered."""
    nodes = [VirtualNode("gpu1"), VirtualNode("gpu2", is_down=True)]
    async with world(nodes, [entry("a")]) as fleet:
        for _ in range(8):
            fleet.start("a", 8, patience=math.inf)
        await trio.sleep(10)
        nodes[1].come_back()
        nodes[0].die()
    assert not fleet.failed
    assert [node for _, _, node in fleet.answered] == ["gpu2"] * 8


async def test_an_unload_that_one_node_cannot_do_is_told(autojump_clock: MockClock) -> None:
    nodes = [VirtualNode("gpu1"), VirtualNode("gpu2")]
    async with world(nodes, [entry("a", pinned_on=("gpu1", "gpu2"))]) as fleet:
        await trio.sleep(20)
        for node in ("gpu1", "gpu2"):
            await fleet.fleet.unpin("a", node)
        nodes[0].is_down = True
        with pytest.raises(ServiceUnavailable):
            await fleet.fleet.unload("a")
        await trio.sleep(5)
        assert nodes[1].models == {}


async def test_a_short_loss_moves_no_model(autojump_clock: MockClock) -> None:
    nodes = [VirtualNode("gpu1"), VirtualNode("gpu2")]
    async with world(nodes, [entry("a")]) as fleet:
        await fleet.ask("a")
        (first,) = (node for node in nodes if node.models)
        first.is_down = True
        await trio.sleep(2)
        fleet.start("a")
        await trio.sleep(1)
        first.come_back()
    assert [node for _, _, node in fleet.answered] == [first.name] * 2


async def test_no_node_no_service(autojump_clock: MockClock) -> None:
    async with world([VirtualNode("gpu1", is_down=True)], [entry("a")]) as fleet:
        await fleet.ask("a")
    assert [error.retry_after for error in fleet.failed] == [5]
    assert "gpu1: has been down for" in fleet.failed[0].message


async def test_an_operator_is_told_since_when_the_node_is_down_that_was_named(
    autojump_clock: MockClock,
) -> None:
    down = VirtualNode("gpu2", is_down=True)
    async with world([VirtualNode("gpu1"), down], [entry("a")]) as fleet:
        await trio.sleep(90.5)
        with pytest.raises(ServiceUnavailable) as refusal:
            await fleet.fleet.load(fleet.entries["a"], "gpu2")
    why = "gpu2: has been down for 90 s (node gpu2 does not answer)"
    assert refusal.value.message == f"model a: {why}"


async def test_nothing_is_loaded_before_every_node_was_looked_at(
    autojump_clock: MockClock,
) -> None:
    """After a restart of the gateway the model may be where nobody has looked yet."""
    late, here = VirtualNode("gpu1"), VirtualNode("gpu2")
    async with world([late, here], [entry("a")]) as fleet:
        await fleet.fleet.load(fleet.entries["a"], "gpu1")
    late.hang()
    async with world([late, here], [entry("a")]) as fleet:
        fleet.start("a")
        await trio.sleep(5)
        late.come_back()
    assert here.loads == []
    assert [node for _, _, node in fleet.answered] == ["gpu1"]


async def test_a_draining_node_finishes_and_its_models_move(autojump_clock: MockClock) -> None:
    nodes = [VirtualNode("gpu1"), VirtualNode("gpu2")]
    async with world(nodes, [entry("a")]) as fleet:
        await fleet.fleet.load(fleet.entries["a"], "gpu1")
        fleet.start("a", 50)
        await trio.sleep(1)
        assert await fleet.fleet.drain("gpu1") == ("a",)
        await trio.sleep(10)
        fleet.start("a", 1)
        await trio.sleep(5)
        assert await fleet.fleet.drain("gpu1", on=False) == ()
    assert [node for _, _, node in fleet.answered] == ["gpu2", "gpu1"]
    assert fleet.waits == [0, 0]


async def test_what_fits_nowhere_else_is_not_said_to_move(autojump_clock: MockClock) -> None:
    nodes = [VirtualNode("gpu1"), VirtualNode("gpu2", (4000,))]
    async with world(nodes, [entry("a"), entry("b", 1000)]) as fleet:
        await fleet.fleet.load(fleet.entries["a"], "gpu1")
        await fleet.fleet.load(fleet.entries["b"], "gpu1")
        assert await fleet.fleet.drain("gpu1") == ("b",)
        await trio.sleep(10)
        assert list(nodes[1].models) == ["b"]
        await fleet.fleet.drain("gpu1", on=False)


async def test_where_only_the_node_that_refused_has_it_there_is_no_other(
    autojump_clock: MockClock,
) -> None:
    async with world([VirtualNode("gpu1")], [entry("a")]) as fleet:
        await fleet.ask("a")
        again = fleet.fleet.acquire(fleet.entries["a"], avoid=frozenset({"gpu1"}))
        with pytest.raises(NoOther):
            await again.reply.wait()
        fleet.fleet.leave(again, Outcome("cancelled"))


async def test_a_model_that_is_gone_is_loaded_again(autojump_clock: MockClock) -> None:
    node = VirtualNode("gpu1")
    async with world([node], [entry("a")]) as fleet:
        await fleet.ask("a")
        node.models.clear()  # somebody else unloaded it a moment ago
        await fleet.ask("a")
    assert len(fleet.answered) == 2
    assert len(node.loads) == 2


# -- the fleet itself --------------------------------------------------------------------------------


async def test_a_crash_is_told_to_those_who_wait_and_leases_outlive_it(
    autojump_clock: MockClock,
) -> None:
    node = VirtualNode("gpu1", load_seconds=20)
    async with world([node], [entry("a"), entry("b")], make=Fragile) as fleet:
        await fleet.ask("a")
        fleet.start("a", 30)
        await trio.sleep(5)
        fleet.start("b")
        await trio.sleep(1)
        fleet.fleet.crack()
        await trio.sleep(2)
        assert [type(error) for error in fleet.failed] == [ActorDown]
        assert [dict(member.open) for member in fleet.fleet._members] == [{"a": 1}]
        fleet.start("b", 1)
    assert [model for _, model, _ in fleet.answered] == ["a", "a", "b"]


async def test_a_lease_that_was_given_back_in_the_moment_of_a_crash_is_free(
    autojump_clock: MockClock,
) -> None:
    async with world([VirtualNode("gpu1")], [entry("a")], make=Fragile) as fleet:
        acquire = fleet.fleet.acquire(fleet.entries["a"])
        await acquire.reply.wait()
        fleet.fleet.crack()
        fleet.fleet.leave(acquire, Outcome("ok", 1))
        await trio.sleep(2)
        assert not fleet.fleet.is_cracked
        assert [dict(member.open) for member in fleet.fleet._members] == [{}]


# -- in words ----------------------------------------------------------------------------------------


async def test_a_plan_says_what_would_happen(autojump_clock: MockClock) -> None:
    async with world([VirtualNode("gpu1")], [entry("a"), entry("b"), entry("c", 90_000)]) as fleet:
        await fleet.ask("a")
        await trio.sleep(9)
        there = await fleet.fleet.plan(fleet.entries["a"])
        assert (there.node, there.why) == ("gpu1", "node gpu1: the only one that has it")
        cold = await fleet.fleet.plan(fleet.entries["b"])
        assert cold.evict == ("a",)
        assert cold.why == "node gpu1, device 0: a leaves, not used for 9 s; about 9 s"
        with pytest.raises(ModelNotFound):
            await fleet.fleet.plan(fleet.entries["c"])


async def test_an_operator_is_told_where_a_model_is_and_how_its_node_stands(
    autojump_clock: MockClock,
) -> None:
    nodes = [VirtualNode("gpu1"), VirtualNode("gpu2", is_down=True)]
    async with world(nodes, [entry("a", pinned_on=("gpu1",))]) as fleet:
        await fleet.ask("a")
        await fleet.fleet.drain("gpu1")
        verbs = FleetVerbs(fleet.fleet, Shelf(Catalogue(), Catalogue))
        first, second = verbs.nodes()
        assert (first["draining"], first["models"][0]["pinned"]) == (True, True)
        assert (second["draining"], second["models"]) == (False, [])
        assert list(verbs.models(None)) == list(verbs.models("gpu1")) == first["models"]
        with pytest.raises(NotFound, match="gpu1, gpu2"):
            list(verbs.models("gpu3"))
        with pytest.raises(ModelNotFound, match="with --node: gpu1"):
            verbs.check_not_elsewhere("a")
        verbs.check_not_elsewhere("b")
        nodes[0].die()
        await trio.sleep(3)
        assert (verbs.nodes()[0]["models"], verbs.nodes()[0]["up"]) == ([], False)
        verbs.check_not_elsewhere("a")


async def test_who_waits_for_a_load_is_told_so(autojump_clock: MockClock) -> None:
    async with world([VirtualNode("gpu1")], [entry("a")]) as fleet:
        acquire = fleet.fleet.acquire(fleet.entries["a"])
        await trio.sleep(2)
        assert acquire.progress().phase == "loading"
        await acquire.reply.wait()
        fleet.fleet.leave(acquire, Outcome("cancelled"))


async def test_what_the_fleet_does_is_counted(autojump_clock: MockClock) -> None:
    async with world(
        [VirtualNode("gpu1"), VirtualNode("gpu2", is_down=True)], [entry("a"), entry("b")]
    ) as fleet:
        await fleet.ask("a")
        await fleet.ask("b")
        await trio.sleep(2)
        registry = fleet.fleet._metrics.registry
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in registry.collect()
        for sample in metric.samples
    }
    assert values["helexa_fleet_loads_total", "a", "gpu1", "loaded"] == 1
    assert values["helexa_evictions_total", "a", "gpu1", "room"] == 1
    assert values["helexa_fleet_wait_seconds_count", "b"] == 1
    assert values["helexa_cold_starts_total", "b", "gpu1"] == 1
    assert values["helexa_node_up", "gpu1"] == 1
    assert values["helexa_node_up", "gpu2"] == 0
