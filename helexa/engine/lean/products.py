"""What a lean forward multiplies with: layers that read the same input joined, and how they are stored.

On a CPU that computes in float32, weights that 16 bits hold are kept in float16 and multiplied by FBGEMM
(`torch.ops.quantized.linear_dynamic_fp16`: weights in float16, all arithmetic in float32), which reads
half as much.  Checkpoints in float16 or bfloat16 lose nothing by it.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from attrs import define, field, frozen
from torch import Tensor, nn
from torch.nn.functional import linear

from helexa.engine.lean.parts import MultiplyingLayer
from helexa.engine.quant.kernels import ROWS_TOGETHER, half_kernel
from helexa.engine.quant.linear import PACKED_ROWS, PackedLinear

# What a weight may move by when it goes to float16: what bfloat16 holds below 2^-17 lies between two
# float16 numbers.  That is under the rounding of a float32 sum of weights of usual size.
MOST_MOVED = 2**-25
ROWS_AT_ONCE = 1024  # of a weight that is looked at


Held = dict[int, int]  # the bytes of what lies in memory, by what tells it from another


class Product(Protocol):
    """Multiplies [tokens, in features], giving [tokens, out features]."""

    @property
    def held(self) -> Held:
        """The weights that it needs."""

    def __call__(self, x: Tensor) -> Tensor: ...


def held(*tensors: Tensor | None) -> Held:
    return {tensor.data_ptr(): tensor.nbytes for tensor in tensors if tensor is not None}


@frozen(eq=False)
class Apart:
    """Layers as they were loaded, one after the other."""

    layers: Sequence[MultiplyingLayer]

    @property
    def held(self) -> Held:
        return held(*(t for m in self.layers for t in (*m.parameters(), *m.buffers())))

    def __call__(self, x: Tensor) -> Tensor:
        results = [layer(x) for layer in self.layers]
        return results[0] if len(results) == 1 else torch.cat(results, -1)


@frozen(eq=False)
class Plain:
    """One matrix in the dtype of the model."""

    weight: Tensor
    bias: Tensor | None

    @property
    def held(self) -> Held:
        return held(self.weight, self.bias)

    def __call__(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


@define(eq=False)
class Half:
    """One matrix in float16, activations in float32; `packed` is FBGEMM's own object."""

    packed: Any
    _nbytes: int
    _multiply: Any = field(
        init=False, factory=lambda: torch.ops.quantized.linear_dynamic_fp16.default
    )

    @property
    def held(self) -> Held:
        return {id(self.packed): self._nbytes}

    def __call__(self, x: Tensor) -> Tensor:
        result: Tensor = self._multiply(x, self.packed)
        return result


@frozen(eq=False)
class Packed:
    """A packed layer, and for more than `rows` rows the plain form beside it, if there is one."""

    layer: PackedLinear
    beside: Product | None
    rows: int

    @property
    def held(self) -> Held:
        beside = self.beside.held if self.beside else {}
        return {**held(*self.layer.buffers(), self.layer.bias), **beside}

    def __call__(self, x: Tensor) -> Tensor:
        if self.beside is not None and len(x) > self.rows:
            return self.beside(x)
        return self.layer.forward(x)


def joined(
    layers: Sequence[MultiplyingLayer], dtype: torch.dtype, *, may_halve: bool = True
) -> Product:
    """One product in `dtype` for layers that read the same input; they give their weights up to it.

    Layers of different kinds stay apart.  `may_halve` False keeps plain weights in `dtype`.
    """
    plain = [layer for layer in layers if isinstance(layer, nn.Linear)]
    packed = [layer for layer in layers if isinstance(layer, PackedLinear)]
    if len(plain) == len(layers):
        weight, bias = rows_of([layer.weight.detach() for layer in plain]), bias_of(layers)
        product = stored(weight, bias, dtype) if may_halve else Plain(weight.to(dtype), bias)
    elif len(packed) == len(layers) and can_be_joined(packed):
        product = packed_product(packed, dtype)
    else:
        for each in plain:
            each.weight.data = each.weight.data.to(dtype)
        return Apart(layers)
    for layer in layers:
        give_up(layer)
    return product


def can_be_joined(layers: Sequence[PackedLinear]) -> bool:
    """Whether the packed rows of one may lie behind those of another: they come in blocks."""
    whole = all(layer.out_features % ROWS_TOGETHER == 0 for layer in layers[:-1])
    return whole and len({layer.planes for layer in layers}) == 1


def packed_product(layers: Sequence[PackedLinear], dtype: torch.dtype) -> Packed:
    bias = bias_of(layers)
    layer = PackedLinear(
        layers[0].kernel,
        layers[0].in_features,
        rows_of([layer.levels for layer in layers]),
        torch.cat([layer.scales for layer in layers], 1),
        None if bias is None else nn.Parameter(bias, requires_grad=False),
        None,
    )
    plain = [layer.weight.detach() for layer in layers if layer.weight is not None]
    beside = stored(rows_of(plain), bias, dtype) if len(plain) == len(layers) else None
    return Packed(layer, beside, PACKED_ROWS)


def stored(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Product:
    """In float16 where that loses nothing and the CPU would compute in float32, else in `dtype`."""
    if dtype is torch.float32 and weight.device.type == "cpu" and fits_half(weight):
        pack = half_kernel()
        if pack is not None:
            return Half(pack(weight.float(), bias), 2 * weight.numel())
    return Plain(weight.to(dtype), bias)


def fits_half(weight: Tensor) -> bool:
    """Whether float16 holds a weight [rows, columns], finite as it is; looked at in pieces."""
    if weight.dtype is torch.float16:
        return bool(weight.abs().amax().isfinite())
    starts = range(0, len(weight), ROWS_AT_ONCE)
    pieces = (weight[start : start + ROWS_AT_ONCE].float() for start in starts)
    return all(bool(((p.half().float() - p).abs() <= MOST_MOVED).all()) for p in pieces)


def rows_of(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def bias_of(layers: Sequence[MultiplyingLayer]) -> Tensor | None:
    """None if no layer has one; zeros for those that have none beside others."""
    biases = [layer.bias for layer in layers if layer.bias is not None]
    if not biases:
        return None
    return torch.cat(
        [
            biases[0].new_zeros(layer.out_features) if layer.bias is None else layer.bias.detach()
            for layer in layers
        ]
    )


def give_up(layer: MultiplyingLayer) -> None:
    """Let go of what it holds: it cannot be called any more."""
    for name, _ in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
        setattr(layer, name, None)
