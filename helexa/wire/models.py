"""Lists of models as JSON: in OpenAI's shape, which Codex reads too, in Anthropic's, and in the node's
own for gateways."""

from collections.abc import Iterable
from datetime import UTC, datetime

from helexa.conversation import Json
from helexa.errors import ModelNotFound
from helexa.escape import escape
from helexa.fleet.catalogue import Cost
from helexa.fleet.entry import ModelEntry
from helexa.fleet.limits import Limit
from helexa.wire.codex import write_codex_model
from helexa.wire.envelope import Shape

OWNER = "helexa"


def write_list(entries: Iterable[ModelEntry], shape: Shape = "openai") -> Json:
    """GET /v1/models: every model, and every alias as an entry of its own with every field."""
    names = [(name, entry) for entry in entries for name in entry.names]
    if shape == "anthropic":
        return write_page([write_anthropic_entry(name, entry) for name, entry in names])
    return {
        "object": "list",
        "data": [write_entry(name, entry) for name, entry in names],
        "models": [write_codex_model(name, entry, i) for i, (name, entry) in enumerate(names)],
    }


def write_named(name: str, entries: Iterable[ModelEntry], shape: Shape = "openai") -> Json:
    """GET /v1/models/{id}, where the id may be an alias.  ModelNotFound."""
    write = write_anthropic_entry if shape == "anthropic" else write_entry
    return write(name, named(name, entries))


def named(name: str, entries: Iterable[ModelEntry]) -> ModelEntry:
    """The one that goes by `name`.  ModelNotFound."""
    for entry in entries:
        if name in entry.names:
            return entry
    raise ModelNotFound(f"There is no model {escape(name)}; GET /v1/models lists what there is.")


def write_entry(name: str, entry: ModelEntry) -> Json:
    """One entry in OpenAI's shape, with what clients use beyond it.  What is not known is left out."""
    written: dict[str, Json] = {
        "id": name,
        "object": "model",
        "created": entry.created,
        "owned_by": OWNER,
        "loaded": entry.loaded,
        "status": entry.status,
        "feasible_on": list(entry.feasible_on),
        "locations": [{"node": place.node, "status": place.status} for place in entry.locations],
        **write_abilities(entry),
    }
    if entry.limit is not None:
        written["context_length"] = entry.limit.context
    return written


def write_page(written: list[dict[str, Json]]) -> Json:
    """All models on one page: nobody has so many that a client would have to turn it."""
    ids = [entry["id"] for entry in written]
    return {
        "data": written,
        "has_more": False,
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
    }


def write_anthropic_entry(name: str, entry: ModelEntry) -> dict[str, Json]:
    """One entry in Anthropic's shape."""
    created = datetime.fromtimestamp(entry.created, UTC)
    written: dict[str, Json] = {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
    }
    if entry.limit is not None:
        written["max_input_tokens"] = entry.limit.input
        written["max_tokens"] = entry.limit.output
    return written


def write_node_entry(entry: ModelEntry, error: str | None = None) -> Json:
    """One entry of GET /models on a node; `error` is why its load failed."""
    told = {} if error is None else {"error": escape(error)}
    return {
        "id": entry.id,
        "harness": entry.harness,
        "status": entry.status,
        "devices": list(entry.devices),
        "vram_used_mb": entry.vram_used_mb,
        **write_abilities(entry),
        **told,
    }


def write_abilities(entry: ModelEntry) -> dict[str, Json]:
    """What both lists tell of what a model can do and costs."""
    written: dict[str, Json] = {
        "capabilities": list(entry.capabilities),
        "tool_call": entry.tool_call,
        "reasoning": entry.reasoning,
    }
    if entry.limit is not None:
        written["limit"] = write_limit(entry.limit)
        written["limit_estimated"] = entry.limit_estimated
    if entry.cost is not None:
        written["cost"] = write_cost(entry.cost)
    return written


def write_limit(limit: Limit) -> Json:
    """In tokens."""
    return {"context": limit.context, "input": limit.input, "output": limit.output}


def write_cost(cost: Cost) -> Json:
    """In USD per million tokens."""
    prices = {
        "input": cost.input,
        "output": cost.output,
        "cache_read": cost.cache_read,
        "cache_write": cost.cache_write,
    }
    return {kind: price for kind, price in prices.items() if price is not None}
