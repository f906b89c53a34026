"""Why a model's context limit is what it is: its terms as `helexa-ctl why-limit` is told them.  Pure."""

from typing import Any

from helexa.fleet.entry import ModelStatus
from helexa.fleet.known import Known
from helexa.fleet.limits import Terms
from helexa.fleet.pool import Pool
from helexa.fleet.quant import Choice

Json = Any


def why_limit(
    known: Known, status: ModelStatus, pool: Pool = Pool(), choice: Choice = Choice("none")
) -> dict[str, Json]:
    """One model's limit with every term: the tokens that it allows, None where it bounds nothing.

    `pool` is what a loaded model has, which the terms only foretold; `choice` is how its weights are kept.
    """
    terms, limit = known.terms, known.limit
    tokens = {**terms.bounds, "max_prompt_tokens": terms.max_prompt_tokens or None}
    texts = words(terms)
    if pool.tokens:
        tokens["kv_pool"], texts["kv_pool"] = pool.tokens, held(pool)
    return {
        "model": known.id,
        "status": status,
        "limit": {"context": limit.context, "input": limit.input, "output": limit.output},
        "limit_estimated": status != "loaded",
        "binds": terms.binds,
        "quant": choice.quant,
        "quant_reason": choice.reason,
        "terms": [
            {"name": name, "tokens": tokens.get(name), "from": text} for name, text in texts.items()
        ],
    }


def words(terms: Terms) -> dict[str, str]:
    """Where each term comes from, in the order in which they are looked at."""
    return {
        "positions": "what the model was made for",
        "max_context": "max_context of its entry"
        if terms.max_context
        else "max_context is not set",
        "kv_budget": budget(terms),
        "memory": memory(terms),
        "prefill": prefill(terms),
        "max_prompt_tokens": prompt(terms),
        "output_reserve": reserve(terms),
    }


def held(pool: Pool) -> str:
    """What the pool of a loaded model takes, as it was measured at the load."""
    told = f"what it has, for all sequences together: {pool.total_mb} MB"
    if pool.bytes_per_token:
        told += f" at {pool.bytes_per_token / 1024:.1f} KB a token"
    return f"{told}; they run one at a time, as {pool.alone}" if pool.alone else told


def budget(terms: Terms) -> str:
    if not terms.kv_budget_mb:
        return "kv_budget_mb is not set"
    return f"kv_budget_mb = {terms.kv_budget_mb}{each(terms, terms.kv_budget_mb)}"


def memory(terms: Terms) -> str:
    if terms.prefill_rate is None:
        return "nothing is computed, so nothing is kept"
    if not terms.free_mb:
        return "it is not known how much is free"
    return (
        f"{terms.free_mb} MB free, less {terms.spare_mb} kept spare and {terms.weights_mb} for weights: "
        f"{terms.room_mb} MB{each(terms, terms.room_mb)}"
    )


def each(terms: Terms, mb: int) -> str:
    """What a token takes of so many MB, where that is known."""
    if not terms.kv_bytes_per_token:
        return ""
    kept = "" if terms.kv_dtype == "auto" else f" in {terms.kv_dtype}"
    windows = terms.windows_bytes(mb)
    count = windows // terms.kv_window_bytes if windows else 0
    one = terms.kv_window_bytes / 2**20
    beside = f" beside {windows >> 20} MB for windows ({count} of {one:.1f} MB)" if count else ""
    return f" at {terms.kv_bytes_per_token / 1024:.1f} KB a token{kept}{beside}"


def prefill(terms: Terms) -> str:
    if terms.prefill_rate is None:
        return "nothing is computed, so it takes no time"
    if not terms.prefill_limit_seconds:
        return "prefill_limit_seconds = 0 is no bound"
    rate = terms.prefill_rate
    known = "measured" if rate.measured else "not measured yet"
    return f"{terms.prefill_limit_seconds:g} s at {rate.tokens_per_second:.0f} tokens/s, {known}"


def prompt(terms: Terms) -> str:
    if not terms.max_prompt_tokens:
        return "[limits] max_prompt_tokens is not set"
    return "[limits] max_prompt_tokens; it bounds the input alone"


def reserve(terms: Terms) -> str:
    kept = f"{terms.limit.output} of the context are kept for the answer"
    if terms.output_reserve:
        return f"output_reserve = {terms.output_reserve}; {kept}"
    return f"{kept}: at most 8192, and a quarter"
