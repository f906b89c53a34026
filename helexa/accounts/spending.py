"""The metrics of spending, by account and key: ids from the configuration and the key store alone."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeAlias

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from helexa.accounts.amount import Amount, Used
from helexa.accounts.bounds import UNITS, Bound, Unit, bounds
from helexa.accounts.windows import Cap, Standing
from helexa.conversation import Principal

MOST_KEYS = 500  # with series of their own; further ones count as `other`
OTHER = Principal("other", "other")

Budgets: TypeAlias = Callable[[], Iterable[Standing]]


class Spending:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._known: set[Principal] = set()
        self._series: dict[Principal, tuple[Counter, ...]] = {}
        who = ["account", "key"]
        self.tokens = Counter(
            "helexa_spend_tokens", "Tokens that were charged.", who, registry=registry
        )
        self.prompt = Counter(
            "helexa_spend_prompt_tokens",
            "Prompt tokens of charged requests.",
            who,
            registry=registry,
        )
        self.completion = Counter(
            "helexa_spend_completion_tokens",
            "Generated tokens of charged requests.",
            who,
            registry=registry,
        )
        self.cached = Counter(
            "helexa_spend_cached_tokens",
            "Prompt tokens that came from a cache; helexa_spend_prompt_tokens_total counts them too.",
            who,
            registry=registry,
        )
        self.usd = Counter(
            "helexa_spend_usd",
            "What was charged, at the catalogue's prices.",
            who,
            registry=registry,
        )
        self.refusals = Counter(
            "helexa_budget_refusals",
            "Requests that a budget, or a ledger that cannot be written, did not let begin.",
            [*who, "reason"],
            registry=registry,
        )

    def spent(self, principal: Principal, used: Used, charged: Amount) -> None:
        """One request is over."""
        series = self._series.get(principal) or self._found(principal)
        amounts = (charged.tokens, used.prompt, used.completion, used.cached, charged.usd)
        for counter, amount in zip(series, amounts, strict=True):
            counter.inc(amount)

    def refused(self, principal: Principal, reason: str) -> None:
        self.refusals.labels(*self._labels(principal), reason).inc()

    def watch(self, budgets: Budgets) -> None:
        """Show how every cap stands at the time of each scrape."""
        self._registry.register(BudgetCollector(budgets))

    def _found(self, principal: Principal) -> tuple[Counter, ...]:
        """The principal's series, which to look up takes longer than all that is counted in them."""
        who = self._labels(principal)
        families = (self.tokens, self.prompt, self.completion, self.cached, self.usd)
        series = tuple(family.labels(*who) for family in families)
        if who != (OTHER.account_id, OTHER.key_id):
            self._series[principal] = series
        return series

    def _labels(self, principal: Principal) -> tuple[str, str]:
        if principal not in self._known and len(self._known) >= MOST_KEYS:
            principal = OTHER
        self._known.add(principal)
        return principal.account_id, principal.key_id


class BudgetCollector(Collector):
    """`helexa_budget_tokens`, `helexa_budget_usd` and the like; an account's own has an empty `key`."""

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets

    def collect(self) -> Iterator[GaugeMetricFamily]:
        standings = list(islice(self._budgets(), MOST_KEYS))
        for unit in UNITS:
            found = tightest(standings, unit)
            for name, text, figure in FIGURES:
                family = GaugeMetricFamily(f"helexa_budget_{name}{unit}", text, labels=LABELS)
                for where, bound in found.items():
                    family.add_metric(where, figure(bound))
                yield family


def tightest(standings: Iterable[Standing], unit: Unit) -> Mapping[tuple[str, str, str], Bound]:
    """By labels; the smallest cap where several have the same."""
    found: dict[tuple[str, str, str], Bound] = {}
    for one in standings:
        where = (one.cap.scope.account_id, one.cap.scope.key_id, window_label(one.cap))
        for bound in bounds(one):
            if bound.unit == unit and (where not in found or bound.cap < found[where].cap):
                found[where] = bound
    return found


LABELS = ("account", "key", "window")
FIGURES: Sequence[tuple[str, str, Callable[[Bound], float]]] = (
    ("", "The most that may be spent within the window.", lambda bound: bound.cap),
    ("spent_", "Spent within the window.", lambda bound: bound.spent),
    ("reserved_", "Held by requests under way.", lambda bound: bound.reserved),
)


def window_label(cap: Cap) -> str:
    """`balance`, `rolling 3600 s`."""
    window = cap.window
    return f"{window.kind} {window.seconds} s" if window.seconds else window.kind
