"""Whether sequences of a model can be computed together: it is tried on a few tokens when it was loaded.

Architectures differ in what their attention expects of a cache; what comes out right here is batched,
whatever it is called, and what does not is computed one sequence after the other.
"""

import torch
from attrs import frozen
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import DynamicCache, PreTrainedModel

from helexa.devices.faults import classify
from helexa.engine.kv import attention
from helexa.engine.kv.layers import Kind, Layers, NotTogether, kinds_of
from helexa.engine.kv.memory import Memory
from helexa.engine.kv.spans import BLOCK
from helexa.engine.lean.forward import Fused
from helexa.engine.loader import LoadedModel
from helexa.engine.orders import Add, SamplingParams
from helexa.engine.runner import Together
from helexa.engine.sampler import Sampler
from helexa.engine.scheduler import Chunk
from helexa.engine.sequence import Sequence

LENGTHS = (6, 4)  # tokens of what is tried; the last of each is decoded together with the other's
ALONE_LENGTHS = (4, 12)
# How alike logits must be, as the cosine of what they differ from their mean.  Narrow numbers, and
# layers that compute otherwise for few rows, round differently; a mask that is wrong is far off.
ALIKE = {torch.float32: 0.999}
ROUGHLY_ALIKE = 0.9


@frozen(eq=False)
class Tried:
    """What the layers of a model keep, and the logits [rows, vocab] of the texts that it was tried on."""

    kinds: list[Kind]
    logits: Tensor


def try_together(loaded: LoadedModel) -> Tried:
    """NotTogether, with the reason, if sequences of the model cannot be batched."""
    own = loaded.model.config._attn_implementation
    try:
        return compare(loaded)
    except Exception as error:
        if classify(error) != "other":
            raise
        loaded.model.set_attn_implementation(own)
        if isinstance(error, NotTogether):
            raise
        raise NotTogether(f"its attention cannot be exchanged ({error})") from error


@torch.inference_mode()
def compare(loaded: LoadedModel) -> Tried:
    expected = []
    for tokens in texts_of(loaded.vocab_size):
        cache = DynamicCache(config=loaded.model.config)
        expected.append(whole(loaded.model, tokens, cache, loaded.device))
    kinds = kinds_of(cache, loaded.max_positions)
    attention.use(loaded.model)
    found = ours(loaded, kinds)
    need = ALIKE.get(loaded.dtype, ROUGHLY_ALIKE)
    if not alike(torch.cat(expected).float(), found, need):
        raise NotTogether("computed together, its sequences come out differently")
    return Tried(kinds, found)


def texts_of(vocab_size: int) -> list[list[int]]:
    return [[(7 * length + 3 * i) % vocab_size for i in range(length)] for length in LENGTHS]


def whole(model: PreTrainedModel, tokens: list[int], cache: DynamicCache, device: str) -> Tensor:
    """The logits of the last two tokens, as transformers computes them."""
    ids = torch.tensor([tokens], device=device)
    logits: Tensor = model(input_ids=ids, past_key_values=cache, logits_to_keep=2).logits[0]
    return logits


def ours(loaded: LoadedModel, kinds: list[Kind], fused: Fused | None = None) -> Tensor:
    """The same in float32, all texts up to their last tokens in one pass, these in another."""
    texts = texts_of(loaded.vocab_size)
    layers = Layers(kinds, len(texts) * BLOCK, loaded.dtype, loaded.device)
    memory = Memory(layers, len(texts) * BLOCK, keeps=False)
    runner = Together(loaded, memory, fused)
    tried = {uid: sequence_of(uid, tokens, loaded) for uid, tokens in enumerate(texts)}
    for uid, tokens in enumerate(texts):
        memory.begin(uid, tokens, "", BLOCK, reuses=False)
    steps = []
    for starts in ([0] * len(texts), [len(tokens) - 1 for tokens in texts]):
        counts = [
            1 if start else len(tokens) - 1 for start, tokens in zip(starts, texts, strict=True)
        ]
        chunks = [Chunk(uid, starts[uid], counts[uid], samples=True) for uid in tried]
        logits = runner.run(chunks, tried).logits
        assert logits is not None
        steps.append(logits)
    return torch.stack(steps, 1).flatten(0, 1).float()


def sequence_of(uid: int, tokens: list[int], loaded: LoadedModel) -> Sequence:
    sampler = Sampler(SamplingParams(), tokens, loaded.vocab_size, loaded.device)
    return Sequence(Add(uid, 0, tuple(tokens), max_tokens=1), 1, sampler, tokens)


@torch.inference_mode()
def bytes_alone(loaded: LoadedModel) -> int:
    """What a token takes in transformers' own cache, told from two texts; a window counts as if it grew."""
    found = []
    for length in ALONE_LENGTHS:
        cache = DynamicCache(config=loaded.model.config)
        whole(loaded.model, [i % loaded.vocab_size for i in range(length)], cache, loaded.device)
        kept = [value for layer in cache.layers for value in vars(layer).values()]
        found.append(sum(map(tensor_bytes, kept)))
    return max(0, found[1] - found[0]) // (ALONE_LENGTHS[1] - ALONE_LENGTHS[0])


def tensor_bytes(value: object) -> int:
    """Of all tensors in what a layer of a cache keeps, in whatever way."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(tensor_bytes, value.values()))
    return sum(map(tensor_bytes, value)) if isinstance(value, list | tuple) else 0


def alike(expected: Tensor, found: Tensor, need: float) -> bool:
    """Whether rows of logits [rows, vocab] point the same way.  Not a number is nobody's fault here."""
    if not torch.isfinite(expected).all():
        return True
    expected, found = (logits - logits.mean(-1, keepdim=True) for logits in (expected, found))
    return bool((cosine_similarity(expected, found, dim=-1) >= need).all())
