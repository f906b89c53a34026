"""The gateway's list of models: the fleet as it was seen last, and what this host's files say."""

from collections.abc import Mapping, Sequence

from helexa.fleet.catalogue import Catalogue
from helexa.fleet.entry import ModelEntry
from helexa.fleet.feasible import feasible_on
from helexa.fleet.listing import compose
from helexa.fleet.view import NodeView
from helexa.host import described, known_or_none
from helexa.nodes.local import LocalPort


async def fleet_entries(
    catalogue: Catalogue,
    views: Sequence[NodeView],
    told: Mapping[str, ModelEntry],
    local: LocalPort | None,
) -> list[ModelEntry]:
    """This host's own node knows better than its view which models could fit it.

    `told` is what other nodes told last of models that are not loaded now.
    """
    others = [view for view in views if view.up and view.kind != "local"]
    where = dict(feasible_on(catalogue.models, others))
    if local is None:
        return compose(catalogue, views, told, where)
    files = dict(told)
    is_up = any(view.up for view in views if view.kind == "local")
    for entry in catalogue.models:
        known = await known_or_none(local.host.node, entry)
        if known is None:
            continue
        files[entry.id] = described(entry, known, "unloaded", None)
        if is_up and local.host.node.could_fit(known):
            where[entry.id] = (local.name, *where[entry.id])
    return compose(catalogue, views, files, where)
