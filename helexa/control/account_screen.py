"""Keys, spending and events for a terminal.  Pure."""

import time
from collections.abc import Sequence
from typing import Any

from helexa.control.layout import duration, table
from helexa.escape import escape

Json = Any


def keys(found: Sequence[Json]) -> list[str]:
    """Of several budgets the one on tokens that binds, else the one on money."""
    headers = [
        *("ACCOUNT", "KEY", "STATE", ">SPENT", ">LEFT", ">OF", "BUDGET OF", "WINDOW"),
        *("EXPIRES", "NOTE"),
    ]
    rows = [
        (
            one["account"],
            one["key"],
            one["state"],
            one["spent_tokens"],
            *tightest(one["budgets"]),
            when(one["expires_at"]),
            one["note"] or None,
        )
        for one in found
    ]
    return table(headers, rows) if rows else []


def tightest(budgets: Sequence[Json]) -> tuple[str | None, ...]:
    """What is left of what, whose it is, its window."""
    for one in budgets:
        if one["binds"]:
            left, cap = amount(one, "remaining"), amount(one, "cap")
            return left, cap, one["scope"], window(one["window"])
    return None, None, None, None


def key(one: Json) -> list[str]:
    """Each of its facts on a line, then its budgets and those of its account."""
    shown = {
        "account": one["account"],
        "key": one["key"],
        "state": one["state"],
        "from": one["from"],
        "created": when(one["created_at"]),
        "expires": when(one["expires_at"]),
        "models": ", ".join(one["allowed_models"]) or "all",
        "weight": f"{one['weight']}, {one['priority']}",
        "spent": f"{one['spent_tokens']} tokens, {one['spent_usd']:.6f} USD",
        "budgets": None if one["budgets"] else "none",
        "note": one["note"] or None,
    }
    lines = [f"{name:<8} {escape(str(value))}" for name, value in shown.items() if value]
    return lines + budgets(one["budgets"])


def budgets(found: Sequence[Json]) -> list[str]:
    """An arrow points at those that bind: of tokens and of money the one that leaves the least."""
    headers = ["", "BUDGET OF", "WINDOW", ">CAP", ">SPENT", ">RESERVED", ">LEFT", "RESETS"]
    rows = [
        (
            "->" if one["binds"] else "",
            one["scope"],
            window(one["window"]),
            *(amount(one, figure) for figure in ("cap", "spent", "reserved", "remaining")),
            resets(one["reset_seconds"]),
        )
        for one in found
    ]
    return ["", *table(headers, rows)] if rows else []


def amount(bound: Json, figure: str) -> str:
    value = bound[figure]
    return f"{value:.6f} USD" if bound["unit"] == "usd" else str(value)


def resets(seconds: float | None) -> str | None:
    """A window of which nothing is spent has nothing to reset."""
    if seconds is None:
        return "never"
    return f"in {duration(seconds)}" if seconds else None


def spend(found: Sequence[Json]) -> list[str]:
    if not found:
        return []
    names = [name for name in ("account", "key", "model") if name in found[0]]
    sums = ["requests", "prompt_tokens", "completion_tokens", "cached_tokens", "tokens"]
    headers = [
        *map(str.upper, names),
        *(f">{name.removesuffix('_tokens').upper()}" for name in sums),
        ">USD",
    ]
    rows = [(*(one[name] for name in (*names, *sums)), f"{one['usd']:.6f}") for one in found]
    return table(headers, rows)


def audit(found: Sequence[Json]) -> list[str]:
    headers = ["TIME", "WHAT", "ACCOUNT", "KEY", ">TIMES", "TEXT"]
    rows = [
        (
            when(one["time"]),
            one["kind"],
            one["account"] or None,
            one["key"] or None,
            one["count"],
            one["text"],
        )
        for one in found
    ]
    return table(headers, rows) if rows else []


def window(shown: Json) -> str:
    """`rolling 3600 s`."""
    return f"{shown['kind']} {shown['seconds']} s" if shown["seconds"] else str(shown["kind"])


def when(unix_time: float | None) -> str | None:
    if unix_time is None:
        return None
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_time))
