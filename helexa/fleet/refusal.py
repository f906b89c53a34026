"""Why a model cannot be loaded anywhere now, node by node, as the error for whoever asked."""

from collections.abc import Iterable, Sequence

from helexa.errors import InsufficientVram, ModelNotFound, ServiceUnavailable
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.placement import Room
from helexa.fleet.site import Out, Refusal, Resident, Site, name_of

MOST_TOLD = 8  # nodes that an error tells of


def full(site: Site, room: Room) -> str:
    if site.is_full or not room.total_mb:
        return f"{name_of(room)} has no room, as the node itself says"
    need = f"of {site.required_mb + room.spare_mb} MB that are needed"
    return f"{name_of(room)} has {room.free_mb} MB free {need}"


def stays(residents: Iterable[Resident]) -> list[str]:
    return [f"{resident.model} {resident.why}" for resident in residents if resident.why]


def refusal(
    entry: CatalogueModel, sites: Sequence[Site], outs: Sequence[tuple[str, Out]]
) -> Refusal:
    """Why there is no plan, by what is nearest to one."""
    kinds = {out.kind for _, out in outs}
    told = f"model {entry.id}: {told_of(outs)}"
    if "passing" in kinds:
        return Refusal(ServiceUnavailable(told, retry_after=5), passing=True)
    if len(outs) == 1 and (said := outs[0][1].error):  # nobody can say it better than the node
        return Refusal(said.again(outs[0][1].retry_after if said.status == 503 else None))
    if "failed" in kinds:
        rest = min(out.retry_after for _, out in outs if out.kind == "failed")
        return Refusal(ServiceUnavailable(told, retry_after=max(1.0, rest)))
    if "full" in kinds:
        return Refusal(no_room(entry, sites, told))
    if "down" in kinds or not outs:
        every = kinds <= {"down"}
        words = "no node of this fleet is healthy" if every else "no healthy node can load it"
        if len(sites) == 1:  # it may be the one that an operator named, of many
            words = told
        elif outs:
            words = f"{words}: {told}"
        return Refusal(ServiceUnavailable(words, retry_after=5))
    if "files" in kinds:
        if not entry.can_be_fetched:
            return Refusal(ServiceUnavailable(f"{told}. Give its entry a source."))
        node = next(node for node, out in outs if out.kind == "files")
        command = f"`helexa-ctl load {entry.id} --node {node}` fetches them"
        return Refusal(ServiceUnavailable(f"{told}. {command}.", retry_after=60))
    return Refusal(ModelNotFound(f"{told}. It fits no node of this fleet.", param="model"))


def no_room(entry: CatalogueModel, sites: Sequence[Site], told: str) -> InsufficientVram:
    rooms = [room for site in sites if site.out is None for room in site.rooms]
    return InsufficientVram(
        told,
        retry_after=5,
        required_mb=max((site.required_mb for site in sites if site.out is None), default=0),
        free_mb=max((room.free_mb for room in rooms), default=0),
    )


def told_of(outs: Sequence[tuple[str, Out]]) -> str:
    """Each node with its reasons, the first few of them."""
    reasons: dict[str, list[str]] = {}
    for node, out in outs:
        reasons.setdefault(node, []).append(out.why)
    words = [f"{node}: {', '.join(whys)}" for node, whys in reasons.items()]
    more = len(words) - MOST_TOLD
    return "; ".join(words[:MOST_TOLD]) + (f"; and {more} more" if more > 0 else "")
