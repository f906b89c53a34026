"""What each way of keeping weights, keys and values costs a model: perplexity, and how far its choices move.

    python tools/perplexity.py [MODEL] [--text FILE] [--dtype fp32] [--quant none int8 ...] [--kv int8 ...]

MODEL is a directory that `helexa models path` prints; without one, the demo model is taken from the
store.  The text is the one that the tests carry.  `KL` is the mean Kullback-Leibler divergence of the
next token's distribution from the first row's, in nats; `same` how often the likeliest token is the
first row's.  Every policy is measured with keys and values as the model computes them, then each other way
of keeping those with the first policy.  The plain form and "int4+bf16" compute so many rows at once in the
same way: that one is measured a few tokens at a time, as it decodes.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import torch
from attrs import frozen
from tokenizers import Tokenizer
from torch import Tensor

from helexa.engine.kv.memory import Memory
from helexa.engine.kv.spans import rounded
from helexa.engine.kv.trial import sequence_of
from helexa.engine.loader import LoadedModel, load
from helexa.engine.orders import Dtype, KvDtype, Load, Quant
from helexa.engine.quant.linear import PACKED_ROWS
from helexa.engine.room import make_room
from helexa.engine.runner import Runner
from helexa.engine.scheduler import Chunk
from helexa.errors import HelexaError, StoreError

TEXT = Path(__file__).parent.parent / "tests/engine/texts/harbour.txt"
ROW = "| {:<10} | {:<5} | {:>10} | {:>11} | {:>10} | {:>8} | {:>6} |"
KV_TOKENS = 64  # read at once; each sees all before it, and itself, as the pool keeps them


@frozen
class Measured:
    """Of one policy: `scores` are the log-probabilities [tokens, vocabulary]."""

    weights_bytes: int
    kv_bytes_per_token: int
    scores: Tensor


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    path = args.model or demo()
    ids = Tokenizer.from_file(str(path / "tokenizer.json")).encode(args.text.read_text()).ids
    print(f"{path.name}, {args.dtype}, {len(ids)} tokens of {args.text.name}\n")
    print(ROW.format("quant", "kv", "weights MB", "KV KB/token", "perplexity", "KL", "same"))
    print("|---|---|---|---|---|---|---|")
    kinds = [*((quant, "auto") for quant in args.quant), *((args.quant[0], kv) for kv in args.kv)]
    first: Tensor | None = None
    for quant, kv_dtype in kinds:
        try:
            found = measured(path, args.device, args.dtype, quant, kv_dtype, ids)
        except HelexaError as error:
            print(f"| {quant} | {kv_dtype} | {error.message} |")
            continue
        first = found.scores if first is None else first
        print(row(quant, kv_dtype, found, first, ids), flush=True)
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("model", type=Path, nargs="?")
    made.add_argument("--text", type=Path, default=TEXT)
    made.add_argument("--device", default="cpu")
    made.add_argument("--dtype", choices=get_args(Dtype), default="fp32")
    made.add_argument("--quant", nargs="+", choices=get_args(Quant), default=get_args(Quant))
    others = [kv for kv in get_args(KvDtype) if kv != "auto"]
    made.add_argument("--kv", nargs="*", choices=others, default=others)
    return made


def demo() -> Path:
    import os

    from helexa.config.places import places
    from helexa.config.schema import Config
    from helexa.fleet.catalogue import DEMO_MODEL
    from helexa.store import Store

    config = Config()
    return Store(config.store, places(config, os.environ).store_dir).add(DEMO_MODEL.source).path


@torch.inference_mode()
def measured(
    path: Path, device: str, dtype: Dtype, quant: Quant, kv_dtype: KvDtype, ids: list[int]
) -> Measured:
    order = Load(1, path.name, path, device, dtype, 1, len(ids), quant=quant, kv_dtype=kv_dtype)
    loaded = loaded_model(order)
    memory, runner, alone = make_room(order, loaded)
    if alone and kv_dtype != "auto":
        raise StoreError(f"its sequences run one at a time, with caches of their own: {alone}")
    scores = torch.cat(list(logits(loaded, memory, runner, ids, quant))).log_softmax(-1)
    return Measured(runner.weights_bytes, memory.layers.bytes_per_token, scores)


def loaded_model(order: Load) -> LoadedModel:
    slices = load(order)
    while True:
        try:
            next(slices)
        except StopIteration as end:
            model: LoadedModel = end.value
            return model


def logits(
    loaded: LoadedModel, memory: Memory, runner: Runner, ids: list[int], quant: Quant
) -> Iterator[Tensor]:
    """As the engine computes them, a few tokens at a time."""
    sequence = sequence_of(1, ids, loaded)
    memory.begin(1, ids, "", rounded(len(ids)), reuses=False)
    for start, part in parts_of(ids, PACKED_ROWS if quant == "int4+bf16" else KV_TOKENS):
        found = runner.whole(Chunk(1, start, len(part), samples=True), sequence)
        memory.advance(1, ids, start + len(part))
        yield found.float().cpu()


def parts_of(ids: list[int], width: int) -> Iterator[tuple[int, list[int]]]:
    return ((start, ids[start : start + width]) for start in range(0, len(ids), width))


def row(quant: Quant, kv_dtype: KvDtype, found: Measured, first: Tensor, ids: list[int]) -> str:
    scores = found.scores[:-1]
    loss = -scores.gather(1, torch.tensor(ids[1:])[:, None]).mean().item()
    base = first[:-1]
    divergence = (base.exp() * (base - scores)).sum(-1).mean().item()
    same = (base.argmax(-1) == scores.argmax(-1)).float().mean().item()
    return ROW.format(
        quant,
        kv_dtype,
        f"{found.weights_bytes / 2**20:.0f}",
        f"{found.kv_bytes_per_token / 1024:.1f}",
        f"{math.exp(loss):.3f}",
        f"{max(0.0, divergence):.4f}",
        f"{same:.1%}",
    )


if __name__ == "__main__":
    raise SystemExit(main())
