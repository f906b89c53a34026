"""Where a cold model goes: rather where there is room, then where idle models leave, then by turns."""

from collections.abc import Sequence

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from helexa.errors import InsufficientVram, ModelNotFound, ServiceUnavailable
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.placement import Room
from helexa.fleet.planning import could_load, files_on, fits, plan
from helexa.fleet.site import Out, Plan, Refusal, Resident, Site, Standing
from helexa.fleet.view import DeviceView, NodeView
from helexa.store.source import name_of

NOW = 1000.0
WANTED = CatalogueModel("wanted", source="hf:org/wanted")


def card(free_mb: int, index: int = 0, total_mb: int = 24_000) -> Room:
    return Room(index, "card", total_mb, free_mb)


def resident(model: str, mb: int, standing: Standing = "idle", **more: object) -> Resident:
    return Resident(model, (0,), mb, standing=standing, **more)  # type: ignore[arg-type]


def site(node: str, free_mb: int, *residents: Resident, need_mb: int = 8000) -> Site:
    return Site(node, (card(free_mb),), residents, need_mb, load_seconds=10)


def planned(*sites: Site, strategy: str = "lru", **more: object) -> Plan:
    found = plan(WANTED, sites, NOW, strategy, **more)  # type: ignore[arg-type]
    assert isinstance(found, Plan), found
    return found


def refused(*sites: Site, entry: CatalogueModel = WANTED) -> Refusal:
    found = plan(entry, sites, NOW)
    assert isinstance(found, Refusal), found
    return found


# -- where -------------------------------------------------------------------------------------------


def test_room_that_is_free_is_rather_taken_than_made() -> None:
    found = planned(site("a", 2000, resident("old", 20_000)), site("b", 20_000))
    assert (found.node, found.evict) == ("b", ())


def test_of_nodes_with_room_the_one_with_the_most_is_taken() -> None:
    assert planned(site("a", 12_000), site("b", 20_000), site("c", 16_000)).node == "b"


def test_a_node_that_loads_twice_as_fast_is_worth_less_room() -> None:
    slow, fast = site("a", 20_000), evolve(site("b", 16_000), load_seconds=4.0)
    assert planned(slow, fast).node == "b"


def test_a_node_that_must_fetch_the_files_comes_last() -> None:
    fetching = evolve(site("a", 20_000), must_fetch=True)
    having = site("b", 2000, resident("old", 20_000))
    assert planned(fetching, having).node == "b"
    assert "fetched first" in planned(fetching).why


def test_a_node_that_was_tried_comes_last() -> None:
    found = planned(
        site("a", 20_000), site("b", 2000, resident("old", 20_000)), avoid=frozenset("a")
    )
    assert found.node == "b"


def test_idle_models_leave_rather_than_busy_ones() -> None:
    busy = site("a", 2000, resident("used", 20_000, "busy", free_at=NOW + 1))
    idle = site("b", 2000, resident("old", 20_000))
    assert planned(busy, idle).node == "b"


def test_among_busy_models_the_one_whose_turn_ends_first_leaves() -> None:
    late = site("a", 2000, resident("late", 20_000, "busy", free_at=NOW + 9))
    soon = site("b", 2000, resident("soon", 20_000, "busy", free_at=NOW + 5))
    found = planned(late, soon)
    assert (found.node, found.busy, found.free_at) == ("b", ("soon",), NOW + 5)
    assert found.expected_seconds == 5 + 1 + 10


# -- who leaves --------------------------------------------------------------------------------------

TWO = (
    resident("old", 10_000, last_used=100, priority=5, reload_seconds=9),
    resident("new", 10_000, last_used=900, priority=1, reload_seconds=9),
)


@pytest.mark.parametrize(("strategy", "victim"), [("lru", "old"), ("priority", "new")])
def test_who_is_missed_least_leaves(strategy: str, victim: str) -> None:
    assert planned(site("a", 2000, *TWO), strategy=strategy).evict == (victim,)


