"""An average that forgets."""

WEIGHT = 0.3  # of what is new


def smoothed(before: float | None, now: float, weight: float = WEIGHT) -> float:
    """The average with one more sample; `before` is None where there is none yet."""
    return now if before is None else before + weight * (now - before)
