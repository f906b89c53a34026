"""What was spent and what happened, read off the ledger's file."""

from collections.abc import Sequence
from typing import Any, Literal

from helexa.accounts.amount import PICO
from helexa.accounts.database import Database

By = Literal["key", "account", "model"]

GROUPS: dict[By, tuple[str, ...]] = {
    "key": ("account_id", "key_id"),
    "account": ("account_id",),
    "model": ("model",),
}
SUMS = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens", "pico_usd")
# Requests one by one, and of those that are not kept any more the sums of their days.
SPENT = """
SELECT {groups}, sum(requests), sum(prompt_tokens), sum(completion_tokens), sum(cached_tokens),
       sum(pico_usd)
FROM (
    SELECT account_id, key_id, model, 1 AS requests, prompt_tokens, completion_tokens, cached_tokens,
           pico_usd
    FROM requests WHERE opened_at >= :since
    UNION ALL
    SELECT account_id, key_id, model, requests, prompt_tokens, completion_tokens, cached_tokens,
           pico_usd
    FROM days WHERE day >= date(:since, 'unixepoch')
)
GROUP BY {groups} ORDER BY sum(prompt_tokens + completion_tokens) DESC
"""
EVENTS = """
SELECT time, kind, account_id, key_id, request_id, text, count FROM events
WHERE time >= ? AND (? IN ('', key_id, account_id)) ORDER BY id DESC LIMIT ?
"""
EVENT_FIELDS = ("time", "kind", "account", "key", "request_id", "text", "count")


def spent(database: Database, by: By, since: float) -> list[dict[str, Any]]:
    """Sums since a Unix time, the most tokens first; days whose requests are gone count whole."""
    groups = GROUPS[by]
    query = SPENT.format(groups=", ".join(groups))
    return [spent_row(groups, row) for row in database.read(query, {"since": since})]


def spent_row(groups: Sequence[str], row: Sequence[Any]) -> dict[str, Any]:
    names = [name.removesuffix("_id") for name in groups]
    sums = dict(zip(SUMS, row[len(groups) :], strict=True))
    usd = sums.pop("pico_usd") / PICO
    tokens = sums["prompt_tokens"] + sums["completion_tokens"]
    return {**dict(zip(names, row, strict=False)), **sums, "tokens": tokens, "usd": usd}


def events(database: Database, since: float, who: str, limit: int) -> list[dict[str, Any]]:
    """The newest first; `who` is a key or an account, "" for everybody."""
    rows = database.read(EVENTS, (since, who, limit))
    return [dict(zip(EVENT_FIELDS, row, strict=True)) for row in rows]
