"""Where a cold model goes and what must leave for it, planned over a snapshot of the fleet.

The figures are the fleet's; the node that loads has the last word, and what it says is in the next
snapshot.
"""

import math
from collections.abc import Iterable, Sequence

from helexa.fleet.catalogue import CatalogueModel, is_directory
from helexa.fleet.placement import Room
from helexa.fleet.refusal import full, refusal, stays
from helexa.fleet.site import ANY, Offer, Out, Plan, Refusal, Resident, Site, Strategy, name_of
from helexa.fleet.view import NodeView
from helexa.store.source import at_home
from helexa.store.source import name_of as name_of_files

EVICTION_SECONDS = 1.0  # of an idle model


def plan(
    entry: CatalogueModel,
    sites: Sequence[Site],
    now: float,
    strategy: Strategy = "lru",
    avoid: frozenset[str] = frozenset(),
) -> Plan | Refusal:
    """The cheapest offer of any node: rather one that it was not tried on, rather one without a download,
    rather room that is free, than idle models that leave, than busy ones whose turn must end."""
    found = [(site, offer) for site in sites for offer in offers(entry, site, strategy)]
    good = [offer for _, offer in found if isinstance(offer, Offer)]
    if not good:
        return refusal(entry, sites, [(s.node, o) for s, o in found if isinstance(o, Out)])
    best = min(good, key=lambda offer: cost(offer, strategy, avoid))
    return planned(entry, best, now)


def offers(entry: CatalogueModel, site: Site, strategy: Strategy) -> list[Offer | Out]:
    if site.out is not None:
        return [site.out]
    rooms = site.rooms if entry.min_devices == 1 else ()  # of several together the node tells
    return [offer(entry, site, room, strategy) for room in rooms or (ANY,)]


def offer(entry: CatalogueModel, site: Site, room: Room, strategy: Strategy) -> Offer | Out:
    """What one device could do for the model."""
    if never := never_fits(entry, site, room):
        return never
    if site.taken & {room.index, ANY.index} or (room is ANY and site.taken):
        return Out("passing", f"{name_of(room)} is changing")
    if fits(site, room, ()):
        return Offer(site, room)
    if room.index in site.promised:
        return Out("passing", f"{name_of(room)} is promised to a model that has waited longer")
    there = [r for r in site.residents if room is ANY or not r.devices or room.index in r.devices]
    idle = in_order((r for r in there if r.standing == "idle"), strategy)
    busy = sorted((r for r in there if r.standing == "busy"), key=lambda r: (r.free_at, r.model))
    victims = enough(site, room, idle) or enough(site, room, [*idle, *busy])
    if victims:
        return Offer(site, room, victims)
    why = " and ".join([full(site, room), *stays(there)])
    return Out("full", why, error=None if there else site.said)


def never_fits(entry: CatalogueModel, site: Site, room: Room) -> Out | None:
    total, least = room.total_mb, entry.min_device_vram_mb
    if total and total < least:
        return Out("never", f"{name_of(room)} has {total} MB, the model is for {least} MB and more")
    if total and site.required_mb + room.spare_mb > total:
        need = f"the model needs {site.required_mb} MB beside {room.spare_mb} MB that stay free"
        return Out("never", f"{name_of(room)} has {total} MB, {need}")
    return None


def fits(site: Site, room: Room, victims: Sequence[Resident]) -> bool:
    """Whether the model has room once they are gone, as far as anybody can tell.

    Where a figure is missing the node is asked; where it has said no, something must leave.
    """
    if site.is_full and not victims:
        return False
    if not site.required_mb or not room.total_mb:
        return True
    given = sum(victim.mb for victim in victims)
    left = [r for r in site.residents if room.index in r.devices and r not in victims]
    pools = 0 if site.is_full else sum(resident.spare_mb for resident in left)
    return site.required_mb + room.spare_mb <= room.free_mb + given + pools


