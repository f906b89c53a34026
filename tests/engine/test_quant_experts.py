"""Packed experts of mixtures compute what their weights say, take what was reckoned, and are kept."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from passes import read
from torch import Tensor, nn
from transformers import PreTrainedModel

from helexa.engine.orders import Quant
from helexa.engine.quant.experts import SIDES, PackedExperts, expert_weight, is_experts
from helexa.engine.quant.grid import fit_4_bit, fit_8_bit
from helexa.fleet.fit import size_of
from helexa.store.facts import read_facts
from helexa.store.record import RECORD

Toy = Callable[..., Path]
# Of experts whose weights were rounded as they were packed, in the root mean square, as a part of the
# spread of what they give: products in bfloat16.
BOUND = 0.01

MIXTURES: dict[str, dict[str, Any]] = {
    "mixtral": {},
    "gpt_oss": {},
    "qwen3_next": {},
    "qwen3_moe": {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
}
WIDE = {"hidden_size": 64, "vocab_size": 208}  # shapes that the kernels take


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def experts_of(model: PreTrainedModel) -> list[nn.Module]:
    return [each for each in model.modules() if isinstance(each, PackedExperts) or is_experts(each)]


def rounded(experts: nn.Module, quant: Quant) -> nn.Module:
    """The plain module with the weights that a packed one has."""
    fit = fit_8_bit if quant == "int8" else fit_4_bit
    for side, name in SIDES.items():
        weight = experts.get_parameter(name)
        for expert in range(len(weight)):
            form = expert_weight(experts, side, expert)
            found = fit(form).weight(form.shape[1])
            weight[expert] = found.t() if experts.is_transposed else found
    return experts


def chosen(experts: int, tokens: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    weights, places = torch.rand(tokens, experts, generator=random).topk(2)
    return places, weights


@pytest.mark.parametrize("architecture", MIXTURES)
@pytest.mark.parametrize("quant", ["int8", "int4"])
def test_packed_experts_compute_what_their_weights_say(
    architecture: str, quant: Quant, toy: Toy
) -> None:
    path = toy(architecture, **WIDE, **MIXTURES[architecture])
    plain, packed = (experts_of(read(path, quant=each).model) for each in ("none", quant))
    assert len(plain) == len(packed) > 0
    for one, other in zip(plain, packed, strict=True):
        assert isinstance(other, PackedExperts)
        hidden = torch.randn(7, 64, generator=torch.Generator().manual_seed(1))
        places, weights = chosen(4, 7)
        expected, found = (
            rounded(one, quant)(hidden, places, weights),
            other(hidden, places, weights),
        )
        assert (found - expected).square().mean().sqrt() <= BOUND * expected.std()


@pytest.mark.parametrize("architecture", MIXTURES)
@pytest.mark.parametrize("quant", ["none", "int8", "int4", "int4+bf16"])
def test_experts_take_what_was_reckoned(architecture: str, quant: Quant, toy: Toy) -> None:
    path = toy(architecture, **WIDE, **MIXTURES[architecture])
    reckoned = size_of(read_facts(path)).weights_bytes(4, quant)
    assert read(path, quant=quant).weights_bytes == pytest.approx(reckoned, rel=0.02)


def test_the_plain_form_beside_the_packed_one_serves_many_rows(toy: Toy) -> None:
    path = toy("mixtral", **WIDE)
    (plain, *_), (both, *_), (packed, *_) = (
        [each for each in read(path, quant=quant).model.modules() if is_experts(each)]
        if quant == "none"
        else [
            each
            for each in read(path, quant=quant).model.modules()
            if isinstance(each, PackedExperts)
        ]
        for quant in ("none", "int4+bf16", "int4")
    )
    for tokens, same in ((8, packed), (9, plain)):
        hidden = torch.randn(tokens, 64, generator=torch.Generator().manual_seed(1))
        choice = chosen(4, tokens)
        assert torch.equal(both(hidden, *choice), same(hidden, *choice))


def test_experts_are_found_packed_at_the_next_load(toy: Toy, tmp_path: Path) -> None:
    path = shutil.copytree(toy("mixtral", **WIDE), tmp_path / "mixtral")
    files = {file.name: {"sha256": file.name} for file in path.iterdir()}
    (path / RECORD).write_text(json.dumps({"files": files}))
    first = {name: each.clone() for name, each in read(path, quant="int4").model.named_buffers()}
    (kept,) = (path / "packed").iterdir()
    before = kept.stat().st_mtime_ns
    second = dict(read(path, quant="int4").model.named_buffers())
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert kept.stat().st_mtime_ns == before


def test_experts_of_an_odd_shape_stay_plain_and_it_is_told(
    toy: Toy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "helexa.engine")
    model = read(toy("mixtral"), quant="int8").model  # 48 columns
    assert not any(isinstance(each, PackedExperts) for each in model.modules())
    assert "experts stay plain" in caplog.text
