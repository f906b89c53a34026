"""The KV pool of a loaded model and what computes on it, batched if the model can be."""

from helexa import logs
from helexa.engine.kept_trial import Found
from helexa.engine.kv import attention
from helexa.engine.kv.layers import Layers, NotTogether
from helexa.engine.kv.memory import Memory
from helexa.engine.kv.spans import BLOCK, rounded
from helexa.engine.kv.storage import storage_of
from helexa.engine.kv.trial import bytes_alone, try_together
from helexa.engine.lean.forward import Fused
from helexa.engine.lean.install import fused_form, try_fused
from helexa.engine.lean.parts import Unusual
from helexa.engine.loader import LoadedModel
from helexa.engine.orders import Load
from helexa.engine.runner import Alone, Runner, Together

DEFAULT_POSITIONS = 4096  # of a model that does not say how many it knows

log = logs.get("helexa.engine")


def make_room(order: Load, loaded: LoadedModel) -> tuple[Memory, Runner, str]:
    """The pool, the runner, and why sequences are computed one after the other ("" if they are not).

    Those have caches of their own, in the model's number format, and the pool only counts what they take.
    """
    dtype, device = loaded.dtype, loaded.device
    try:
        found = found_of(loaded)
    except NotTogether as reason:
        each = bytes_alone(loaded) or order.kv_bytes // (order.kv_tokens or 1)
        total = tokens_of(order, loaded, each)
        layers = Layers([], total, dtype, device, outside_bytes=each)
        return Memory(layers, total, keeps=False), Alone(loaded), str(reason)
    storage = storage_of(order.kv_dtype, dtype)
    each = sum(kind.bytes_per_token(storage) for kind in found.kinds)
    total = tokens_of(order, loaded, each)
    layers = Layers(found.kinds, total, dtype, device, order.kv_dtype)
    memory = Memory(layers, total, order.prefix_cache, order.snapshots, order.snapshot_bytes)
    return memory, Together(loaded, memory, fused(loaded, found)), ""


def found_of(loaded: LoadedModel) -> Found:
    """What an earlier load's trial found of the model, or one finds now.  NotTogether."""
    if loaded.found:
        log.info("tried at an earlier load", model=loaded.name)
        attention.use(loaded.model)
        return loaded.found
    tried = try_together(loaded)
    kinds, is_sure = tuple(tried.kinds), True
    try:
        try_fused(loaded, tried)
        found = Found(kinds, "")
    except Unusual as reason:
        found, is_sure = Found(kinds, str(reason)), reason.__cause__ is None
    if loaded.trial and is_sure:
        loaded.trial.write(found)
    return found


def fused(loaded: LoadedModel, found: Found) -> Fused | None:
    """The model in fewer operations, if it can be."""
    if found.unfused:
        log.info("not fused", model=loaded.name, reason=found.unfused)
        return None
    try:
        return fused_form(loaded, found.kinds)
    except Exception:
        if loaded.trial:  # whatever it was: the next load tries it again
            loaded.trial.forget()
        raise


def tokens_of(order: Load, loaded: LoadedModel, bytes_per_token: int) -> int:
    """What the pool holds: as ordered, or less if that would take more bytes; one block at least."""
    positions = loaded.max_positions or DEFAULT_POSITIONS
    total = rounded(order.kv_tokens or order.batch_width * positions)
    if not (order.kv_bytes and bytes_per_token):
        return total
    return min(total, max(BLOCK, order.kv_bytes // bytes_per_token // BLOCK * BLOCK))
