"""Whether a node may be sent requests, from how the last ones went: a circuit breaker.

closed      requests go there
open        none does until `retry_at`
half-open   one does, and its outcome decides

A node that answers 503 at once looks idle and would attract all the traffic: what it refuses opens the
breaker as its silence does.  Looks at the node are counted by themselves, because one that answers them
well may yet fail every request.
"""

from typing import Literal

from attrs import evolve, field, frozen

from helexa.fleet.backoff import pause

State = Literal["closed", "open", "half-open"]
MOST_OUTCOMES = 128  # that are remembered, the last ones


@frozen
class Rules:
    """`failures` in a row open a breaker, and so does a `share` of failures among at least `least`
    outcomes of the last `window_seconds`.

    It is open for `first_seconds`, twice as long each time it opens again, and `longest_seconds` at
    most.  A probe that tells nothing for `probe_seconds` lets another one through.
    """

    failures: int = 5
    share: float = 0.5
    least: int = 10
    window_seconds: float = 30.0
    first_seconds: float = 2.0
    longest_seconds: float = 60.0
    probe_seconds: float = 10.0


RULES = Rules()


@frozen
class Record:
    """How requests, or looks, went: (when, whether well), the last ones, in their order."""

    outcomes: tuple[tuple[float, bool], ...] = ()
    num_failed: int = 0  # of them
    in_a_row: int = 0

    def after(self, ok: bool, now: float, rules: Rules) -> "Record":
        outcomes, num_failed = self.outcomes, self.num_failed + (not ok)
        first = max(0, len(outcomes) + 1 - MOST_OUTCOMES)
        while first < len(outcomes) and outcomes[first][0] <= now - rules.window_seconds:
            first += 1
        if num_failed:
            num_failed -= sum(not was_ok for _, was_ok in outcomes[:first])
        kept = (*outcomes[first:], (now, ok))
        return Record(kept, num_failed, 0 if ok else self.in_a_row + 1)

    def is_failing(self, rules: Rules) -> bool:
        num = len(self.outcomes)
        return self.in_a_row >= rules.failures or (
            num >= rules.least and self.num_failed >= rules.share * num
        )


@frozen
class Breaker:
    """One node's; all times are of one clock, in seconds.

    `opened` counts how often it opened since all was well.  `by_looks` tells that requests had no part
    in it.  `half_open_at` is when the first probe went, `probe_at` when the last one did that has told
    nothing yet.
    """

    state: State = "closed"
    requests: Record = field(default=Record(), repr=False)
    looks: Record = field(default=Record(), repr=False)
    opened: int = 0
    retry_at: float = 0.0
    by_looks: bool = False
    half_open_at: float = 0.0
    probe_at: float | None = None


def allows(breaker: Breaker, now: float, rules: Rules = RULES) -> bool:
    """Whether a request may go there now; tell `sent` if one does."""
    match breaker.state:
        case "closed":
            return True
        case "open":
            return now >= breaker.retry_at
        case "half-open":
            return breaker.probe_at is None or now >= breaker.probe_at + rules.probe_seconds


def sent(breaker: Breaker, now: float) -> Breaker:
    """A request goes there: unless all is well it is the probe."""
    if breaker.state == "closed":
        return breaker
    since = breaker.half_open_at if breaker.state == "half-open" else now
    return evolve(breaker, state="half-open", half_open_at=since, probe_at=now)


def succeeded(breaker: Breaker, sent_at: float, now: float, rules: Rules = RULES) -> Breaker:
    """A request that was sent at `sent_at` was answered."""
    if is_stale(breaker, sent_at):
        return breaker
    if breaker.state == "half-open":
        return Breaker(opened=breaker.opened)
    requests = breaker.requests.after(True, now, rules)
    is_well = not (requests.num_failed or breaker.looks.num_failed)
    return Breaker("closed", requests, breaker.looks, 0 if is_well else breaker.opened)


def failed(breaker: Breaker, sent_at: float, now: float, rules: Rules = RULES) -> Breaker:
    """A request was refused by the node (503), or lost with it."""
    if is_stale(breaker, sent_at):
        return breaker
    counted = evolve(breaker, requests=breaker.requests.after(False, now, rules))
    if breaker.state == "half-open" or counted.requests.is_failing(rules):
        return opening(counted, now, rules)
    return counted


def unsettled(breaker: Breaker, sent_at: float) -> Breaker:
    """A request ended without telling anything of the node, as when its client left."""
    if breaker.state != "half-open" or is_stale(breaker, sent_at):
        return breaker
    return evolve(breaker, probe_at=None)


def looked(breaker: Breaker, ok: bool, now: float, rules: Rules = RULES) -> Breaker:
    """The node was looked at: it closes what looks alone had opened, once its time is over."""
    if breaker.state == "closed":
        counted = evolve(breaker, looks=breaker.looks.after(ok, now, rules))
        is_failing = counted.looks.is_failing(rules)
        return opening(counted, now, rules, by_looks=True) if is_failing else counted
    if ok and breaker.by_looks and now >= breaker.retry_at:
        return Breaker(opened=breaker.opened)
    return breaker


def is_stale(breaker: Breaker, sent_at: float) -> bool:
    """Whether a request went before the breaker opened, and so says nothing new."""
    if breaker.state == "half-open":
        return sent_at < breaker.half_open_at
    return breaker.state == "open"


def opening(breaker: Breaker, now: float, rules: Rules, by_looks: bool = False) -> Breaker:
    seconds = pause(breaker.opened + 1, rules.first_seconds, rules.longest_seconds)
    return Breaker(
        "open",
        opened=breaker.opened + 1,
        retry_at=now + seconds,
        by_looks=by_looks,
    )
