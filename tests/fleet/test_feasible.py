"""Which nodes could have which models: told of many at once as of each alone."""

from hypothesis import given
from hypothesis import strategies as st

from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.entry import ModelEntry
from helexa.fleet.feasible import feasible_on
from helexa.fleet.planning import could_load
from helexa.fleet.view import DeviceView, ModelView, NodeView

NAMES = ("a", "b", "c")

views = st.lists(
    st.builds(
        lambda can_load, harnesses, sizes, models: (can_load, harnesses, sizes, models),
        st.booleans(),
        st.sampled_from(((), ("torch",), ("script",), ("torch", "script"))),
        st.lists(st.sampled_from((0, 8_000, 24_000)), max_size=2),
        st.sets(st.sampled_from(NAMES)),
    ),
    max_size=8,
).map(lambda made: [view_of(f"n{index}", *each) for index, each in enumerate(made)])
entries = st.lists(
    st.builds(
        CatalogueModel,
        st.sampled_from(NAMES),
        harness=st.sampled_from(("torch", "candle", "script")),
        vram_mb=st.sampled_from((0, 4_000, 20_000)),
        min_device_vram_mb=st.sampled_from((0, 16_000)),
    ),
    unique_by=lambda entry: entry.id,
)


def view_of(
    name: str, can_load: bool, harnesses: tuple[str, ...], sizes: list[int], models: set[str]
) -> NodeView:
    return NodeView(
        name,
        "helexa",
        devices=tuple(DeviceView(index, f"card {name}", mb) for index, mb in enumerate(sizes)),
        models=tuple(ModelView(ModelEntry(model)) for model in sorted(models)),
        harnesses=harnesses,
        can_load=can_load,
    )


@given(entries, views)
def test_nodes_that_are_alike_are_judged_alike(
    entries: list[CatalogueModel], views: list[NodeView]
) -> None:
    assert feasible_on(entries, views) == {
        entry.id: tuple(
            view.name
            for view in views
            if view.model(entry.id) is not None or could_load(entry, view)
        )
        for entry in entries
    }


def test_each_kind_of_node_is_judged_once_for_a_model() -> None:
    """A list of 500 models over 1 000 nodes is asked for again and again."""
    fleet = [view_of(f"n{i}", True, ("torch",), [24_000], {"a"}) for i in range(1000)]
    names = feasible_on([CatalogueModel(f"m{i}") for i in range(500)], fleet)
    assert len({id(each) for each in names.values()}) == 1
    assert names["m0"] == tuple(view.name for view in fleet)
