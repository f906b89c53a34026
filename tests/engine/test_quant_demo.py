"""The real demo model, a Q4_1 file, packed: its blocks are kept, and its choices hardly move."""

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from passes import fused_if_it_can_be, logits_of, read
from safetensors import safe_open
from tokenizers import Tokenizer

from helexa.engine.kv.layers import Kind
from helexa.engine.kv.trial import try_together
from helexa.engine.lean.forward import Fused
from helexa.engine.lean.native import Native
from helexa.engine.loader import LoadedModel
from helexa.engine.orders import Quant
from helexa.engine.quant.grid import fit_4_bit
from helexa.store import StoredModel

pytestmark = pytest.mark.real

TEXT = Path(__file__).parent / "texts/harbour.txt"
CUTS = tuple(range(8, 168, 8))  # where chunks end: so few tokens that they are computed packed
# What is promised of every packed form and every kernel: the mean divergence of the next token from the
# plain form in float32, in nats.
BOUND = 0.006


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def text(demo_model: StoredModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """What passes compute is a text that people wrote."""
    ids = Tokenizer.from_file(str(demo_model.path / "tokenizer.json")).encode(TEXT.read_text()).ids
    monkeypatch.setattr("passes.prompt_of", lambda length, seed: ids[seed : seed + length])


@pytest.mark.parametrize("quant", ["int4", "int8", "int4+bf16"])
def test_the_distribution_of_the_next_token_stays_within_the_promised_bound(
    quant: Quant, demo_model: StoredModel, text: None
) -> None:
    """By torch's kernels, and by those that are compiled here."""
    plain, packed = read(demo_model.path), read(demo_model.path, quant=quant)
    expected = scores(plain, try_together(plain).kinds)
    tried = try_together(packed)
    assert divergence(expected, scores(packed, tried.kinds)) <= BOUND
    fused = fused_if_it_can_be(packed, tried)
    assert type(fused) is Native
    assert divergence(expected, scores(packed, tried.kinds, fused)) <= BOUND


def scores(loaded: LoadedModel, kinds: list[Kind], fused: Fused | None = None) -> torch.Tensor:
    return logits_of(loaded, kinds, fused, CUTS).log_softmax(-1)


def divergence(expected: torch.Tensor, found: torch.Tensor) -> float:
    return (expected.exp() * (expected - found)).sum(-1).mean().item()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight"),
        ("model.layers.29.self_attn.v_proj.weight", "blk.29.attn_v.weight"),
    ],
)
def test_the_numbers_of_its_blocks_are_kept(
    ours: str, theirs: str, demo_model: StoredModel
) -> None:
    (file,) = demo_model.path.glob("*.gguf")
    tensor = next(t for t in gguf.GGUFReader(file).tensors if t.name == theirs)
    assert tensor.tensor_type.name == "Q4_1"
    nibbles = tensor.data.reshape(-1, 20)[:, 4:]  # after a scale and a minimum
    blocks = np.concatenate([nibbles & 15, nibbles >> 4], axis=1)
    with safe_open(demo_model.path / "model.safetensors", framework="pt") as weights:
        plane = fit_4_bit(weights.get_tensor(ours))
    assert np.array_equal(plane.levels.numpy().reshape(-1, 32), blocks)
