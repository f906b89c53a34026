"""Torch's own kernels for packed 4-bit planes and for float8, one table per kind of device.

CPU: `aten/src/ATen/native/LinearAlgebra.cpp` and `native/cpu/int4mm_kernel.cpp` of torch 2.13; the layout
of packed weights depends on the vector instructions, and activations in anything but bfloat16 take a
reference path that is about a hundred times slower.

CUDA (nobody has run these here): `native/cuda/int4mm.cu` takes bytes with the even column in the high half,
tiles of 16 columns, bfloat16 and compute capability 8.0; `torch._scaled_mm` (`native/cuda/Blas.cpp`) takes
float8 with a scale for each operand from capability 8.9 on.
"""

from collections.abc import Callable
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from helexa.devices.fused import BLOCK_ROWS
from helexa.engine.quant.grid import GROUP, Plane

FLOAT8 = torch.float8_e4m3fn
FLOAT8_MAX = 448.0
ROWS_TOGETHER = 64  # packed rows are laid out in blocks of up to so many
CUDA_INNER_TILES = 2  # of 16 columns: so that every multiple of 32 columns will do


@frozen
class Int4Kernel:
    """`pack` makes of levels uint8 [rows, columns] what `multiply` reads.

    `multiply(activations bfloat16 [n, columns], packed, group, scales and zeros)` gives [n, rows].
    `layout` names the form of packed weights: the same name, the same bytes.
    """

    layout: str
    pack: Callable[[Tensor], Tensor]
    multiply: Callable[[Tensor, Tensor, int, Tensor], Tensor]


def int4_kernel(device: str) -> Int4Kernel:
    if device.startswith("cuda"):
        return Int4Kernel(f"cuda{CUDA_INNER_TILES}", pack_cuda, torch._weight_int4pack_mm)
    layout = torch.backends.cpu.get_cpu_capability().replace(" ", "")
    return Int4Kernel(layout, pack_cpu, torch._weight_int4pack_mm_for_cpu)


def pack_cpu(levels: Tensor) -> Tensor:
    return torch._convert_weight_to_int4pack_for_cpu(levels.int(), 1)


def can_unpack(rows: int, layout: str) -> bool:
    return layout in BLOCK_ROWS and rows % BLOCK_ROWS[layout] == 0


def unpack_cpu(levels: Tensor, layout: str) -> Tensor:
    """What `pack_cpu` was given, uint8 [rows, columns].

    Rows lie in blocks of BLOCK_ROWS; of a block, columns lie behind each other, and of a column the
    low halves of the bytes are the first half of the rows.
    """
    rows, columns, block = levels.shape[0], levels.shape[1] * 2, BLOCK_ROWS[layout]
    laid = levels.view(rows // block, columns, block // 2)
    return torch.cat((laid & 15, laid >> 4), 2).transpose(1, 2).reshape(rows, columns)


def pack_cuda(levels: Tensor) -> Tensor:
    return torch._convert_weight_to_int4pack(
        levels[:, ::2] << 4 | levels[:, 1::2], CUDA_INNER_TILES
    )


def scales_and_zeros(plane: Plane) -> Tensor:
    """bfloat16 [columns / 32, rows, 2], as both kernels read them."""
    return torch.stack([plane.scales.t(), plane.zeros.t()], -1).contiguous()


def half_kernel() -> Callable[[Tensor, Tensor | None], Any] | None:
    """Packs a float32 weight [rows, columns] and a bias into float16; None where torch cannot.

    `torch.ops.quantized.linear_dynamic_fp16` multiplies with it.  FBGEMM is in torch's wheels for x86.
    """
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        return None
    pack: Callable[[Tensor, Tensor | None], Any] = torch.ops.quantized.linear_prepack_fp16
    return pack


def can_pack(rows: int, columns: int) -> bool:
    """Both kernels want rows in sixteens (CUDA: eights); columns come in groups."""
    return rows % 16 == 0 and columns % GROUP == 0


def to_float8(values: Tensor) -> tuple[Tensor, Tensor]:
    """`values` divided by one scale, in float8, and that scale (float32, a scalar)."""
    scale = values.abs().amax().float().clamp_min(1e-12) / FLOAT8_MAX
    return (values / scale).clamp(-FLOAT8_MAX, FLOAT8_MAX).to(FLOAT8), scale


def multiply_float8(x: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
    """bfloat16 [n, rows] of activations [n, columns] and float8 [rows, columns]."""
    packed, scale = to_float8(x)
    return torch._scaled_mm(
        packed, weight.t(), scale_a=scale, scale_b=weight_scale, out_dtype=torch.bfloat16
    )
