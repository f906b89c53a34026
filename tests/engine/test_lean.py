"""What is fused computes what transformers' modules do, and only where a model has the shape for it."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from passes import fused_if_it_can_be, logits_of, read
from toys import ARCHITECTURES
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from helexa.engine.kv.trial import try_together
from helexa.engine.lean import products
from helexa.engine.lean.forward import Lean, Rotation, normaliser
from helexa.engine.lean.parts import Norm, parts_of
from helexa.engine.lean.products import Apart, Half, Packed, Plain, Product, joined
from helexa.engine.quant.grid import fit_4_bit
from helexa.engine.quant.kernels import int4_kernel, pack_cpu, scales_and_zeros, unpack_cpu
from helexa.engine.quant.linear import PackedLinear
from helexa.store import StoredModel

Toy = Callable[..., Path]

USUAL = ("llama", "mistral", "qwen2", "qwen3")


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


# -- models ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", USUAL)
@pytest.mark.parametrize("changes", [{}, {"head_dim": 24, "num_key_value_heads": 4}])
def test_a_model_of_the_usual_shape_is_fused_and_computes_the_same(
    architecture: str, changes: dict[str, Any], toy: Toy
) -> None:
    loaded = read(toy(architecture, **changes))
    tried = try_together(loaded)
    expected = logits_of(loaded, tried.kinds, None)
    fused = fused_if_it_can_be(loaded, tried)
    assert type(fused) is Lean
    assert all(type(product) is Plain for layer in fused.layers for product in layer.products)
    assert fused.nbytes == pytest.approx(loaded.weights_bytes, rel=0.05)
    torch.testing.assert_close(
        logits_of(loaded, tried.kinds, fused), expected, rtol=0, atol=1e-4 * float(expected.std())
    )


def test_the_last_layer_goes_on_with_what_is_asked_for_alone(toy: Toy) -> None:
    loaded = read(toy())
    tried = try_together(loaded)
    fused = fused_if_it_can_be(loaded, tried)
    assert type(fused) is Lean
    counts = []
    for layer in fused.layers[-2:]:
        layer.down = counting(layer.down, rows := list[int]())
        counts.append(rows)
    logits_of(loaded, tried.kinds, fused)
    before, last = counts
    assert max(before) > 2
    assert set(last) == {2}  # each of two texts asks for its last token


def counting(product: Product, rows: list[int]) -> Product:
    def multiply(x: torch.Tensor) -> torch.Tensor:
        rows.append(len(x))
        return product(x)

    return cast(Product, multiply)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES.keys() - set(USUAL)))
def test_a_model_of_another_shape_stays_as_it_is(architecture: str, toy: Toy) -> None:
    loaded = read(toy(architecture))
    tried = try_together(loaded)
    before = logits_of(loaded, tried.kinds, None)
    assert fused_if_it_can_be(loaded, tried) is None
    assert torch.equal(logits_of(loaded, tried.kinds, None), before)


def test_a_model_that_uses_its_modules_otherwise_stays_as_it_is(toy: Toy) -> None:
    """Granite has Llama's modules, and multiplies what they give."""
    loaded = read(toy("granite", residual_multiplier=0.5))
    assert parts_of(loaded.model)
    assert fused_if_it_can_be(loaded, try_together(loaded)) is None


@pytest.mark.real
def test_the_demo_model_is_fused_and_keeps_most_weights_exactly_in_half_the_bytes(
    demo_model: StoredModel,
) -> None:
    loaded = read(demo_model.path)
    tried = try_together(loaded)
    expected = logits_of(loaded, tried.kinds, None)
    fused = fused_if_it_can_be(loaded, tried)
    assert type(fused) is Lean
    for layer in fused.layers:
        assert [type(product) for product in layer.products] == [Half, Half, Half, Plain]
    assert fused.nbytes < 0.75 * loaded.weights_bytes  # embedding and head are two tensors now
    found = logits_of(loaded, tried.kinds, fused)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


