"""What the load of a model asks of a device, and what it gets there."""

from collections.abc import Sequence

from attrs import evolve, frozen

from helexa.engine.orders import Dtype, Quant
from helexa.errors import InsufficientVram, ModelNotFound
from helexa.fleet.dtype import BYTES
from helexa.fleet.known import Known
from helexa.fleet.limits import PrefillRate, Terms, Windows, pool_tokens, windows_beside
from helexa.fleet.placement import Room, place
from helexa.fleet.quant import Fused


@frozen
class Claim:
    """MiB for the weights, for the shortest context that the model is loaded with, and for the longest.

    `loading_mb` the weights take while they are loaded, before there is any context.
    """

    model: str
    terms: Terms
    weights_mb: int
    least_kv_mb: int
    most_kv_mb: int
    min_device_mb: int
    loading_mb: int = 0

    @property
    def required_mb(self) -> int:
        return max(self.loading_mb, self.weights_mb + self.least_kv_mb)

    @property
    def wanted_mb(self) -> int:
        """With which memory would not bound one sequence."""
        return self.weights_mb + self.most_kv_mb


@frozen
class Grant:
    """What a model has on its device: the terms of its context, a KV pool of so many tokens, windows."""

    terms: Terms
    kv_tokens: int
    windows: Windows

    @property
    def kv_mb(self) -> int:
        """MiB of the pool once all of it is in use."""
        return self.kv_tokens * self.terms.kv_bytes_per_token >> 20


def claim_of(
    known: Known,
    dtype: Dtype,
    rate: PrefillRate,
    quant: Quant = "none",
    fused: Fused = Fused(),
) -> Claim:
    """What a load in `dtype`, packed as `quant` says, asks for; the entry's `vram_mb` overrules that.

    InsufficientVram where the operator's budget is too small for the shortest context, ModelNotFound where
    the model is for several devices together.
    """
    entry, size = known.entry, known.size
    if entry.min_devices > 1:
        raise ModelNotFound(
            f"model {known.id} is for {entry.min_devices} devices together: this node runs a model on one",
            param="model",
        )
    terms = evolve(
        known.terms,
        kv_bytes_per_token=size.kv_bytes_per_token(dtype, known.terms.kv_dtype),
        kv_window_bytes=size.kv_window_bytes(dtype),
        prefill_rate=None if known.script else rate,
    )
    least_kv = kv_bytes(terms, terms.least_tokens)
    check_budget(known, terms, least_kv)
    least_kv_mb = least_kv >> 20
    reckoned = (size.loaded_bytes(dtype, quant, fused) + least_kv) // 2**20 + 1
    weights_mb = max(0, (entry.vram_mb or reckoned) - least_kv_mb)
    most_kv_mb = -(-kv_bytes(terms, terms.limit.context) // 2**20)
    loading_mb = 0 if entry.vram_mb else (size.weights_bytes(BYTES[dtype], quant) >> 20) + 1
    return Claim(
        *(known.id, terms, weights_mb, least_kv_mb, most_kv_mb),
        *(entry.min_device_vram_mb, loading_mb),
    )


def kv_bytes(terms: Terms, tokens: int) -> int:
    """Of one sequence."""
    return tokens * terms.kv_bytes_per_token + terms.kv_window_bytes


def check_budget(known: Known, terms: Terms, least_kv: int) -> None:
    budget = terms.kv_budget
    if budget is None or budget >= terms.least_tokens:
        return
    least_mb = -(-least_kv // 2**20)
    raise InsufficientVram(
        f"kv_budget_mb = {terms.kv_budget_mb} of model {known.id} holds {budget} tokens, less than one "
        f"sequence of {terms.least_tokens}: give it at least {least_mb}.",
        retry_after=float("inf"),
        required_mb=least_mb,
        free_mb=terms.kv_budget_mb,
    )


def choose(claim: Claim, rooms: Sequence[Room]) -> Room:
    """Where the model goes.  InsufficientVram, or ModelNotFound if it fits none of them ever."""
    return place(claim.model, claim.required_mb, claim.min_device_mb, rooms)


def grant(claim: Claim, room: Room, batch_width: int, max_snapshots: int = 0) -> Grant:
    """What the model gets where it has this room."""
    terms = evolve(
        claim.terms,
        free_mb=room.free_mb,
        spare_mb=room.spare_mb,
        weights_mb=claim.weights_mb,
        sequences=batch_width + max_snapshots,
    )
    kv_tokens = pool_tokens(terms, batch_width)
    return Grant(terms, kv_tokens, windows_beside(terms, kv_tokens, batch_width, max_snapshots))
