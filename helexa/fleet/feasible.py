"""Which nodes could ever have each model, over a whole fleet: nodes that are alike are judged once."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.planning import could_load
from helexa.fleet.view import NodeKind, NodeView

# All of a node that the question depends on: its kind, whether it loads, its harnesses, its devices' sizes.
Make = tuple[NodeKind, bool, tuple[str, ...], tuple[int, ...]]


def make_of(view: NodeView) -> Make:
    sizes = tuple(device.total_mb for device in view.devices)
    return view.kind, view.can_load, view.harnesses, sizes


def feasible_on(
    entries: Iterable[CatalogueModel], views: Sequence[NodeView]
) -> Mapping[str, tuple[str, ...]]:
    """By the model's id the names of the nodes, in their order, that have it or could."""
    makes = {view.name: make_of(view) for view in views}
    samples = {makes[view.name]: view for view in views}
    having = names_having(views)
    names: dict[frozenset[Make], tuple[str, ...]] = {}
    found = {}
    for entry in entries:
        able = frozenset(make for make, view in samples.items() if could_load(entry, view))
        if able not in names:
            names[able] = tuple(name for name, make in makes.items() if make in able)
        found[entry.id] = names[able]
        if any(makes[name] not in able for name in having[entry.id]):
            has = having[entry.id]
            found[entry.id] = tuple(n for n, make in makes.items() if make in able or n in has)
    return found


def names_having(views: Iterable[NodeView]) -> Mapping[str, set[str]]:
    """The nodes that tell of each model."""
    having: dict[str, set[str]] = defaultdict(set)
    for view in views:
        for model in view.models:
            having[model.entry.id].add(view.name)
    return having