# -- modules ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [24, 576])
def test_a_norm_in_few_operations_is_llamas(seed: int, size: int) -> None:
    torch.manual_seed(seed)
    norm = LlamaRMSNorm(size, 1e-5)
    norm.weight.copy_(torch.rand(size) + 0.5)
    x = torch.randn(7, size) * 10.0**-seed
    found = normaliser(Norm(norm.weight, 1e-5))(x)
    torch.testing.assert_close(found, norm(x), rtol=1e-5, atol=1e-5)
    assert (normaliser(Norm(norm.weight, 1e-5))(torch.zeros(2, size)) == 0).all()


@pytest.mark.parametrize("dim", [2, 24, 64])
def test_rotary_positions_are_llamas(dim: int) -> None:
    heads, angles = torch.randn(5, 3, dim), torch.rand(5, dim) * 6
    cos, sin = angles.cos(), angles.sin()
    expected, _ = apply_rotary_pos_emb(heads, heads, cos, sin)
    torch.testing.assert_close(Rotation.of(cos, sin)(heads), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("biases", [(), (0, 1, 2), (1,)])
def test_joined_layers_give_what_they_gave_apart(biases: tuple[int, ...]) -> None:
    layers = [torch.nn.Linear(40, n, bias=i in biases) for i, n in enumerate((24, 8, 3))]
    x = torch.randn(6, 40)
    expected = Apart(layers)(x)
    product = joined(layers, torch.float32)
    assert type(product) is Plain
    torch.testing.assert_close(product(x), expected, rtol=1e-5, atol=1e-5)
    assert all(layer.weight is None for layer in layers)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_that_16_bits_hold_take_16_bits(dtype: torch.dtype) -> None:
    layers = [torch.nn.Linear(40, n) for n in (24, 8)]
    for layer in layers:
        layer.weight.copy_(layer.weight.to(dtype))
    x = torch.randn(6, 40)
    expected = Apart(layers)(x)
    product = joined(layers, torch.float32)
    assert type(product) is Half
    torch.testing.assert_close(product(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("worst", [1 / 3, 1e6, float("nan")])
def test_a_weight_that_float16_cannot_hold_stays(worst: float) -> None:
    layer = torch.nn.Linear(32, 16, bias=False)
    layer.weight.zero_()
    assert products.fits_half(layer.weight)
    layer.weight[3, 4] = worst
    assert type(joined([layer], torch.float32)) is Plain


def packed_layer(rows: int, columns: int, bias: bool, plain: bool = False) -> PackedLinear:
    weight = torch.randn(rows, columns)
    plane = fit_4_bit(weight)
    kernel = int4_kernel("cpu")
    return PackedLinear(
        kernel,
        columns,
        kernel.pack(plane.levels),
        scales_and_zeros(plane),
        torch.nn.Parameter(torch.randn(rows)) if bias else None,
        torch.nn.Parameter(weight) if plain else None,
    )


@pytest.mark.parametrize("biases", [(), (0, 1), (1,)])
@pytest.mark.parametrize("plain", [False, True])
def test_packed_layers_are_joined_with_what_is_beside_them(
    biases: tuple[int, ...], plain: bool
) -> None:
    layers = [packed_layer(n, 64, i in biases, plain) for i, n in enumerate((128, 64, 48))]
    for count in (1, 8, 9):
        x = torch.randn(count, 64)
        expected = Apart(layers)(x)
        product = joined(copy.deepcopy(layers), torch.float32)
        assert type(product) is Packed
        torch.testing.assert_close(product(x), expected, rtol=1e-2, atol=1e-3)


def test_packed_layers_whose_rows_make_no_whole_blocks_stay_apart() -> None:
    layers = [packed_layer(48, 64, bias=False), packed_layer(64, 64, bias=False)]
    assert type(joined(layers, torch.float32)) is Apart


@pytest.mark.parametrize(("rows", "columns"), [(64, 32), (192, 160)])
def test_packed_levels_can_be_read_back(rows: int, columns: int) -> None:
    levels = torch.randint(0, 16, (rows, columns), dtype=torch.uint8)
    layout = int4_kernel("cpu").layout
    assert torch.equal(unpack_cpu(pack_cpu(levels), layout), levels)
