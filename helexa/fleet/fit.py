"""Which ways of keeping a model's weights fit a device, and the context that each leaves."""

from attrs import evolve, frozen

from helexa.engine.orders import Dtype, Quant
from helexa.fleet.dtype import BYTES
from helexa.fleet.known import Size
from helexa.fleet.limits import Terms, kv_elements
from helexa.fleet.placement import Room
from helexa.fleet.quant import POLICIES, Fused, why_not
from helexa.store.facts import ModelFiles

USUAL = frozenset({"llama", "mistral", "qwen2", "qwen3"})  # that the engine fuses (`lean`)


@frozen
class Fit:
    """One policy on one device.  `kv_mb` is one sequence of `context` tokens; `reason`: why it is none."""

    quant: Quant
    weights_mb: int
    kv_mb: int = 0
    context: int = 0
    input: int = 0
    reason: str = ""


def size_of(files: ModelFiles) -> Size:
    facts, layers = files.facts, files.facts.layers
    return Size(
        files.parameters,
        elements_per_token=kv_elements(facts.kv_heads, facts.head_dim),
        full_layers=layers.full,
        sliding_layers=layers.sliding,
        window=layers.window,
        packable=files.packable,
        heads_per_token=kv_elements(facts.kv_heads, 1),
        state_elements=layers.state_elements,
        fuses=facts.model_type in USUAL,
    )


def fits(
    size: Size,
    stated: Terms,
    dtype: Dtype,
    room: Room,
    compute_capability: str | None,
    fused: Fused = Fused(),
) -> list[Fit]:
    """Every policy, from the largest; `stated` are the terms of the model's files and its entry."""
    terms = evolve(
        stated,
        kv_bytes_per_token=size.kv_bytes_per_token(dtype, stated.kv_dtype),
        kv_window_bytes=size.kv_window_bytes(dtype),
        free_mb=room.free_mb,
        spare_mb=room.spare_mb,
    )
    found = []
    for quant in POLICIES:
        loading_mb = (size.weights_bytes(BYTES[dtype], quant) >> 20) + 1
        weights_mb = (size.loaded_bytes(dtype, quant, fused) >> 20) + 1
        refusal = why_not(quant, compute_capability)
        if not refusal and loading_mb + room.spare_mb > room.free_mb:
            refusal = "does not fit"
        found.append(fit(evolve(terms, weights_mb=weights_mb), quant, refusal))
    return found


def fit(terms: Terms, quant: Quant, refusal: str) -> Fit:
    if refusal:
        return Fit(quant, terms.weights_mb, reason=refusal)
    if terms.memory is not None and terms.memory < terms.least_tokens:
        return Fit(quant, terms.weights_mb, reason="does not fit")
    limit = terms.limit
    kv_bytes = limit.context * terms.kv_bytes_per_token + terms.kv_window_bytes
    return Fit(quant, terms.weights_mb, -(-kv_bytes // 2**20), limit.context, limit.input)
