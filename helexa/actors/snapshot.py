"""The fleet as its pure rooms look at it: nodes as options for a request, and as sites for a model."""

from collections.abc import Callable

from attrs import frozen

from helexa.actors.members import Member
from helexa.fleet import breaker
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.entry import ModelStatus
from helexa.fleet.placement import Room
from helexa.fleet.planning import files_on, runs_on, spans
from helexa.fleet.rotation import protected_until, rests_until
from helexa.fleet.routing import Option
from helexa.fleet.site import ANY, Out, Resident, Site, Standing
from helexa.fleet.view import ModelView

MB_PER_SECOND = 1000.0  # that a load reads, where none was measured
START_SECONDS = 2.0  # that it takes beside


def option_of(member: Member, model: str, now: float, is_open: bool) -> Option:
    """`is_open`: besides what the node itself allows."""
    view = member.view.model(model)
    status: ModelStatus = view.entry.status if view else "unloaded"
    if model in member.changing:
        status = "unloading" if status == "loaded" else "loading"
    learned = member.learned.get(model)
    return Option(
        member.name,
        status,
        member.busy(model),
        member.width(model),
        (view.service_seconds if view else None) or (learned.service_seconds if learned else None),
        is_open and member.is_open(now),
    )


@frozen(eq=False)
class Waiter:
    """The model that wants a place, as far as those in its way are concerned.

    `is_pinned`, `is_held` and `num_due` tell of a model on a node: whether it stays, whether its new
    requests wait already, and how many of those that wait are still served before it leaves.
    """

    entry: CatalogueModel
    since: float
    turn_seconds: float
    catalogued: Callable[[str], CatalogueModel | None]
    is_pinned: Callable[[str, str], bool]
    is_held: Callable[[str, str], bool]
    num_due: Callable[[str], int]


def site_of(
    member: Member,
    waiter: Waiter,
    now: float,
    taken: frozenset[int],
    promised: frozenset[int],
    required_mb: int,
) -> Site:
    """`required_mb` is what the model takes, as far as other nodes or the catalogue tell."""
    learned, view = member.of(waiter.entry.id), member.view
    required = learned.required_mb or required_mb
    seconds = learned.load_seconds or START_SECONDS + required / MB_PER_SECOND
    has_files = files_on(waiter.entry, view)
    return Site(
        member.name,
        tuple(Room(d.index, d.name, d.total_mb, d.free_mb) for d in view.devices if not d.poisoned),
        tuple(
            resident_of(member, each, waiter, now)
            for each in view.models
            if each.is_there and each.entry.id != waiter.entry.id
        ),
        required,
        seconds,
        must_fetch=not has_files,
        said=learned.said if learned.full_with == frozenset(member.stays) else None,
        taken=taken | loading_on(member),
        promised=promised,
        out=out_of(member, waiter.entry, now, has_files),
    )


def loading_on(member: Member) -> frozenset[int]:
    """The devices that somebody else loads a model on."""
    return frozenset(
        index
        for each in member.view.models
        if each.entry.status == "loading" and each.entry.id not in member.changing
        for index in each.entry.devices or (ANY.index,)
    )


def out_of(member: Member, entry: CatalogueModel, now: float, has_files: bool) -> Out | None:
    """Why the node is out of question, whatever room it has."""
    view, failure = member.view, member.of(entry.id).failure
    lost_at = member.lost_at
    is_down = "is down" if lost_at is None else f"has been down for {now - lost_at:.0f} s"
    down = Out("down", f"{is_down} ({view.why_down or 'it does not answer'})")
    if not view.can_load:
        had_it = not view.up and view.model(entry.id) is not None
        return down if had_it else Out("never", "only has what it has")
    if not runs_on(entry, view):
        return Out("never", f"has no harness {entry.harness}")
    if not spans(entry, view):
        return Out("never", f"runs no model on {entry.min_devices} devices as large as it needs")
    if not view.up:
        return down
    if member.is_stale:
        return Out("passing", "is being looked at again")
    if member.draining:
        return Out("down", "is draining")
    if not breaker.allows(member.breaker, now):
        return Out("down", "failed too often just now")
    if failure is not None and failure.rest(now) > 0:
        rest = failure.rest(now)
        why = f"could not load it, and is asked again in {rest:.0f} s: {failure.error.message}"
        return Out("failed", why, max(1.0, rest), failure.error)
    if not has_files and not (entry.download == "on_demand" and entry.can_be_fetched):
        return Out("files", "does not have its files")
    return None


def resident_of(member: Member, view: ModelView, waiter: Waiter, now: float) -> Resident:
    """A model in the way, as it stands towards the one that waits."""
    model, devices = view.entry.id, view.entry.devices
    entry, stay = waiter.catalogued(model), member.stays.get(model)
    standing, why, free_at = standing_of(member, view, waiter, now)
    share = max(1, len(devices))
    return Resident(
        model,
        devices,
        view.entry.vram_used_mb // share,
        view.spare_mb // share,
        standing,
        why,
        free_at,
        stay.last_used if stay else now,
        entry.priority if entry else 0,
        reload_seconds(member, view),
    )


def standing_of(
    member: Member, view: ModelView, waiter: Waiter, now: float
) -> tuple[Standing, str, float]:
    """Whether a model may leave, why it may not, and until when it is protected."""
    model, stay = view.entry.id, member.stays.get(view.entry.id)
    if model in member.changing or stay is None:
        return "fixed", f"is {view.entry.status if stay is None else 'changing'}", 0.0
    if waiter.is_pinned(model, member.name):
        return "fixed", "is pinned", 0.0
    is_held = waiter.is_held(model, member.name)
    until = protected_until(waiter.since, stay.asked_at, stay.since, waiter.turn_seconds)
    if member.open[model] or waiter.num_due(model) or (member.others[model] and not is_held):
        return "busy", "is in use", until
    if now < stay.stays_until:
        return "busy", "is busy, as its node says", max(until, stay.stays_until)
    if stay.is_unclaimed and now < until:
        return "busy", "was loaded for a request that has not come yet", until
    came_back = waiter.since - member.of(waiter.entry.id).left_at < waiter.turn_seconds
    rests = rests_until(stay.last_used, reload_seconds(member, view), until, came_back)
    if now < rests:
        return "busy", "was in use a moment ago", rests
    return "idle", "", 0.0


def reload_seconds(member: Member, view: ModelView) -> float:
    """What the next load of a model that is there would take."""
    measured = member.of(view.entry.id).load_seconds
    return measured or START_SECONDS + view.entry.vram_used_mb / MB_PER_SECOND