def test_of_two_that_rested_alike_the_one_that_loads_faster_leaves() -> None:
    slow, fast = (evolve(each, last_used=100.0) for each in TWO)
    assert planned(site("a", 2000, slow, evolve(fast, reload_seconds=2))).evict == ("new",)


def test_across_nodes_the_least_recently_used_leaves() -> None:
    found = planned(site("a", 2000, TWO[1]), site("b", 2000, TWO[0]))
    assert (found.node, found.evict) == ("b", ("old",))


def test_nobody_leaves_who_is_not_in_the_way() -> None:
    tiny = resident("tiny", 500, last_used=1)
    assert planned(site("a", 2000, tiny, *TWO)).evict == ("old",)


def test_as_many_leave_as_must() -> None:
    four = [resident(f"m{n}", 4000, last_used=n) for n in range(4)]
    assert planned(site("a", 2000, *four)).evict == ("m0", "m1", "m2")


def test_kv_pools_that_can_give_room_spare_their_models() -> None:
    roomy = resident("pool", 20_000, spare_mb=15_000)
    assert planned(site("a", 2000, roomy)).evict == ()


def test_where_the_node_said_no_something_leaves_whatever_the_figures_say() -> None:
    roomy = resident("pool", 20_000, spare_mb=15_000)
    said = evolve(site("a", 2000, roomy), said=InsufficientVram("no room"))
    assert planned(said).evict == ("pool",)


def test_where_nobody_knows_what_is_needed_the_node_is_asked() -> None:
    assert planned(site("a", 0, resident("old", 24_000), need_mb=0)).evict == ()


def test_a_node_that_tells_of_no_devices_is_asked_too() -> None:
    blind = Site("a", (), (Resident("old", last_used=5),), 8000)
    found = planned(blind)
    assert (found.device, found.evict) == (None, ())
    assert planned(evolve(blind, said=InsufficientVram("no room"))).evict == ("old",)


@pytest.mark.parametrize("why", ["is pinned", "is loading"])
def test_who_is_fixed_never_leaves(why: str) -> None:
    fixed = resident("stays", 20_000, "fixed", why=why)
    error = refused(site("a", 2000, fixed)).error
    assert isinstance(error, InsufficientVram)
    assert error.retry_after == 5
    assert error.details == {"required_mb": 8000, "free_mb": 2000}
    assert f"stays {why}" in error.message


def test_the_device_that_has_room_is_named() -> None:
    two = Site("a", (card(1000), card(20_000, 1)), (), 8000)
    assert planned(two).device == 1


def test_only_models_of_the_same_device_leave() -> None:
    other = Resident("other", (1,), 20_000, last_used=1)
    here = resident("here", 20_000, last_used=900)
    two = Site("a", (card(2000), card(2000, 1, total_mb=9000)), (other, here), 12_000)
    found = planned(two)
    assert (found.device, found.evict) == (0, ("here",))


# -- what is under way -------------------------------------------------------------------------------


def test_a_device_that_changes_is_waited_for() -> None:
    changing = evolve(site("a", 20_000), taken=frozenset({0}))
    assert refused(changing).passing
    assert planned(changing, site("b", 20_000)).node == "b"


def test_what_is_promised_to_somebody_else_may_be_filled_but_not_emptied() -> None:
    promised = frozenset({0})
    assert refused(evolve(site("a", 2000, TWO[0]), promised=promised)).passing
    assert planned(evolve(site("a", 20_000), promised=promised)).evict == ()


# -- nothing -----------------------------------------------------------------------------------------


