"""What each way of keeping weights costs a model: perplexity over a text, and how far its choices move.

    python tools/perplexity.py [MODEL] [--text FILE] [--dtype fp32] [--quant none int8 ...]

MODEL is a directory that `helexa models path` prints; without one, the demo model is taken from the
store.  The text is the one that the tests carry.  `KL` is the mean Kullback-Leibler divergence of the
next token's distribution from the first policy's, in nats; `same` how often the likeliest token is the
first policy's.  The plain form and "int4+bf16" compute so many rows at once in the same way: that one
is measured a few tokens at a time, as it decodes.
"""

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import torch
from attrs import frozen
from tokenizers import Tokenizer
from torch import Tensor

from helexa.engine.loader import LoadedModel, load
from helexa.engine.orders import Dtype, Load, Quant
from helexa.engine.quant.linear import PACKED_ROWS
from helexa.errors import HelexaError

TEXT = Path(__file__).parent.parent / "tests/engine/texts/harbour.txt"
ROW = "| {:<10} | {:>10} | {:>10} | {:>8} | {:>6} | {:>8} |"


@frozen
class Measured:
    """Of one policy: `scores` are the log-probabilities [tokens, vocabulary]."""

    weights_bytes: int
    seconds: float
    scores: Tensor


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    path = args.model or demo()
    ids = Tokenizer.from_file(str(path / "tokenizer.json")).encode(args.text.read_text()).ids
    print(f"{path.name}, {args.dtype}, {len(ids)} tokens of {args.text.name}\n")
    print(ROW.format("quant", "weights MB", "perplexity", "KL", "same", "load s"))
    print("|---|---|---|---|---|---|")
    first: Tensor | None = None
    for quant in args.quant:
        try:
            found = measured(path, args.device, args.dtype, quant, ids)
        except HelexaError as error:
            print(f"| {quant} | {error.message} |")
            continue
        first = found.scores if first is None else first
        print(row(quant, found, first, ids), flush=True)
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("model", type=Path, nargs="?")
    made.add_argument("--text", type=Path, default=TEXT)
    made.add_argument("--device", default="cpu")
    made.add_argument("--dtype", choices=get_args(Dtype), default="fp32")
    made.add_argument("--quant", nargs="+", choices=get_args(Quant), default=get_args(Quant))
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
def measured(path: Path, device: str, dtype: Dtype, quant: Quant, ids: list[int]) -> Measured:
    began = time.monotonic()
    loaded = loaded_model(Load(1, path.name, path, device, dtype, 1, len(ids), quant=quant))
    seconds = time.monotonic() - began
    width = PACKED_ROWS if quant == "int4+bf16" else len(ids)
    parts = list(score(loaded, ids, width))
    return Measured(loaded.weights_bytes, seconds, torch.cat(parts).log_softmax(-1))


def loaded_model(order: Load) -> LoadedModel:
    slices = load(order)
    while True:
        try:
            next(slices)
        except StopIteration as end:
            model: LoadedModel = end.value
            return model


def score(loaded: LoadedModel, ids: list[int], width: int) -> Iterator[Tensor]:
    """The logits, `width` tokens at a time."""
    cache = None
    for start in range(0, len(ids), width):
        part = torch.tensor([ids[start : start + width]], device=loaded.device)
        output = loaded.model(part, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        yield output.logits[0].float().cpu()


def row(quant: Quant, found: Measured, first: Tensor, ids: list[int]) -> str:
    scores = found.scores[:-1]
    loss = -scores.gather(1, torch.tensor(ids[1:])[:, None]).mean().item()
    base = first[:-1]
    divergence = (base.exp() * (base - scores)).sum(-1).mean().item()
    same = (base.argmax(-1) == scores.argmax(-1)).float().mean().item()
    return ROW.format(
        quant,
        f"{found.weights_bytes / 2**20:.0f}",
        f"{math.exp(loss):.3f}",
        f"{max(0.0, divergence):.4f}",
        f"{same:.1%}",
        f"{found.seconds:.1f}",
    )


if __name__ == "__main__":
    raise SystemExit(main())
