"""Keys, spending and events for a terminal.  Pure."""

import time
from collections.abc import Sequence
from typing import Any

from helexa.control.layout import table
from helexa.escape import escape

Json = Any


def keys(found: Sequence[Json]) -> list[str]:
    headers = ["ACCOUNT", "KEY", "STATE", ">SPENT", ">LEFT", ">OF", "WINDOW", "EXPIRES", "NOTE"]
    rows = [
        (
            one["account"],
            one["key"],
            one["state"],
            one["spent_tokens"],
            one["remaining_tokens"],
            one["hard_cap"],
            window(one["window"]),
            when(one["expires_at"]),
            one["note"] or None,
        )
        for one in found
    ]
    return table(headers, rows) if rows else []


def key(one: Json) -> list[str]:
    """Each of its facts on a line."""
    shown = {
        "account": one["account"],
        "key": one["key"],
        "state": one["state"],
        "from": one["from"],
        "created": when(one["created_at"]),
        "expires": when(one["expires_at"]),
        "models": ", ".join(one["allowed_models"]) or "all",
        "weight": f"{one['weight']}, {one['priority']}",
        "cap": one["hard_cap"],
        "cap in USD": one["hard_cap_usd"],
        "window": window(one["window"]),
        "spent": one["spent_tokens"],
        "reserved": one["reserved_tokens"],
        "left": one["remaining_tokens"],
        "note": one["note"],
    }
    there = {name: value for name, value in shown.items() if value not in (None, "")}
    return [f"{name:<11} {escape(str(value))}" for name, value in there.items()]


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


def window(shown: Json) -> str | None:
    """`rolling 3600 s`."""
    if shown is None:
        return None
    return f"{shown['kind']} {shown['seconds']} s" if shown["seconds"] else str(shown["kind"])


def when(unix_time: float | None) -> str | None:
    if unix_time is None:
        return None
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_time))
