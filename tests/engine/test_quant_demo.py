"""The real demo model, a Q4_1 file, packed: its blocks are kept, and its choices hardly move."""

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from passes import read
from safetensors import safe_open
from tokenizers import Tokenizer

from helexa.engine.orders import Quant
from helexa.engine.quant.grid import fit_4_bit
from helexa.store import StoredModel

pytestmark = pytest.mark.real

TEXT = Path(__file__).parent / "texts/harbour.txt"
TOKENS = 160
# Mean divergence from the plain form in fp32, in nats, and the part by which the loss may grow.
BOUNDS: dict[Quant, tuple[float, float]] = {
    "int4": (0.003, 0.01),
    "int4+bf16": (0.003, 0.01),
    "int8": (0.006, 0.02),
}


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def loss_and_scores(model: StoredModel, quant: Quant) -> tuple[float, torch.Tensor]:
    ids = Tokenizer.from_file(str(model.path / "tokenizer.json")).encode(TEXT.read_text()).ids
    loaded, parts, cache = read(model.path, quant=quant), [], None
    for start in range(0, TOKENS, 8):  # so few that they are computed in the packed form
        part = torch.tensor([ids[start : start + 8]])
        output = loaded.model(part, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        parts.append(output.logits[0].log_softmax(-1))
    scores = torch.cat(parts)
    following = torch.tensor(ids[1 : TOKENS + 1])[:, None]
    return -scores.gather(1, following).mean().item(), scores


@pytest.fixture(scope="module")
def plain(demo_model: StoredModel) -> tuple[float, torch.Tensor]:
    with torch.inference_mode():
        return loss_and_scores(demo_model, "none")


@pytest.mark.parametrize("quant", BOUNDS)
def test_the_distribution_of_the_next_token_stays_within_the_stated_bound(
    quant: Quant, demo_model: StoredModel, plain: tuple[float, torch.Tensor]
) -> None:
    (loss, expected), (found_loss, found) = plain, loss_and_scores(demo_model, quant)
    divergence = (expected.exp() * (expected - found)).sum(-1).mean().item()
    most_divergence, most_growth = BOUNDS[quant]
    assert divergence <= most_divergence
    assert found_loss <= loss * (1 + most_growth)


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
