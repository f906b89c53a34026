"""Whether a loaded model can run a sequence that was ordered, and the sequence if it can."""

from helexa.engine.draft import Drafter
from helexa.engine.faults import full_pool
from helexa.engine.form import Form
from helexa.engine.kv.memory import Memory
from helexa.engine.loader import LoadedModel
from helexa.engine.orders import Add
from helexa.engine.sampler import Sampler
from helexa.engine.sequence import Sequence
from helexa.errors import ContextLengthExceeded, InvalidRequest


def check(order: Add, loaded: LoadedModel, memory: Memory) -> None:
    """Refuse what would fail on the device; there a token id out of range poisons the context."""
    if not order.prompt:
        raise InvalidRequest("the prompt is empty", param="prompt")
    if order.max_tokens < 1:
        raise InvalidRequest("max_tokens must be at least 1", param="max_tokens")
    vocabulary = range(loaded.vocab_size)
    if min(order.prompt) not in vocabulary or max(order.prompt) not in vocabulary:
        raise InvalidRequest(f"the prompt holds a token id outside of 0..{loaded.vocab_size - 1}")
    for token, _ in order.sampling.logit_bias:
        if token not in vocabulary:
            raise InvalidRequest(
                f"logit_bias names token {token}, which the model has not", param="logit_bias"
            )
    if loaded.max_positions and len(order.prompt) > loaded.max_positions:
        raise ContextLengthExceeded(
            f"This model's maximum context length is {loaded.max_positions} tokens. The prompt has "
            f"{len(order.prompt)}.",
            prompt_len=len(order.prompt),
            max=loaded.max_positions,
        )
    if len(order.prompt) > memory.total:
        raise full_pool(len(order.prompt), memory.total)


def start(order: Add, loaded: LoadedModel, memory: Memory, *, drafts: bool) -> Sequence:
    """The sequence, bounded by the positions that the model knows and by what the pool holds."""
    end = min(loaded.max_positions or memory.total, memory.total)
    max_tokens = min(order.max_tokens, max(1, end - len(order.prompt)))
    sampler = Sampler(order.sampling, order.prompt, loaded.vocab_size, loaded.device)
    form = None
    if order.constraint is not None:
        matcher = order.constraint.matcher()
        form = Form(matcher, order.stop_ids, max_tokens, loaded.vocab_size, loaded.device)
    tokens = list(order.prompt)
    drafter = Drafter(tokens, len(tokens) + max_tokens) if drafts else None
    return Sequence(order, max_tokens, sampler, tokens, form, drafter)
