"""What the fleet actor keeps of each node: what it told, what is leased there, what was learned of it."""

import math
from collections import Counter

from attrs import define, evolve, field, frozen

from helexa.actors.leases import Acquire, Outcome
from helexa.average import smoothed
from helexa.errors import HelexaError
from helexa.fleet import breaker
from helexa.fleet.backoff import Failure, failed
from helexa.fleet.breaker import Breaker
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.entry import ModelEntry
from helexa.fleet.planning import files_on
from helexa.fleet.view import ModelView, NodeView
from helexa.nodes.port import NodePort

SMOOTHING = 0.2  # of service times: how much the newest counts
BLIP_SECONDS = 5.0  # that a node may be away before its models are loaded elsewhere
ASSUMED_WIDTH = 8  # requests that a model answers together, where its node does not tell


@define(eq=False)
class Learned:
    """What was measured of a model on a node; it outlives the model's stay there."""

    required_mb: int = 0
    load_seconds: float = 0.0
    service_seconds: float | None = None
    left_at: float = -math.inf  # when it was evicted last
    failure: Failure | None = None
    full_with: frozenset[str] | None = None  # the models beside which the node had no room for it
    said: HelexaError | None = None  # that there was none
    told: ModelEntry | None = None  # by the node: of its files, then while it was loaded last


@define(eq=False)
class Stay:
    """One model as long as it is loaded on a node; times are on the fleet's clock.

    It was loaded for those that asked at `asked_at`.  Until `stays_until` it is not proposed for
    eviction again, because the node said that it is busy; `is_unclaimed` since the node said so though
    nothing ran there: it was loaded, and nobody ever came.
    """

    since: float
    asked_at: float
    last_used: float
    stays_until: float = 0.0
    is_unclaimed: bool = False


@frozen(eq=False)
class Open:
    """A lease that was given and not given back."""

    model: str
    sent_at: float


