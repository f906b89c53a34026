"""Which layers of a model are packed, and doing so while it is loaded, a few rows at a time."""

import re
from collections.abc import Generator, Iterable, Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from helexa import logs
from helexa.engine.orders import Load, Quant
from helexa.engine.quant.experts import (
    SIDES,
    PackedExperts,
    PackedStack,
    expert_shape,
    expert_weight,
    is_experts,
    why_not_packed,
)
from helexa.engine.quant.grid import fit_4_bit, fit_8_bit
from helexa.engine.quant.kept import Kept
from helexa.engine.quant.kernels import (
    ROWS_TOGETHER,
    can_pack,
    int4_kernel,
    scales_and_zeros,
    to_float8,
)
from helexa.engine.quant.linear import Float8Linear, PackedLinear
from helexa.engine.skeleton import DTYPES

PACKED_AT_ONCE = 1 << 20  # weights: 0.05 to 0.2 s of a CPU between two looks at the clock
Packed = tuple[Tensor, Tensor]  # levels, and scales with zeros
GATES = ("gate", "router")  # of mixtures of experts: small, and what they choose is all or nothing

log = logs.get("helexa.engine")


class Packer:
    """Replaces linear layers of `model`, and experts of mixtures, by packed ones as their weights come.

    `int4` keeps the layer that makes the logits in 8 bits, as GGUF files do.  Layers whose shape the
    kernels do not take, gates, and weights that are in no linear layer (embeddings) stay; fp8 leaves
    experts as they are too.
    """

    def __init__(self, model: PreTrainedModel, order: Load) -> None:
        self._model, self._order = model, order
        self._quant: Quant = order.quant
        self._kernel = int4_kernel(order.device)
        self._dtype = DTYPES[order.dtype]
        head = model.get_output_embeddings()
        self._head = next((n for n, m in model.named_modules() if m is head), "")
        self._tied = set(getattr(model, "all_tied_weights_keys", {}))
        layers = dict(linear_layers(model)) if self._quant != "none" else {}
        self._waiting: dict[str, nn.Linear] = layers
        self._experts = self._packable_experts()
        self._packed: list[str] = []
        self._kept = Kept.of(order, self._kernel.layout) if layers else None
        self._found = self._kept.read(order.device) if self._kept else {}

    @property
    def dtypes(self) -> dict[str, torch.dtype]:
        """By a pattern of its name, the dtype that loses nothing of a weight that is to be packed."""
        return {f"^{re.escape(name)}.weight$": torch.float32 for name in self._waiting}

    def _packable_experts(self) -> dict[str, nn.Module]:
        """By name; of others is told why they stay."""
        if self._quant == "none":
            return {}
        experts = {name: each for name, each in self._model.named_modules() if is_experts(each)}
        reasons = {"fp8 has no kernel for them"} if self._quant == "fp8" and experts else set()
        reasons |= {reason for each in experts.values() if (reason := why_not_packed(each))}
        if reasons:
            log.info("experts stay plain", model=self._order.model, reason=min(reasons))
            return {}
        return experts

    def take_kept(self, shapes: Mapping[str, tuple[int, ...] | None]) -> set[str]:
        """Fill layers from the kept file; the parameters whose weights then need not be read.

        `shapes` are those of the parameters that the checkpoint holds, None of one in several pieces.
        """
        if self._quant == "int4+bf16":
            return set()
        taken = set()
        for name, layer in list(self._waiting.items()):
            weight, packed = f"{name}.weight", self._from_file(name)
            fits = weight not in self._tied and shapes.get(weight) == tuple(layer.weight.shape)
            if packed and fits:
                self._replace(name, self._waiting.pop(name), None, packed)
                taken.add(weight)
        for name in list(self._experts):
            weights = {f"{name}.{side}" for side in SIDES.values()}
            found = {side: self._from_file(f"{name}.{side}") for side in SIDES}
            if all(found.values()) and weights <= shapes.keys():
                self._replace_experts(name, self._experts.pop(name), found)
                taken |= weights
        return taken

    def pack(self, *, last: bool = False) -> Generator[None, None, None]:
        """Pack the layers whose weights have come; `last`: also those that are tied to others."""
        for name in list(self._waiting):
            is_tied = f"{name}.weight" in self._tied
            if not self._waiting[name].weight.is_meta and (last or not is_tied):
                yield from self._pack_layer(name, self._waiting.pop(name), is_tied)
                yield
        for name, experts in list(self._experts.items()):
            if not any(parameter.is_meta for parameter in experts.parameters()):
                yield from self._pack_experts(name, self._experts.pop(name))
                yield

    def keep(self) -> Generator[None, None, None]:
        """Write what was packed beside the model, unless it was found there."""
        if self._kept is None or not self._packed:
            return
        layers = (self._model.get_submodule(name) for name in self._packed)
        buffers = {
            f"{name}.{key}": buffer
            for name, layer in zip(self._packed, layers, strict=True)
            for key, buffer in layer.named_buffers()
        }
        if buffers.keys() - self._found.keys():
            yield from self._kept.write(buffers)

    def _pack_layer(
        self, name: str, layer: nn.Linear, is_tied: bool
    ) -> Generator[None, None, None]:
        packed = self._from_file(name) or (
            yield from self._packed_form(name, layer.weight.detach())
        )
        plain = self._plain(layer, is_tied) if self._quant == "int4+bf16" else None
        self._replace(name, layer, plain, packed)

    def _pack_experts(self, name: str, experts: nn.Module) -> Generator[None, None, None]:
        packed: dict[str, Packed | None] = {}
        for side, weight in SIDES.items():
            packed[side] = self._from_file(f"{name}.{side}")
            if packed[side]:
                continue
            each = []
            for expert in range(len(experts.get_parameter(weight))):
                form = expert_weight(experts, side, expert)
                each.append((yield from self._packed_form(name, form)))
            levels, scales = zip(*each, strict=True)
            packed[side] = torch.stack(levels), torch.stack(scales)
        self._replace_experts(name, experts, packed)

    def _replace_experts(
        self, name: str, experts: nn.Module, packed: Mapping[str, Packed | None]
    ) -> None:
        stacks = {
            side: PackedStack(self._kernel, expert_shape(experts, side)[1], *form)
            for side, form in packed.items()
            if form
        }
        keep = self._quant == "int4+bf16"
        new = PackedExperts(experts, stacks["up"], stacks["down"], keep=keep)
        self._model.set_submodule(name, new)
        self._packed.append(name)

    def _plain(self, layer: nn.Linear, is_tied: bool) -> nn.Parameter:
        if is_tied:
            return layer.get_parameter("weight")  # the very same tensor
        return nn.Parameter(layer.weight.to(self._dtype), requires_grad=False)

    def _replace(
        self,
        name: str,
        layer: nn.Linear,
        plain: nn.Parameter | None,
        packed: Packed,
    ) -> None:
        new: nn.Module
        if self._quant == "fp8":
            new = Float8Linear(*packed, layer.bias)
        else:
            new = PackedLinear(self._kernel, layer.in_features, *packed, layer.bias, plain)
        self._model.set_submodule(name, new)
        self._packed.append(name)

    def _from_file(self, name: str) -> Packed | None:
        levels, scales = f"{name}.levels", f"{name}.scales"
        if levels not in self._found or scales not in self._found:
            return None
        return self._found[levels], self._found[scales]

    def _packed_form(self, name: str, weight: Tensor) -> Generator[None, None, Packed]:
        if self._quant == "fp8":
            return to_float8(weight)
        fit = fit_8_bit if self._quant == "int8" or name == self._head else fit_4_bit
        levels, scales = [], []
        for rows in row_slices(weight):
            plane = fit(rows)
            levels.append(self._kernel.pack(plane.levels))
            scales.append(scales_and_zeros(plane))
            yield
        return torch.cat(levels), torch.cat(scales, 1)


def linear_layers(model: PreTrainedModel) -> Iterable[tuple[str, nn.Linear]]:
    """The layers that can be packed, by name."""
    for name, module in model.named_modules():
        is_plain = type(module) is nn.Linear and name.rpartition(".")[2] not in GATES
        if is_plain and can_pack(*module.weight.shape):
            yield name, module


def row_slices(weight: Tensor) -> Iterable[Tensor]:
    rows = max(1, PACKED_AT_ONCE // weight.shape[1] // ROWS_TOGETHER) * ROWS_TOGETHER
    return (weight[start : start + rows] for start in range(0, len(weight), rows))
