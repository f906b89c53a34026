"""Times as people type them, for argparse: a length, a moment, a window."""

import argparse
import re
import time
from datetime import UTC, datetime
from typing import Any

UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90s, 10m or 2h")
    return float(found[1]) * UNITS[found[2]]


def since(text: str) -> float:
    """Unix time of `7d` (ago) or `2027-01-31`, which is UTC as the ledger's days are."""
    return moment(text, -1)


def until(text: str) -> float:
    """Unix time of `30d` (from now) or `2027-01-31`."""
    return moment(text, 1)


def moment(text: str, direction: int) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return time.time() + direction * seconds(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def window(text: str) -> dict[str, Any]:
    """`balance`, `rolling:1h`, `sliding:7d`."""
    kind, _, length = text.partition(":")
    if kind not in ("balance", "rolling", "sliding") or (kind == "balance") != (not length):
        raise argparse.ArgumentTypeError(f"{text!r} is not balance, rolling:1h or sliding:7d")
    return {"kind": kind, "seconds": int(seconds(length)) if length else 0}


def bound(text: str) -> float | None:
    """A number, or `none` for no bound."""
    if text == "none":
        return None
    try:
        number = float(text.replace("_", ""))
    except ValueError:
        number = -1
    if not 0 <= number < 2**62:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor none")
    return number
