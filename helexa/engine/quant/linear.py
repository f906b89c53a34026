"""Modules that stand in for torch.nn.Linear and keep their weight packed."""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from helexa.engine.quant.grid import GROUP
from helexa.engine.quant.kernels import Int4Kernel, multiply_float8

# Up to so many rows the packed form of a layer that keeps both is used.  Measured with 2 threads in
# microseconds per 1536 x 576 layer, packed / plain: AVX-512 and AMX, bf16, 8 rows 128 / 175, 16 rows
# 260 / 161; AVX2, fp32, 8 rows 290 / 327, 16 rows 583 / 424.
PACKED_ROWS = 8


class PackedLinear(nn.Module):
    """A linear layer of 4-bit weights, or of 8-bit ones as two planes side by side.

    `weight`, if there is one, is the plain form beside it, which serves more than PACKED_ROWS rows.
    Multiplies in bfloat16, whatever the model's dtype is.
    """

    levels: Tensor
    scales: Tensor
    bias: nn.Parameter | None
    weight: nn.Parameter | None

    def __init__(
        self,
        kernel: Int4Kernel,
        in_features: int,
        levels: Tensor,
        scales: Tensor,
        bias: nn.Parameter | None,
        weight: nn.Parameter | None,
    ) -> None:
        """`levels` as `kernel` packed them; `scales`: and zeros, bfloat16 [n / 32, out_features, 2]."""
        super().__init__()
        self.kernel = kernel
        self.in_features, self.out_features = in_features, scales.shape[1]
        self.register_buffer("levels", levels)
        self.register_buffer("scales", scales)
        self.register_parameter("bias", bias)
        self.register_parameter("weight", weight)
        self.planes = scales.shape[0] * GROUP // in_features

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features)
        if self.weight is not None and len(rows) > PACKED_ROWS:
            return linear(x, self.weight, self.bias)
        rows = rows.to(torch.bfloat16)
        if self.planes == 2:
            rows = rows.repeat(1, 2)
        result = self.kernel.multiply(rows, self.levels, GROUP, self.scales).to(x.dtype)
        result = result.view(*x.shape[:-1], self.out_features)
        return result if self.bias is None else result + self.bias


class Float8Linear(nn.Module):
    """A linear layer in float8 with one scale; activations get theirs as they come."""

    levels: Tensor
    scales: Tensor
    bias: nn.Parameter | None

    def __init__(self, levels: Tensor, scale: Tensor, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.out_features, self.in_features = levels.shape
        self.register_buffer("levels", levels)
        self.register_buffer("scales", scale)
        self.register_parameter("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features)
        result = multiply_float8(rows, self.levels, self.scales).to(x.dtype)
        result = result.view(*x.shape[:-1], self.out_features)
        return result if self.bias is None else result + self.bias
