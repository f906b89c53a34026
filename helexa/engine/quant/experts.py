"""The experts of a mixture with their weights packed, in place of transformers' own module."""

import torch
from torch import Tensor, nn

from helexa.engine.quant.grid import GROUP
from helexa.engine.quant.kernels import Int4Kernel, can_pack
from helexa.engine.quant.linear import PACKED_ROWS

SIDES = {"up": "gate_up_proj", "down": "down_proj"}  # ours -> transformers' parameter


class PackedStack(nn.Module):
    """A matrix of every expert: `levels` [experts, ...] and `scales` [experts, n / 32, rows, 2]."""

    levels: Tensor
    scales: Tensor

    def __init__(self, kernel: Int4Kernel, columns: int, levels: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.register_buffer("levels", levels)
        self.register_buffer("scales", scales)
        self._planes = scales.shape[1] * GROUP // columns
        self._multiply = kernel.multiply

    def forward(self, expert: int, x: Tensor) -> Tensor:
        """[n, rows] of `x` [n, columns]."""
        rows = x.to(torch.bfloat16)
        if self._planes == 2:
            rows = rows.repeat(1, 2)
        return self._multiply(rows, self.levels[expert], GROUP, self.scales[expert]).to(x.dtype)


class PackedExperts(nn.Module):
    """Computes each expert that was chosen for the tokens that chose it.

    `plain` is transformers' module: the way it joins gate and up is its own.  If it keeps its weights, it
    serves passes of more than PACKED_ROWS tokens.  Biases have the names that checkpoints give them, as they
    may come later.
    """

    def __init__(self, plain: nn.Module, up: PackedStack, down: PackedStack, *, keep: bool) -> None:
        super().__init__()
        self.up, self.down = up, down
        self._keeps_plain = keep
        for name in SIDES.values():
            self.register_parameter(f"{name}_bias", getattr(plain, f"{name}_bias", None))
            if not keep:
                plain._parameters.pop(name)
                plain._parameters.pop(f"{name}_bias", None)
        plain.__dict__["_is_hf_initialized"] = True  # transformers need not look for its weights
        self.plain = plain

    def forward(self, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """`hidden` [tokens, columns]; for each token the experts `chosen` [tokens, k] with their weights."""
        if self._keeps_plain and len(hidden) > PACKED_ROWS:
            result: Tensor = self.plain(hidden, chosen, weights)
            return result
        result = torch.zeros_like(hidden)
        for expert in sorted(set(chosen.flatten().tolist())):
            if expert >= len(self.up.levels):  # how transformers marks a place that nobody serves
                continue
            token, place = torch.where(chosen == expert)
            inner = self._biased(self.up(expert, hidden[token]), "gate_up_proj", expert)
            inner = self.plain._apply_gate(inner)  # type: ignore[operator]
            out = self._biased(self.down(expert, inner), "down_proj", expert)
            result.index_add_(0, token, (out * weights[token, place, None]).to(result.dtype))
        return result

    def _biased(self, x: Tensor, side: str, expert: int) -> Tensor:
        bias = getattr(self, f"{side}_bias")
        return x if bias is None else x + bias[expert]


def why_not_packed(experts: nn.Module) -> str:
    """Why this module of experts stays plain, in a clause; "" if it can be packed."""
    if not getattr(experts, "has_gate", False) or getattr(experts, "has_post_expert_norm", True):
        return "they are built in another way"
    if not all(can_pack(*expert_shape(experts, side)) for side in SIDES):
        return "their shape does not fit the kernels"
    return ""


def is_experts(module: nn.Module) -> bool:
    """Whether it keeps all experts of a layer in tensors of three dimensions, as transformers does."""
    weights = [getattr(module, name, None) for name in SIDES.values()]
    return hasattr(module, "is_transposed") and all(
        isinstance(weight, nn.Parameter) and weight.dim() == 3 for weight in weights
    )


def expert_shape(experts: nn.Module, side: str) -> tuple[int, int]:
    """Rows and columns of one expert's matrix, as a linear layer has them."""
    _, rows, columns = experts.get_parameter(SIDES[side]).shape
    return (columns, rows) if experts.is_transposed else (rows, columns)


def expert_weight(experts: nn.Module, side: str, expert: int) -> Tensor:
    """[rows, columns]"""
    weight = experts.get_parameter(SIDES[side]).detach()[expert]
    return weight.t().contiguous() if experts.is_transposed else weight
