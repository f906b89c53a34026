"""Passes through a model as the engine makes them, without the engine around them."""

from pathlib import Path
from typing import Any

import torch
from toys import load_order, prompt_of

from helexa.engine.kv.layers import Kind, Layers
from helexa.engine.kv.memory import Memory
from helexa.engine.kv.spans import rounded
from helexa.engine.kv.trial import Tried, sequence_of
from helexa.engine.lean.forward import Fused
from helexa.engine.lean.install import fused_form, try_fused
from helexa.engine.lean.parts import Unusual
from helexa.engine.loader import LoadedModel, load
from helexa.engine.orders import Load, LoadProgress
from helexa.engine.runner import Together
from helexa.engine.scheduler import Chunk

CUTS = (5, 30, 31, 32, 70)  # where the chunks of a text end: texts, single tokens, a long one


def carried_out(order: Load) -> tuple[LoadedModel, list[LoadProgress]]:
    """The loaded model, and what was told on the way."""
    slices, told = load(order), list[LoadProgress]()
    while True:
        try:
            told.append(next(slices))
        except StopIteration as end:
            return end.value, told


def read(path: Path, **changes: Any) -> LoadedModel:
    return carried_out(load_order(path, **changes))[0]


def fused_if_it_can_be(loaded: LoadedModel, tried: Tried) -> Fused | None:
    """As at the first load of a model."""
    try:
        try_fused(loaded, tried)
    except Unusual:
        return None
    return fused_form(loaded, tried.kinds)


def logits_of(
    loaded: LoadedModel, kinds: list[Kind], fused: Fused | None, cuts: tuple[int, ...] = CUTS
) -> torch.Tensor:
    """Of all tokens of two texts that are computed together, in chunks that end at `cuts`."""
    total = 2 * rounded(cuts[-1])
    layers = Layers(kinds, total, loaded.dtype, "cpu")
    memory = Memory(layers, total, keeps=False)
    runner = Together(loaded, memory, fused)
    texts = {uid: list(prompt_of(cuts[-1] - uid, seed=uid)) for uid in (0, 1)}
    texts = {uid: [t % loaded.vocab_size for t in text] for uid, text in texts.items()}
    tried = {uid: sequence_of(uid, text, loaded) for uid, text in texts.items()}
    for uid, text in texts.items():
        memory.begin(uid, text, "", rounded(len(text)), reuses=False)
    found = []
    for start, end in zip((0, *cuts), cuts, strict=False):
        chunks = [Chunk(uid, start, end - start, samples=True) for uid in tried]
        chunks[1] = Chunk(1, max(0, start - 1), end - max(1, start), samples=True)
        logits = runner.run(chunks, tried).logits
        assert logits is not None
        found.append(logits)
    return torch.cat(found)
