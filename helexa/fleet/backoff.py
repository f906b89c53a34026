"""Failures that are remembered: how long something that failed is left alone before it is tried again."""

from attrs import frozen

from helexa.errors import HelexaError

FIRST_SECONDS, LONGEST_SECONDS = 5.0, 300.0


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
    seconds = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(count - 1, 30))
    return Failure(error, count, now + seconds)