def out(kind: str, why: str, **more: object) -> Site:
    return Site("a", out=Out(kind, why, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sites", "error", "retry_after", "words"),
    [
        ([], ServiceUnavailable, 5, "no node of this fleet is healthy"),
        ([out("down", "is down")], ServiceUnavailable, 5, "model wanted: a: is down"),
        ([out("down", "is down")] * 2, ServiceUnavailable, 5, "no node of this fleet is healthy"),
        ([out("failed", "torn", retry_after=17.0)], ServiceUnavailable, 17, "torn"),
        ([out("files", "lacks them")], ServiceUnavailable, 60, "helexa-ctl load wanted --node a"),
        ([out("never", "is too small")], ModelNotFound, None, "fits no node"),
        ([site("a", 0, need_mb=23_000)], ModelNotFound, None, "fits no node"),
        ([site("a", 0), out("never", "x")], InsufficientVram, 5, "0 MB free"),
        ([out("never", "x"), out("down", "y")], ServiceUnavailable, 5, "no healthy node can"),
    ],
    ids=[
        "none",
        "down",
        "all down",
        "failed",
        "files",
        "never",
        "too large",
        "full",
        "never and down",
    ],
)
def test_where_there_is_no_plan_the_error_says_why_node_by_node(
    sites: list[Site], error: type[Exception], retry_after: float | None, words: str
) -> None:
    found = refused(*sites)
    assert type(found.error) is error
    assert found.error.retry_after == retry_after
    assert words in found.error.message
    assert not found.passing


def test_the_only_node_speaks_for_itself() -> None:
    said = ServiceUnavailable("the files are torn", retry_after=60)
    found = refused(out("failed", "could not load it", retry_after=7.0, error=said))
    assert found.error.message == "the files are torn"
    assert found.error.retry_after == 7


def test_files_without_a_source_cannot_be_fetched() -> None:
    error = refused(out("files", "lacks them"), entry=CatalogueModel("own-name")).error
    assert error.message == "model own-name: a: lacks them. Give its entry a source."
    assert error.retry_after is None


def test_a_model_that_its_only_node_does_not_know_is_not_to_be_asked_for_again() -> None:
    said = ModelNotFound("there is no such model", param="model")
    error = refused(out("failed", "could not load it", retry_after=7.0, error=said)).error
    assert (type(error), error.retry_after) == (ModelNotFound, None)


def test_an_error_names_a_few_of_many_nodes() -> None:
    many = [Site(f"node{number}", out=Out("never", "is small")) for number in range(50)]
    message = refused(*many).error.message
    assert "node7: is small" in message
    assert "node8" not in message
    assert "and 42 more" in message


def test_a_model_for_large_devices_goes_to_no_small_one() -> None:
    large = CatalogueModel("wanted", min_device_vram_mb=48_000)
    error = refused(site("a", 24_000), entry=large).error
    assert isinstance(error, ModelNotFound)
    assert "48000 MB and more" in error.message


# -- laws --------------------------------------------------------------------------------------------

standings: st.SearchStrategy[Standing] = st.sampled_from(["idle", "busy", "fixed"])
residents = st.lists(
    st.builds(
        Resident,
        st.uuids().map(str),
        st.just((0,)),
        st.integers(0, 12_000),
        st.just(0),
        standings,
        free_at=st.floats(NOW, NOW + 60),
        last_used=st.floats(0, NOW),
        priority=st.integers(-2, 2),
        reload_seconds=st.floats(0, 60),
    ),
    max_size=5,
).map(tuple)
sites = st.lists(
    st.builds(
        Site,
        st.uuids().map(str),
        st.integers(0, 24_000).map(lambda free: (card(free),)),
        residents,
        st.integers(1, 24_000),
    ),
    max_size=4,
)
strategies = st.sampled_from(["lru", "priority"])


@given(sites, strategies)
def test_a_plan_makes_room_and_evicts_nobody_who_stays_or_is_not_needed(
    sites: Sequence[Site], strategy: str
) -> None:
    found = plan(WANTED, sites, NOW, strategy)  # type: ignore[arg-type]
    if isinstance(found, Refusal):
        return
    (where,) = (each for each in sites if each.node == found.node)
    victims = [each for each in where.residents if each.model in found.evict]
    assert fits(where, where.rooms[0], victims)
    assert all(victim.standing != "fixed" for victim in victims)
    assert {v.model for v in victims if v.standing == "busy"} == set(found.busy)
    for victim in victims:
        assert not fits(where, where.rooms[0], [each for each in victims if each is not victim])


@given(sites)
def test_there_is_a_plan_wherever_one_exists(sites: Sequence[Site]) -> None:
    found = plan(WANTED, sites, NOW)
    possible = any(
        each.required_mb + each.rooms[0].spare_mb <= each.rooms[0].total_mb
        and fits(each, each.rooms[0], [r for r in each.residents if r.standing != "fixed"])
        for each in sites
    )
    assert isinstance(found, Plan) == possible


@given(sites)
def test_nobody_waits_for_a_turn_while_idle_models_would_do(sites: Sequence[Site]) -> None:
    found = plan(WANTED, sites, NOW)
    if isinstance(found, Plan) and found.busy:
        for each in sites:
            idle = [r for r in each.residents if r.standing == "idle"]
            is_possible = each.required_mb + each.rooms[0].spare_mb <= each.rooms[0].total_mb
            assert not (is_possible and fits(each, each.rooms[0], idle))


def test_of_several_devices_together_the_node_itself_is_asked() -> None:
    split, there = evolve(WANTED, min_devices=2), site("a", 2000, resident("old", 9000))
    found = plan(split, [there], NOW)
    assert isinstance(found, Plan)
    assert (found.device, found.evict) == (None, ())
    found = plan(split, [evolve(there, said=InsufficientVram("full"))], NOW)
    assert isinstance(found, Plan)
    assert found.evict == ("old",)


# -- what a node could ever do -----------------------------------------------------------------------

VIEW = NodeView("a", "helexa", devices=(DeviceView(0, "card", 24_000),), harnesses=("torch",))
PAIR = (DeviceView(0, "card", 24_000), DeviceView(1, "card", 24_000))
SPLIT = CatalogueModel("m", vram_mb=40_000, min_devices=2, min_device_vram_mb=20_000)


@pytest.mark.parametrize(
    ("entry", "view", "expected"),
    [
        (CatalogueModel("m", vram_mb=8000), VIEW, True),
        (CatalogueModel("m", vram_mb=23_000), VIEW, False),
        (CatalogueModel("m", min_device_vram_mb=48_000), VIEW, False),
        (CatalogueModel("m", harness="script"), VIEW, False),
        (CatalogueModel("m", harness="candle"), VIEW, True),
        (CatalogueModel("m"), evolve(VIEW, harnesses=("candle",)), True),
        (CatalogueModel("m"), evolve(VIEW, devices=()), True),
        (CatalogueModel("m"), evolve(VIEW, can_load=False), False),
        (SPLIT, VIEW, False),
        (SPLIT, evolve(VIEW, kind="neuron"), False),
        (SPLIT, evolve(VIEW, kind="neuron", devices=PAIR), True),
        (SPLIT, evolve(VIEW, kind="neuron", devices=()), True),
        (SPLIT, evolve(VIEW, devices=PAIR), False),
        (
            evolve(SPLIT, min_device_vram_mb=25_000),
            evolve(VIEW, kind="neuron", devices=PAIR),
            False,
        ),
    ],
)
def test_what_a_node_could_have(entry: CatalogueModel, view: NodeView, expected: bool) -> None:
    assert could_load(entry, view) is expected


def test_files_are_looked_for_where_a_node_tells_of_its_own() -> None:
    assert files_on(WANTED, VIEW)
    there = evolve(WANTED, source=f"node:{VIEW.name}/org/wanted")
    assert files_on(there, evolve(VIEW, stored=frozenset()))
    assert not files_on(there, evolve(VIEW, name="another", stored=frozenset()))
    assert not files_on(WANTED, evolve(VIEW, stored=frozenset()))
    assert files_on(WANTED, evolve(VIEW, stored=frozenset({name_of("hf:org/wanted") or ""})))