@define(eq=False)
class Member:
    """One node.  `changing` are the models that the fleet loads or unloads there now."""

    port: NodePort
    view: NodeView
    is_known: bool = False  # whether it was seen, or found lost, at least once
    asked_about: tuple[CatalogueModel, ...] | None = None  # the catalogue whose files it told of
    is_stale: bool = False  # whether it changed since, in a way that only the next look can tell
    draining: bool = False
    breaker: Breaker = field(factory=Breaker)
    lost_at: float | None = None  # since when it does not answer
    stays: dict[str, Stay] = field(factory=dict)
    learned: dict[str, Learned] = field(factory=dict)
    changing: Counter[str] = field(factory=Counter)
    leases: dict[Acquire, Open] = field(factory=dict)
    open: Counter[str] = field(factory=Counter)  # leases by model
    others: Counter[str] = field(factory=Counter)  # requests of others by model, as seen last
    left_at: dict[str, float] = field(factory=dict)  # when the last lease of a model ended
    changed_at: float = 0.0  # when a load or unload ended, or a request found that it is otherwise
    cycles: int = 0  # loads since its memory was mended last

    @property
    def name(self) -> str:
        return self.port.name

    def is_open(self, now: float) -> bool:
        """Whether requests may go there."""
        return self.view.up and not self.draining and breaker.allows(self.breaker, now)

    def is_back_soon(self, now: float) -> bool:
        """Whether it takes no requests, but only since a moment ago, or only for a moment more."""
        if self.draining:
            return False
        if self.lost_at is not None:
            return now < self.lost_at + BLIP_SECONDS
        return self.breaker.state != "closed" and self.breaker.retry_at < now + BLIP_SECONDS

    def rests(self, model: str, now: float) -> bool:
        """Whether a load failed there so lately that it is not tried again yet."""
        failure = self.of(model).failure
        return failure is not None and failure.rest(now) > 0

    def of(self, model: str) -> Learned:
        return self.learned.setdefault(model, Learned())

    # -- what it tells ---------------------------------------------------------------------------

    def seen(self, view: NodeView, now: float) -> bool:
        """Take what the node tells; False for what was asked before something changed."""
        if view.seen_at < self.changed_at:
            return False
        has_new_files = view.stored != self.view.stored
        if has_new_files or self.lost_at is not None:
            self.asked_about = None
        self.view, self.is_known, self.lost_at, self.is_stale = view, True, None, False
        self.breaker = breaker.looked(self.breaker, view.up, now)
        loaded = {each.entry.id: each for each in view.models if each.entry.loaded}
        self.stays = {
            model: self.stays.get(model) or Stay(now, now, now) for model in sorted(loaded)
        }
        for model, each in loaded.items():
            self.of(model).told = each.entry
        for model, learned in self.learned.items():
            if has_new_files or model in loaded:  # what failed before may go well now
                learned.failure = None
        self.others = Counter(
            {model: self._others(each) for model, each in loaded.items() if self._others(each) > 0}
        )
        for model in self.others:
            self.stays[model].last_used = now
            self.stays[model].is_unclaimed = False
        return True

    def to_ask(self, models: tuple[CatalogueModel, ...]) -> list[CatalogueModel]:
        """Those of the catalogue that it has the files of, and has not told of; once while that is so."""
        if self.view.stored is None or self.asked_about is models:
            return []
        self.asked_about = models
        return [
            entry
            for entry in models
            if not entry.is_script and files_on(entry, self.view) and not self.of(entry.id).told
        ]

    def _others(self, model: ModelView) -> int:
        """Requests there that are not leased by this fleet, unless it has just had some there itself."""
        if self.left_at.get(model.entry.id, -1.0) >= self.view.seen_at:
            return 0
        return model.in_flight + model.queue_depth - self.open[model.entry.id]

    def lost(self, why: str, now: float) -> None:
        """A look at it failed."""
        self.is_known = True
        self.breaker = breaker.looked(self.breaker, False, now)
        self.away(why, now)

    def away(self, why: str, now: float) -> None:
        """It is taken for lost until it is seen again."""
        self.lost_at = now if self.lost_at is None else self.lost_at
        self.view = evolve(self.view, up=False, why_down=why)

    def changed(self, at: float) -> None:
        """What is told by a look that was asked before is out of date."""
        self.changed_at = max(self.changed_at, at)

    def loaded(self, model: str) -> bool:
        view = self.view.model(model)
        return view is not None and view.entry.loaded

    def width(self, model: str) -> int:
        """How many requests it answers together."""
        view = self.view.model(model)
        return (view.width if view else 0) or ASSUMED_WIDTH

    def busy(self, model: str) -> int:
        return self.open[model] + self.others[model]

    # -- leases ----------------------------------------------------------------------------------

    def lease(self, acquire: Acquire, now: float) -> None:
        model = acquire.entry.id
        self.breaker = breaker.sent(self.breaker, now)
        self.leases[acquire] = Open(model, now)
        self.open[model] += 1
        if stay := self.stays.get(model):
            stay.last_used, stay.is_unclaimed = now, False

    def leave(self, acquire: Acquire, outcome: Outcome, now: float) -> None:
        """Take a lease back, and what it tells."""
        lease = self.leases.pop(acquire)
        model, was_full = lease.model, self.open[lease.model] > self.width(lease.model)
        self.open[model] -= 1
        self.open += Counter()  # without those that are 0
        self.left_at[model] = now
        if stay := self.stays.get(model):
            stay.last_used = now
        if outcome.how == "ok" and outcome.seconds is not None:
            self._measure(model, outcome.seconds)
        self.breaker = after(self.breaker, outcome, lease.sent_at, now, was_full)

    def _measure(self, model: str, seconds: float) -> None:
        learned = self.of(model)
        learned.service_seconds = smoothed(learned.service_seconds, seconds, SMOOTHING)

    # -- loads -----------------------------------------------------------------------------------

    def load_ended(self, model: str, seconds: float) -> None:
        """It is loaded: what it takes there is known from now on."""
        learned, view = self.of(model), self.view.model(model)
        learned.load_seconds, learned.failure, learned.full_with = seconds, None, None
        if self.view.kind == "neuron" and view is not None:
            # Ours fill what is free with their KV pools, and say what they need where that is not there.
            learned.required_mb = view.entry.vram_used_mb or learned.required_mb

    def load_failed(self, model: str, error: HelexaError, now: float) -> Failure:
        learned = self.of(model)
        learned.failure = failed(learned.failure, error, now)
        return learned.failure


def after(found: Breaker, outcome: Outcome, sent_at: float, now: float, was_full: bool) -> Breaker:
    """What a request tells of its node.  That a model is full, as we know, is nothing against the node."""
    match outcome.how:
        case "ok":
            return breaker.succeeded(found, sent_at, now)
        case "failed" | "lost":
            return breaker.failed(found, sent_at, now)
        case "refused" if not was_full:
            return breaker.failed(found, sent_at, now)
    return breaker.unsettled(found, sent_at)
