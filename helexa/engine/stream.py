"""Weights onto the device a few parameters at a time, as `from_pretrained` would put them there.

They come out of safetensors, or out of a GGUF file, whose blocks are unpacked on the way.  Layers that are
to be packed are packed as soon as their weights are there.

The same transformers code does the work, so that architectures whose checkpoints are renamed, fused
or tied load right; it is only called slice by slice.
"""

from collections.abc import Generator, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    convert_and_load_state_dict_in_model,
    dot_natural_key,
    rename_source_key,
)
from transformers.integrations.gguf import (
    get_gguf_conversion_mapping,
    is_gguf_arch_supported,
)
from transformers.modeling_utils import LoadStateDictConfig
from transformers.quantizers import HfQuantizer

from helexa.devices.monitor import give_back_freed
from helexa.engine.checkpoint import Checkpoint, num_bytes, open_checkpoint
from helexa.engine.dequantised import prepare, unpacker_of
from helexa.engine.gguf_tensors import by_name, unpacked
from helexa.engine.orders import Load, LoadProgress
from helexa.engine.quant.kernels import half_kernel
from helexa.engine.quant.packer import Packer
from helexa.engine.skeleton import DTYPES, build_skeleton
from helexa.engine.verdict import empty_verdict, merge, refuse_incomplete, refuse_unfit
from helexa.store.gguf import GgufHeader

FILED = {"F16": torch.float16, "BF16": torch.bfloat16}
SLICE_BYTES = 16 << 20  # read between two looks at the clock; 10-30 ms when files are cached


def stream(
    order: Load, config: PretrainedConfig, *, is_fused: bool
) -> Generator[LoadProgress, None, PreTrainedModel]:
    """Peak memory: the weights, packed where they are to be, and one slice of at least one parameter.

    `is_fused`: fusing casts what it multiplies by, so that till then there are but pages of the file.
    """
    with open_checkpoint(order.path) as checkpoint:
        unpacker = unpacker_of(config, order.path, order.device)
        model = build_skeleton(config, DTYPES[order.dtype])
        if unpacker is not None:
            prepare(unpacker, model, order.device)
        if is_fused and order.device == "cpu" and order.dtype == "fp32" and half_kernel():
            leave_uncast(model, checkpoint)
        yield from fill(order, model, checkpoint, unpacker=unpacker)
    if unpacker is not None:
        unpacker.postprocess_model(model)
    return model


def leave_uncast(model: PreTrainedModel, checkpoint: Checkpoint) -> None:
    """Have matrices come in 16 bits where the files have them so by the same name."""
    for name, parameter in model.named_parameters():
        if name in checkpoint and parameter.dim() == 2:
            dtype = FILED.get(checkpoint[name].get_dtype(), parameter.dtype)
            parameter.data = parameter.data.to(dtype)


def stream_gguf(
    order: Load, config: PretrainedConfig, path: Path, header: GgufHeader
) -> Generator[LoadProgress, None, PreTrainedModel]:
    """The same out of a GGUF file; a parameter is there in float32 before it is packed or cast."""
    model, kind = build_skeleton(config, DTYPES[order.dtype]), header.architecture
    if is_gguf_arch_supported(kind):
        mapping = get_gguf_conversion_mapping(kind, model.config)
        return (yield from fill(order, model, by_name(path, header), mapping))
    tensors = unpacked(path, header, model, packs=order.quant != "none")
    return (yield from fill(order, model, tensors))


def fill(
    order: Load,
    model: PreTrainedModel,
    checkpoint: Checkpoint,
    mapping: list[Any] | None = None,
    unpacker: HfQuantizer | None = None,
) -> Generator[LoadProgress, None, PreTrainedModel]:
    """`mapping` leads from the checkpoint's names to the model's; usually that of its safetensors."""
    dtype = DTYPES[order.dtype]
    packer = Packer(model, order)
    if mapping is None:
        mapping = get_model_conversion_mapping(model, hf_quantizer=unpacker)
    parameters = by_parameter(checkpoint, model, mapping)
    verdict = empty_verdict(model)
    for name in packer.take_kept(shapes_of(checkpoint, parameters)):
        del parameters[name]
        verdict.missing_keys.discard(name)
    plan = LoadStateDictConfig(
        device_map={"": order.device},
        dtype=dtype,
        dtype_plan={**model._get_dtype_plan(dtype), **packer.dtypes},
        weight_mapping=mapping,
        hf_quantizer=unpacker,
    )
    total = sum(num_bytes(checkpoint[name]) for names in parameters.values() for name in names)
    yield LoadProgress(order.uid, 0, total)
    done = 0
    for names in slices(checkpoint, parameters.values()):
        tensors = {name: checkpoint[name] for name in names}
        part, _ = convert_and_load_state_dict_in_model(model, tensors, plan)
        refuse_unfit(order.path, part)
        merge(verdict, part)
        for _ in packer.pack():
            yield LoadProgress(order.uid, done, total)
        done += sum(map(num_bytes, tensors.values()))
        give_back_freed()  # what was cast or packed leaves holes, half as much again as the weights
        yield LoadProgress(order.uid, done, total)
    # Ties weights, and computes what no checkpoint holds (rotary frequencies).
    model._finalize_model_loading(model, plan, verdict)
    refuse_incomplete(order.path, verdict.missing_keys, verdict.unexpected_keys)
    for _ in chain(packer.pack(last=True), packer.keep()):
        yield LoadProgress(order.uid, total, total)
    give_back_freed()
    return model


def slices(checkpoint: Checkpoint, parameters: Iterable[list[str]]) -> Iterator[list[str]]:
    """The names in pieces of about SLICE_BYTES; those of one parameter are kept together."""
    piece: list[str] = []
    size = 0
    for names in parameters:
        piece += names
        size += sum(num_bytes(checkpoint[name]) for name in names)
        if size >= SLICE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def by_parameter(
    names: Iterable[str], model: PreTrainedModel, mapping: list[Any]
) -> dict[str, list[str]]:
    """The checkpoint's names by the parameter they become; the experts of a layer become one, say."""
    renamings = [rule for rule in mapping if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in mapping if isinstance(rule, WeightConverter)]
    known = model.state_dict()
    groups: dict[str, list[str]] = {}
    for name in sorted(names, key=dot_natural_key):
        target, _ = rename_source_key(name, renamings, converters, model.base_model_prefix, known)
        groups.setdefault(target, []).append(name)
    return groups


def shapes_of(
    checkpoint: Checkpoint, parameters: Mapping[str, list[str]]
) -> dict[str, tuple[int, ...] | None]:
    """The shapes of the parameters; None of one that is put together, other than from it and its scales."""
    alone = {name: parts[0] if len(parts) == 1 else name for name, parts in parameters.items()}
    return {
        name: tuple(checkpoint[part].get_shape()) if part in checkpoint else None
        for name, part in alone.items()
    }
