"""Failures that are remembered: how long something that failed is left alone before it is tried again."""

from attrs import frozen

from helexa.errors import HelexaError

FIRST_SECONDS, LONGEST_SECONDS = 5.0, 300.0


def pause(count: int, first: float = FIRST_SECONDS, longest: float = LONGEST_SECONDS) -> float:
    """Seconds after the last of `count` failures in a row: `first`, and twice as many each time."""
    return min(longest, first * 2.0 ** min(max(0, count - 1), 30))


@frozen(eq=False)
class Failure:
    """The last of `count` failures in a row; nobody tries again before `retry_at`."""

    error: HelexaError
    count: int
    retry_at: float

    def rest(self, now: float) -> float:
        """Seconds until it may be tried again."""
        return max(0.0, self.retry_at - now)


def failed(before: Failure | None, error: HelexaError, now: float) -> Failure:
    """One more failure: each doubles the time that nobody tries."""
    count = before.count + 1 if before else 1
    return Failure(error, count, now + pause(count))
