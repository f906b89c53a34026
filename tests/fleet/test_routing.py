"""Which node answers: sessions stay where their prompts are kept, and nobody waits long for that."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.errors import ServiceUnavailable
from helexa.fleet.affinity import preferred
from helexa.fleet.routing import (
    AFFINITY_PATIENCE,
    NoOther,
    Option,
    expected_wait,
    route,
    usual_seconds,
)

names = st.sampled_from([f"node{number}" for number in range(8)])
options = st.builds(
    Option,
    names,
    st.just("loaded"),
    st.integers(0, 40),
    st.integers(1, 16),
    st.one_of(st.none(), st.floats(0.01, 60)),
)
fleets = st.lists(options, min_size=1, max_size=8, unique_by=lambda option: option.node)
sessions = st.text(max_size=5)


@pytest.mark.parametrize(
    ("found", "node"),
    [
        ([Option("a", busy=3), Option("b", busy=1)], "b"),
        ([Option("a", busy=3, width=8), Option("b", busy=1, width=1)], "a"),
        ([Option("a", service_seconds=9), Option("b", busy=1, service_seconds=1)], "b"),
        ([Option("a", is_open=False), Option("b", busy=99)], "b"),
        ([Option("a", "loading"), Option("b", "recovering"), Option("c", busy=7)], "c"),
        ([Option("b"), Option("a")], "a"),
    ],
    ids=["less busy", "wider", "faster", "open", "loaded", "by name where all is the same"],
)
def test_the_node_with_the_least_expected_wait_answers(found: list[Option], node: str) -> None:
    chosen = route("m", found)
    assert chosen is not None
    assert chosen.node == node


def test_nodes_that_were_tried_are_avoided() -> None:
    chosen = route("m", [Option("a"), Option("b", busy=50)], avoid=frozenset({"a"}))
    assert chosen is not None
    assert chosen.node == "b"


def test_where_only_nodes_to_avoid_have_the_model_there_is_no_other() -> None:
    with pytest.raises(NoOther):
        route("m", [Option("a")], avoid=frozenset({"a"}))


def test_a_model_that_recovers_and_is_nowhere_else_is_back_in_two_seconds() -> None:
    with pytest.raises(ServiceUnavailable) as refused:
        route("m", [Option("a", "recovering")])
    assert refused.value.retry_after == 2


@pytest.mark.parametrize("status", ["loaded", "loading"])
def test_a_model_that_recovers_on_one_node_is_waited_for_on_another(status: str) -> None:
    elsewhere = Option("b", status, is_open=False)  # type: ignore[arg-type]
    assert route("m", [Option("a", "recovering"), elsewhere]) is None


@pytest.mark.parametrize(
    "found",
    [[], [Option("a", "loading")], [Option("a", "unloading")], [Option("a", is_open=False)]],
)
def test_a_model_that_no_open_node_has_loaded_is_cold(found: list[Option]) -> None:
    assert route("m", found) is None


@given(fleets, sessions)
def test_who_answers_has_the_model_and_is_open(found: list[Option], session: str) -> None:
    chosen = route("m", found, session)
    assert chosen is not None
    assert chosen.node in {option.node for option in found}
    assert chosen.why.startswith(f"node {chosen.node}: ")


@given(fleets, sessions)
def test_affinity_makes_nobody_wait_longer_than_its_bound(
    found: list[Option], session: str
) -> None:
    chosen = route("m", found, session)
    assert chosen is not None
    usual = usual_seconds(found)
    waits = {option.node: expected_wait(option, usual) for option in found}
    (own,) = (option for option in found if option.node == chosen.node)
    bound = min(waits.values()) + AFFINITY_PATIENCE * (own.service_seconds or usual)
    assert waits[chosen.node] <= bound or len(found) == 1


@given(st.sets(names, min_size=2), st.text(min_size=1, max_size=5))
def test_a_session_stays_where_it_is_when_another_node_goes(nodes: set[str], session: str) -> None:
    first, *others = preferred(session, nodes)
    for gone in others:
        assert preferred(session, nodes - {gone})[0] == first


def test_sessions_are_spread_over_the_nodes() -> None:
    nodes = [f"node{number}" for number in range(4)]
    counts = dict.fromkeys(nodes, 0)
    for session in range(1000):
        counts[preferred(f"session {session}", nodes)[0]] += 1
    assert all(200 < count < 300 for count in counts.values())


def test_a_session_goes_to_its_own_node_while_that_is_not_too_busy() -> None:
    own, other = preferred("me", ["a", "b"])
    for busy, expected in ((0, own), (4, own), (5, other)):
        chosen = route("m", [Option(own, busy=busy, width=8), Option(other, width=8)], "me")
        assert chosen is not None
        assert chosen.node == expected, busy
