"""Why a model's context limit is what it is: its terms as `helexa-ctl why-limit` is told them.  Pure."""

from typing import Any

from helexa.fleet.entry import ModelStatus
from helexa.fleet.known import Known
from helexa.fleet.limits import Terms

Json = Any


def why_limit(known: Known, status: ModelStatus) -> dict[str, Json]:
    """One model's limit with every term: the tokens that it allows, None where it bounds nothing."""
    terms, limit = known.terms, known.limit
    tokens = {**terms.bounds, "max_prompt_tokens": terms.max_prompt_tokens or None}
    return {
        "model": known.id,
        "status": status,
        "limit": {"context": limit.context, "input": limit.input, "output": limit.output},
        "limit_estimated": status != "loaded",
        "binds": terms.binds,
        "terms": [
            {"name": name, "tokens": tokens.get(name), "from": text}
            for name, text in words(terms).items()
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


def budget(terms: Terms) -> str:
    if not terms.kv_budget_mb:
        return "kv_budget_mb is not set"
    return f"kv_budget_mb = {terms.kv_budget_mb}{each(terms)}"


def memory(terms: Terms) -> str:
    if terms.prefill_rate is None:
        return "nothing is computed, so nothing is kept"
    if not terms.free_mb:
        return "it is not known how much is free"
    return (
        f"{terms.free_mb} MB free, less {terms.spare_mb} kept spare and {terms.weights_mb} for weights: "
        f"{terms.room_mb} MB{each(terms)}"
    )


def each(terms: Terms) -> str:
    """What a token takes, where that is known."""
    if not terms.kv_bytes_per_token:
        return ""
    windows = (
        f" beside {terms.kv_window_bytes >> 20} MB for windows" if terms.kv_window_bytes else ""
    )
    return f" at {terms.kv_bytes_per_token / 1024:.1f} KB a token{windows}"


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
