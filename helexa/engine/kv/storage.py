"""How the pool keeps keys and values: as they come, cast to fewer bits, or as whole numbers with a scale.

Attention gets them back in the model's own number format, what a sequence has of one layer at a time: that
costs a pass over them in every step, for half or a quarter of the memory.
"""

import torch
from attrs import frozen
from torch import Tensor

from helexa.engine.orders import KvDtype

FLOAT8 = torch.float8_e4m3fn
FLOAT8_MAX = 448.0
INT8_MAX = 127
LEAST_SCALE = 1e-30  # of a head that is all zeros

Parts = tuple[Tensor, ...]  # each [heads, tokens, something]


@frozen
class Storage:
    """`dtype` is that of the stored elements; `is_scaled`: whole numbers, each head of each token with a
    scale in bfloat16, which is rounded before the numbers are, so that it adds no error of its own.

    float8 lies in the pool as bytes, because torch's CPU cannot copy it by index.
    """

    dtype: torch.dtype
    is_scaled: bool = False

    def empty(self, heads: int, total: int, dim: int, device: str) -> Parts:
        stored = torch.uint8 if self.dtype is FLOAT8 else self.dtype
        shapes = [(dim, stored), (1, torch.bfloat16)][: self.num_parts]
        return tuple(
            torch.empty(heads, total, size, dtype=dtype, device=device) for size, dtype in shapes
        )

    @property
    def num_parts(self) -> int:
        """Tensors that keep one side, keys or values."""
        return 2 if self.is_scaled else 1

    def num_bytes(self, heads: int, dim: int) -> int:
        """Of the keys, or the values, of one token in one layer."""
        return heads * (dim * self.dtype.itemsize + 2 * self.is_scaled)

    def pack(self, values: Tensor) -> Parts:
        """What is stored of `values` [heads, tokens, dim]."""
        if self.is_scaled:
            scales = values.abs().amax(-1, keepdim=True).float() / INT8_MAX
            scales = scales.clamp_min(LEAST_SCALE).bfloat16()
            numbers = (values.float() / scales).round_().clamp_(-INT8_MAX, INT8_MAX)
            return numbers.to(torch.int8), scales
        if self.dtype is FLOAT8:
            return (values.clamp(-FLOAT8_MAX, FLOAT8_MAX).to(FLOAT8).view(torch.uint8),)
        return (values.to(self.dtype),)

    def unpack(self, parts: Parts, dtype: torch.dtype) -> Tensor:
        """The values in `dtype`; a view of them where nothing was changed."""
        if self.is_scaled:
            return (parts[0].float() * parts[1]).to(dtype)
        if self.dtype is FLOAT8:
            return parts[0].view(FLOAT8).to(dtype)
        return parts[0].to(dtype)


def storage_of(kv_dtype: KvDtype, dtype: torch.dtype) -> Storage:
    """For a model that computes in `dtype`, which "auto" keeps."""
    match kv_dtype:
        case "int8":
            return Storage(torch.int8, is_scaled=True)
        case "fp8":
            return Storage(FLOAT8)
        case "bf16":
            return Storage(torch.bfloat16)
        case "auto":
            return Storage(dtype)
