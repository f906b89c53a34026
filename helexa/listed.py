"""The gateway's list of models: the fleet as it was seen last, and what this host's files say."""

from collections.abc import Sequence

from helexa.fleet.catalogue import Catalogue
from helexa.fleet.entry import ModelEntry
from helexa.fleet.listing import compose
from helexa.fleet.planning import feasible
from helexa.fleet.view import NodeView
from helexa.host import described, known_or_none
from helexa.nodes.local import LocalPort


async def fleet_entries(
    catalogue: Catalogue, views: Sequence[NodeView], local: LocalPort | None
) -> list[ModelEntry]:
    files: dict[str, ModelEntry] = {}
    where: dict[str, tuple[str, ...]] = {}
    for entry in catalogue.models:
        known = await known_or_none(local.host.node, entry) if local else None
        if known is not None:
            files[entry.id] = described(entry, known, "unloaded", None)
        fits_here = local is not None and known is not None and local.host.node.could_fit(known)
        where[entry.id] = tuple(
            view.name
            for view in views
            if view.up and (fits_here if view.kind == "local" else feasible(entry, view))
        )
    return compose(catalogue, views, files, where)
