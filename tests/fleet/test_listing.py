"""The fleet's list of models, composed of what nodes tell."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.fleet.catalogue import Catalogue, CatalogueModel, Cost
from helexa.fleet.entry import ModelEntry, ModelStatus
from helexa.fleet.limits import Limit
from helexa.fleet.listing import BEST_FIRST, best, compose, tightest
from helexa.fleet.view import ModelView, NodeView

QWEN = CatalogueModel("qwen", aliases=("coder",), cost=Cost(1, 2), capabilities=("text",))
CATALOGUE = Catalogue((QWEN, CatalogueModel("llama")))
WIDE, TIGHT = Limit(40_000, 32_000, 8_000), Limit(20_000, 12_000, 8_000)


def told(model: str, status: ModelStatus = "loaded", **fields: object) -> ModelView:
    return ModelView(ModelEntry(model, status=status, **fields))  # type: ignore[arg-type]


def node(name: str, *models: ModelView, up: bool = True) -> NodeView:
    return NodeView(name, "helexa", up=up, models=models)


def listed(*views: NodeView, files: dict[str, ModelEntry] | None = None) -> dict[str, ModelEntry]:
    return {entry.id: entry for entry in compose(CATALOGUE, views, files or {}, {})}


def test_the_catalogue_comes_first_and_what_is_loaded_beside_it_after() -> None:
    assert list(listed(node("a", told("zeta"), told("extra"), told("llama")))) == [
        "qwen",
        "llama",
        "extra",
        "zeta",
    ]


def test_of_several_nodes_the_tightest_limit_counts() -> None:
    entry = listed(node("a", told("qwen", limit=WIDE)), node("b", told("qwen", limit=TIGHT)))[
        "qwen"
    ]
    assert (entry.limit, entry.limit_estimated) == (TIGHT, False)
    assert [place.node for place in entry.locations] == ["a", "b"]


def test_a_node_that_has_it_loaded_counts_before_one_that_has_not() -> None:
    failed = told("qwen", "failed", limit=TIGHT)
    entry = listed(node("a", told("qwen", limit=WIDE)), node("b", failed))["qwen"]
    assert (entry.status, entry.limit, entry.limit_estimated) == ("loaded", WIDE, False)


def test_what_files_say_is_an_estimate_until_a_node_loads_the_model() -> None:
    files = {"qwen": ModelEntry("qwen", limit=TIGHT, tool_call=True)}
    cold = listed(node("a"), files=files)["qwen"]
    assert (cold.status, cold.limit, cold.limit_estimated, cold.tool_call) == (
        "unloaded",
        TIGHT,
        True,
        True,
    )
    loading = listed(node("a", told("qwen", "loading")), files=files)["qwen"]
    assert (loading.status, loading.limit, loading.limit_estimated) == ("loading", TIGHT, True)
    warm = listed(node("a", told("qwen", limit=WIDE)), files=files)["qwen"]
    assert (warm.limit, warm.limit_estimated) == (WIDE, False)


def test_what_any_node_can_do_is_told_and_prices_are_the_catalogues() -> None:
    vision = told("qwen", capabilities=("text", "vision"), cost=Cost(9, 9))
    entry = listed(node("a", told("qwen", reasoning=True)), node("b", vision))["qwen"]
    assert (entry.capabilities, entry.reasoning, entry.tool_call) == (
        ("text", "vision"),
        True,
        False,
    )
    assert (entry.cost, entry.aliases) == (Cost(1, 2), ("coder",))


def test_nodes_that_are_down_have_nothing() -> None:
    entry = listed(node("a", told("qwen", limit=WIDE), told("extra"), up=False))
    assert list(entry) == ["qwen", "llama"]
    assert (entry["qwen"].status, entry["qwen"].locations) == ("unloaded", ())


def test_feasible_nodes_are_told_by_name() -> None:
    (qwen, llama) = compose(CATALOGUE, [node("a")], {}, {"qwen": ("a",)})
    assert (qwen.feasible_on, llama.feasible_on) == (("a",), ())


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ((), "unloaded"),
        (("failed", "loading"), "loading"),
        (("loading", "loaded"), "loaded"),
        (("unloading", "recovering"), "recovering"),
    ],
)
def test_the_best_status_is_told(statuses: tuple[ModelStatus, ...], expected: ModelStatus) -> None:
    assert best(statuses) == expected


limits = st.builds(lambda i, o: Limit(i + o, i, o), st.integers(0, 9), st.integers(0, 9))


@given(st.lists(st.none() | limits))
def test_the_tightest_limit_is_one_of_those_known_and_none_has_less_room(
    found: list[Limit | None],
) -> None:
    known = [limit for limit in found if limit is not None]
    least = tightest(found)
    assert (least is None) == (not known)
    assert least is None or (least in known and all(least.input <= each.input for each in known))


@given(
    st.lists(
        st.tuples(st.sampled_from(["qwen", "extra"]), st.sampled_from(BEST_FIRST), st.booleans())
    )
)
def test_every_model_is_told_once_and_every_location_is_a_node_that_is_up(
    nodes: list[tuple[str, ModelStatus, bool]],
) -> None:
    views = [node(str(i), told(m, s), up=up) for i, (m, s, up) in enumerate(nodes)]
    entries = compose(CATALOGUE, views, {}, {})
    assert len({entry.id for entry in entries}) == len(entries)
    up = {view.name for view in views if view.up}
    assert {place.node for entry in entries for place in entry.locations} == up
