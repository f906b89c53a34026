"""Models that take turns on one device: how long each is protected from those that wait for its room.

A cold model that finds only busy models in its way waits for them, up to a bound.  Then their new
requests wait too, what they have begun is answered, the device swaps, and who waits longest is next.
Every turn serves at least those that waited when it began.
"""

from collections.abc import Iterable

from attrs import frozen


@frozen
class Waiting:
    """A cold model; `since` is when the first of its requests began to wait."""

    model: str
    since: float


def in_order(waiting: Iterable[Waiting]) -> list[Waiting]:
    """Whoever has waited longest comes first."""
    return sorted(waiting, key=lambda each: (each.since, each.model))


def protected_until(
    waiting_since: float, asked_at: float, serving_since: float, turn_seconds: float
) -> float:
    """Until when a loaded model may go on taking requests while another waits for its room.

    It was loaded for requests that began to wait at `asked_at`, and serves since `serving_since`.  One
    that was asked for earlier than the waiting one has a whole turn; one that was asked for later and
    found room meanwhile does not make the waiting one wait longer.
    """
    if asked_at > waiting_since:
        return waiting_since + turn_seconds
    return max(waiting_since, serving_since) + turn_seconds


def rests_until(last_used: float, reload_seconds: float, until: float, came_back: bool) -> float:
    """Until when an idle model stays although another waits for its room; `until` as above at most.

    It leaves at once, unless the waiting one left here only a turn ago and came back: then the two go
    to and fro, and each stays as long as its next load would take, in case it is asked for again.
    """
    return min(until, last_used + reload_seconds) if came_back else last_used


def longest_wait(
    models: int,
    turn_seconds: float,
    batch_seconds: float,
    answer_seconds: float,
    swap_seconds: float,
) -> float:
    """The most that a request waits for its model, where so many models take turns on one device.

    A turn takes `turn_seconds`, or `batch_seconds` where those that waited when it began take longer;
    then the last of its answers ends and the device swaps: one unload and one load.  A request that
    comes when the turn of its own model has just ended waits for that to be over and for all others.
    """
    turn = max(turn_seconds, batch_seconds) + answer_seconds + swap_seconds
    return (models - 1) * turn + answer_seconds + swap_seconds
