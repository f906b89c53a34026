"""The KV pool of a loaded model and what computes on it, batched if the model can be."""

from helexa.engine.kv.layers import Alone as NotTogether
from helexa.engine.kv.layers import Layers
from helexa.engine.kv.memory import Memory
from helexa.engine.kv.spans import rounded
from helexa.engine.kv.trial import try_together
from helexa.engine.loader import LoadedModel
from helexa.engine.orders import Load
from helexa.engine.runner import Alone, Runner, Together

DEFAULT_POSITIONS = 4096  # of a model that does not say how many it knows


def make_room(order: Load, loaded: LoadedModel) -> tuple[Memory, Runner, str]:
    """The pool, the runner, and why sequences are computed one after the other ("" if they are not)."""
    positions = loaded.max_positions or DEFAULT_POSITIONS
    total = rounded(order.kv_tokens or order.batch_width * positions)
    dtype, device = loaded.model.dtype, loaded.device
    try:
        kinds = try_together(loaded)
    except NotTogether as reason:
        memory = Memory(Layers([], total, dtype, device), total, keeps=False)
        return memory, Alone(loaded), str(reason)
    memory = Memory(Layers(kinds, total, dtype, device), total, keeps=order.prefix_cache)
    return memory, Together(loaded, memory), ""