def enough(site: Site, room: Room, willing: Sequence[Resident]) -> tuple[Resident, ...]:
    """The first of those that may leave that make room, without any that is not needed; () if all of
    them do not."""
    victims: list[Resident] = []
    for resident in willing:
        victims.append(resident)
        if fits(site, room, victims):
            break
    else:
        return ()
    for victim in reversed(victims[:-1]):
        others = [other for other in victims if other is not victim]
        if fits(site, room, others):
            victims = others
    return tuple(victims)


def in_order(residents: Iterable[Resident], strategy: Strategy) -> list[Resident]:
    """Whoever is missed least leaves first."""
    return sorted(residents, key=lambda resident: (worth(resident, strategy), resident.model))


def worth(resident: Resident, strategy: Strategy) -> tuple[float, ...]:
    least = (resident.last_used, resident.reload_seconds)
    return (resident.priority, *least) if strategy == "priority" else least


def cost(offer: Offer, strategy: Strategy, avoid: frozenset[str]) -> tuple[object, ...]:
    """What is compared first counts most."""
    site, victims = offer.site, offer.victims
    return (
        site.node in avoid,
        site.must_fetch,
        2 if offer.busy else 1 if victims else 0,
        offer.free_at,
        max((worth(victim, strategy) for victim in victims), default=()),
        sum(victim.reload_seconds for victim in victims),
        round(
            math.log2(1 + site.load_seconds)
        ),  # twice as long is worth a detour, little more is not
        -offer.room.free_mb,
        site.node,
        offer.room.index,
    )


def planned(entry: CatalogueModel, best: Offer, now: float) -> Plan:
    site, room, victims = best.site, best.room, best.victims
    wait = max(0.0, best.free_at - now) if best.busy else 0.0
    seconds = wait + EVICTION_SECONDS * len(victims) + site.load_seconds
    where = f"node {site.node}" + (f", {name_of(room)}" if room is not ANY else "")
    how = ", ".join(leaving(victim, now) for victim in victims) or "it has room there"
    fetched = ", its files are fetched first" if site.must_fetch else ""
    return Plan(
        entry.id,
        site.node,
        f"{where}: {how}{fetched}; about {seconds:.0f} s",
        None if room is ANY else room.index,
        tuple(victim.model for victim in victims),
        tuple(victim.model for victim in best.busy),
        best.free_at,
        seconds,
    )


def leaving(victim: Resident, now: float) -> str:
    if victim.standing == "busy":
        return f"{victim.model} leaves when its turn ends in {max(0.0, victim.free_at - now):.0f} s"
    return f"{victim.model} leaves, not used for {max(0.0, now - victim.last_used):.0f} s"


# -- what a node could ever do -------------------------------------------------------------------------


def runs_on(entry: CatalogueModel, view: NodeView) -> bool:
    """Whether the node has the model's harness; `candle` is another name for ours."""
    wanted = {"torch", "candle"} if entry.harness != "script" else {"script"}
    return not view.harnesses or bool(wanted & set(view.harnesses))


def spans(entry: CatalogueModel, view: NodeView) -> bool:
    """Whether the node has as many devices for the model as it needs; only neurons use several for one."""
    large = [each for each in view.devices if each.total_mb >= entry.min_device_vram_mb]
    is_enough = not view.devices or len(large) >= entry.min_devices
    return entry.min_devices == 1 or (view.kind == "neuron" and is_enough)


def could_load(entry: CatalogueModel, view: NodeView) -> bool:
    """Whether the node could ever have the model, empty, as far as it and the catalogue tell."""
    if not (view.can_load and runs_on(entry, view) and spans(entry, view)):
        return False
    if entry.min_devices > 1:
        return True
    rooms = [Room(each.index, each.name, each.total_mb, each.total_mb) for each in view.devices]
    site = Site(view.name, required_mb=entry.vram_mb)
    return not rooms or any(never_fits(entry, site, room) is None for room in rooms)


def files_on(entry: CatalogueModel, view: NodeView) -> bool:
    """Whether the node has the model's files, or does not tell."""
    if view.stored is None or is_directory(entry.wanted):
        return True
    if at_home(entry.wanted, view.name) != entry.wanted:
        return True  # it is the node that others fetch them from
    name = name_of_files(entry.wanted)
    return name is None or name in view.stored
