"""The fleet's list of models: the catalogue and what nodes have beside it, each model told once."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from attrs import evolve, frozen

from helexa.fleet.catalogue import Catalogue, CatalogueModel
from helexa.fleet.entry import Location, ModelEntry, ModelStatus
from helexa.fleet.limits import Limit
from helexa.fleet.view import ModelView, NodeView

BEST_FIRST: tuple[ModelStatus, ...] = (
    "loaded",
    "recovering",
    "loading",
    "unloading",
    "failed",
    "unloaded",
)


@frozen
class Found:
    """A model as one node tells of it."""

    node: str
    view: ModelView


def compose(
    catalogue: Catalogue,
    views: Iterable[NodeView],
    unloaded: Mapping[str, ModelEntry],
    feasible_on: Mapping[str, tuple[str, ...]],
) -> list[ModelEntry]:
    """The catalogue's models in its order, then others that nodes which are up have.

    `unloaded` tells of models that no node has loaded what is known of them all the same: from their
    files on this host, or as a node told of them last.
    """
    found = by_model(views)
    listed = [entry.id for entry in catalogue.models]
    beside = sorted(found.keys() - set(listed))
    return [
        evolve(
            combined(
                entry_of(entry),
                found.get(entry.id, ()),
                unloaded.get(entry.id),
                from_catalogue=True,
            ),
            feasible_on=feasible_on.get(entry.id, ()),
        )
        for entry in catalogue.models
    ] + [combined(ModelEntry(model), found[model], None, from_catalogue=False) for model in beside]


def by_model(views: Iterable[NodeView]) -> Mapping[str, Sequence[Found]]:
    found: dict[str, list[Found]] = defaultdict(list)
    for view in views:
        if view.up:
            for model in view.models:
                found[model.entry.id].append(Found(view.name, model))
    return found


def entry_of(entry: CatalogueModel) -> ModelEntry:
    """All that the catalogue tells of a model."""
    return ModelEntry(
        entry.id,
        harness=entry.harness,
        capabilities=entry.capabilities,
        cost=entry.cost,
        aliases=entry.aliases,
    )


def combined(
    base: ModelEntry, found: Sequence[Found], files: ModelEntry | None, *, from_catalogue: bool
) -> ModelEntry:
    """One model over all nodes: the tightest limit, and what any of them can do.

    A limit of a node that has it loaded counts before one of a node that only could.
    """
    told = [each.view.entry for each in found]
    loaded = [entry for entry in told if entry.loaded]
    sources = loaded or told or ([files] if files else [])
    limits = [entry for entry in sources if entry.limit] or ([files] if files else [])
    capabilities = dict.fromkeys(base.capabilities if from_catalogue else ())
    for entry in sources:
        capabilities |= dict.fromkeys(entry.capabilities)
    return evolve(
        base,
        harness=base.harness if from_catalogue else told[0].harness,
        status=best(entry.status for entry in told),
        limit=tightest(entry.limit for entry in limits),
        limit_estimated=bool(limits) and not loaded,
        tool_call=any(entry.tool_call for entry in sources),
        reasoning=any(entry.reasoning for entry in sources),
        capabilities=tuple(capabilities) or ("text",),
        cost=base.cost or next((entry.cost for entry in told if entry.cost), None),
        created=max((entry.created for entry in sources), default=0),
        locations=tuple(Location(each.node, each.view.entry.status) for each in found),
    )


def best(statuses: Iterable[ModelStatus]) -> ModelStatus:
    return min(statuses, key=BEST_FIRST.index, default="unloaded")


def tightest(limits: Iterable[Limit | None]) -> Limit | None:
    """Of those that are known, the one with the least room for a prompt."""
    known = [limit for limit in limits if limit is not None]
    return min(known, key=lambda limit: (limit.input, limit.context), default=None)
