"""Weights as whole numbers: those that are on a grid keep them, the others move by a stated bound."""

from collections.abc import Callable

import gguf
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from helexa.engine.quant.grid import GROUP, Plane, fit_4_bit, fit_8_bit

Q = gguf.GGMLQuantizationType
BFLOAT16 = 2**-8  # the most that rounding to it moves a number, as a part of it


def some_weight(seed: int = 0, rows: int = 48, columns: int = 256) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.05


def through_gguf(weight: Tensor, kind: gguf.GGMLQuantizationType) -> Tensor:
    packed = gguf.quantize(weight.numpy(), kind)
    return torch.from_numpy(gguf.dequantize(packed, kind).copy())


def groups(weight: Tensor) -> Tensor:
    return weight.view(len(weight), -1, GROUP)


def shorter(weight: Tensor) -> Tensor:
    """Q4_1 blocks as an importance matrix makes them: their 16 levels are not all in use."""
    numbers = torch.randint(3, 12, weight.shape, generator=torch.Generator().manual_seed(1))
    return (groups(numbers) * 0.01 - 0.04).view(weight.shape)


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", [Q.Q4_0, Q.Q4_1, None], ids=["Q4_0", "Q4_1", "part of Q4_1"])
def test_4_bit_blocks_keep_their_numbers_whatever_they_were_stored_in(
    kind: gguf.GGMLQuantizationType | None, stored: torch.dtype
) -> None:
    weight = some_weight()
    blocks = through_gguf(weight, kind) if kind else shorter(weight)
    plane = fit_4_bit(blocks.to(stored))
    assert numbers_agree(groups(plane.levels.float()), groups(blocks))


def numbers_agree(levels: Tensor, blocks: Tensor) -> bool:
    """Whether equal weights have equal levels, and others others, in the same order."""
    by_weight, by_level = blocks.argsort(stable=True), levels.argsort(stable=True)
    steps = blocks.gather(-1, by_weight).diff() > 1e-5
    same = levels.gather(-1, by_weight).diff() > 0
    return bool((steps == same).all()) and bool((blocks.gather(-1, by_level).diff() >= -1e-5).all())


@pytest.mark.parametrize("kind", [Q.Q4_0, Q.Q4_1])
def test_4_bit_blocks_move_by_less_than_a_fifteenth_of_a_level(
    kind: gguf.GGMLQuantizationType,
) -> None:
    blocks = through_gguf(some_weight(), kind)
    moved = groups(fit_4_bit(blocks.half()).weight(256) - blocks).abs().amax(-1)
    level = (groups(blocks).amax(-1) - groups(blocks).amin(-1)) / 15
    assert (moved <= level / 15).all()


def test_8_bit_blocks_keep_their_numbers() -> None:
    weight = some_weight()
    blocks = through_gguf(weight, Q.Q8_0)
    plane = fit_8_bit(blocks.half())
    high, low = plane.levels.int().chunk(2, dim=1)
    numbers = 16 * high + low - 128
    raw = torch.from_numpy(gguf.quantize(weight.numpy(), Q.Q8_0)).view(-1, 34)[:, 2:]
    assert torch.equal(numbers.view(-1, GROUP), raw.view(torch.int8).int())
    assert (plane.weight(256) - blocks).abs().le(blocks.abs() * BFLOAT16 + 1e-6).all()


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.floats(1e-4, 1e3), st.floats(-10, 10))
def test_any_weight_moves_by_half_a_level_and_the_rounding_of_its_scale(
    seed: int, size: float, offset: float
) -> None:
    weight = some_weight(seed, rows=4, columns=64) * size + offset * size
    lowest, highest = groups(weight).aminmax(dim=-1)
    span = highest - lowest
    largest = groups(weight).abs().amax(-1)
    off_4 = groups(fit_4_bit(weight).weight(64) - weight).abs().amax(-1)
    assert (off_4 <= span / 30 * 1.4 + largest * BFLOAT16).all()
    off_8 = groups(fit_8_bit(weight).weight(64) - weight).abs().amax(-1)
    assert (off_8 <= largest / 254 + largest * BFLOAT16).all()


@pytest.mark.parametrize("fit", [fit_4_bit, fit_8_bit])
@pytest.mark.parametrize("value", [0.0, 3.3, -1e-6])
def test_a_group_of_one_value_is_that_value(fit: Callable[[Tensor], Plane], value: float) -> None:
    found = fit(torch.full((2, 64), value)).weight(64)
    assert torch.allclose(found, torch.full((2, 64), value), rtol=BFLOAT16)


@pytest.mark.parametrize("kind", [Q.Q5_0, Q.Q5_1, Q.Q8_0])
def test_blocks_of_more_bits_are_rounded_to_8_with_less_than_a_hundredth_of_error(
    kind: gguf.GGMLQuantizationType,
) -> None:
    blocks = through_gguf(some_weight(), kind)
    error = (fit_8_bit(blocks).weight(256) - blocks).square().mean().sqrt() / blocks.std()
    assert error < 0.01


def test_a_super_block_of_q4_k_has_groups_that_are_kept() -> None:
    """Q4_K is w = (d · s) q - (m · n) in groups of 32: a grid of 16 levels too."""
    random = torch.Generator().manual_seed(2)
    numbers = torch.randint(0, 16, (16, 8, GROUP), generator=random)
    scales = torch.randint(1, 64, (16, 8, 1), generator=random) * 0.0007
    minima = torch.randint(0, 64, (16, 8, 1), generator=random) * 0.002
    weight = (scales * numbers - minima).flatten(1)
    plane = fit_4_bit(weight.half())
    moved = groups(plane.weight(256) - weight).abs().amax(-1, keepdim=True)
    assert (moved <= scales / 4 + minima * BFLOAT16).all()
