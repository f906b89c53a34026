"""The metrics of spending, by account and key: ids from the configuration and the key store alone."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from helexa.accounts.amount import Amount, Used
from helexa.accounts.windows import Cap, Meter
from helexa.conversation import Principal

MOST_KEYS = 500  # with series of their own; further ones count as `other`
OTHER = Principal("other", "other")

Budgets: TypeAlias = Callable[[], Iterable[tuple[Cap, Meter]]]


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
        """Show every cap with what its meter says at the time of each scrape."""
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
    """`helexa_budget_tokens` and the like; an account's own budget has an empty `key`."""

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets

    def collect(self) -> Iterator[GaugeMetricFamily]:
        labels = ["account", "key", "window"]
        cap_family = GaugeMetricFamily(
            "helexa_budget_tokens", "The most that may be spent within the window.", labels=labels
        )
        spent_family = GaugeMetricFamily(
            "helexa_budget_spent_tokens", "Spent within the window.", labels=labels
        )
        reserved_family = GaugeMetricFamily(
            "helexa_budget_reserved_tokens", "Held by requests under way.", labels=labels
        )
        capped = ((cap, meter) for cap, meter in self._budgets() if cap.tokens is not None)
        for (cap, meter), _ in zip(capped, range(MOST_KEYS), strict=False):
            scope = cap.scope
            where = [scope.account_id, scope.key_id, window_label(cap)]
            cap_family.add_metric(where, float(cap.tokens or 0))
            spent_family.add_metric(where, meter.spent.tokens)
            reserved_family.add_metric(where, meter.reserved.tokens)
        yield from (cap_family, spent_family, reserved_family)


def window_label(cap: Cap) -> str:
    """`balance`, `rolling 3600 s`."""
    window = cap.window
    return f"{window.kind} {window.seconds} s" if window.seconds else window.kind
