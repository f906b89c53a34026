"""What is left of a budget, as every answer's headers tell it in both families' spelling.  Pure."""

import math
from datetime import UTC, datetime

from helexa.accounts.provider import Remaining

Headers = list[tuple[bytes, bytes]]


def rate_headers(remaining: Remaining | None, unix_time: float) -> Headers:
    """None for a principal whose tokens nobody bounds; a balance has no time of reset."""
    if remaining is None:
        return []
    left, limit = str(remaining.remaining), str(remaining.limit)
    told = {
        "x-ratelimit-limit-tokens": limit,
        "x-ratelimit-remaining-tokens": left,
        "anthropic-ratelimit-tokens-limit": limit,
        "anthropic-ratelimit-tokens-remaining": left,
    }
    if remaining.reset_seconds is not None:
        seconds = math.ceil(remaining.reset_seconds)
        told["x-ratelimit-reset-tokens"] = duration(seconds)
        told["anthropic-ratelimit-tokens-reset"] = moment(unix_time + seconds)
    return [(name.encode(), value.encode()) for name, value in told.items()]


def duration(seconds: int) -> str:
    """As OpenAI writes it: `1h2m3s`."""
    hours, minutes = seconds // 3600, seconds // 60 % 60
    parts = (f"{hours}h" if hours else "", f"{minutes}m" if hours or minutes else "")
    return f"{''.join(parts)}{seconds % 60}s"


def moment(unix_time: float) -> str:
    """As Anthropic writes it: `2027-01-31T12:00:00Z`."""
    return datetime.fromtimestamp(math.ceil(unix_time), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
