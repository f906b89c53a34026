"""Bringing a model from its directory onto the device, in slices, so that running streams go on.

Safetensors are streamed with the same code that `from_pretrained` runs, a few parameters at a time,
so that architectures whose checkpoints are renamed, fused or tied load right.  GGUF files and
quantised safetensors are left to `from_pretrained`, in one slice.
"""

from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from transformers import AutoModelForCausalLM, GgufConfig, PretrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    convert_and_load_state_dict_in_model,
    dot_natural_key,
    rename_source_key,
)
from transformers.modeling_utils import LoadStateDictConfig
from transformers.utils.loading_report import LoadStateDictInfo

from helexa.engine.checkpoint import Checkpoint, num_bytes, open_checkpoint, weight_files
from helexa.engine.orders import Load, LoadProgress
from helexa.engine.skeleton import (
    OWN_KERNELS,
    build_skeleton,
    first_line,
    read_config,
    refuse_unservable,
)
from helexa.errors import StoreError

SLICE_BYTES = 16 << 20  # read between two looks at the clock; 10-30 ms when files are cached

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@frozen(eq=False)
class LoadedModel:
    """A model ready to run.  `max_positions`: the longest sequence it knows, in tokens."""

    model: PreTrainedModel
    device: str
    vocab_size: int
    max_positions: int | None
    weights_bytes: int


def load(order: Load) -> Generator[LoadProgress, None, LoadedModel]:
    """Load a model slice by slice; closing the generator frees what it has.

    StoreError for a directory that is incomplete, damaged or of an unknown architecture.
    """
    gguf = lone_gguf(order.path)
    if gguf is not None:
        model = yield from load_gguf(order, gguf)
    else:
        config = read_config(order.path)
        quantised = getattr(config, "quantization_config", None)
        by = load_quantised if quantised else stream
        model = yield from by(order, config)
    return settle(model, order.device)


def lone_gguf(directory: Path) -> Path | None:
    """The GGUF file of a directory that has no safetensors."""
    if next(directory.glob("*.safetensors"), None) is not None:
        return None
    return min(directory.glob("*.gguf"), default=None)


def settle(model: PreTrainedModel, device: str) -> LoadedModel:
    model.eval().requires_grad_(False)
    config = model.config.get_text_config(decoder=True)
    tensors = {t.data_ptr(): t.nbytes for t in (*model.parameters(), *model.buffers())}
    return LoadedModel(
        model,
        device,
        vocab_size=model.get_input_embeddings().num_embeddings,
        max_positions=getattr(config, "max_position_embeddings", None),
        weights_bytes=sum(tensors.values()),
    )


# -- streaming -------------------------------------------------------------------------------------


def stream(order: Load, config: PretrainedConfig) -> Generator[LoadProgress, None, PreTrainedModel]:
    """Peak memory: the weights and one slice, which holds at least one parameter."""
    dtype = DTYPES[order.dtype]
    with open_checkpoint(order.path) as checkpoint:
        total = sum(map(num_bytes, checkpoint.values()))
        yield LoadProgress(order.uid, 0, total)
        model = build_skeleton(config, dtype)
        plan = LoadStateDictConfig(
            device_map={"": order.device},
            dtype=dtype,
            dtype_plan=model._get_dtype_plan(dtype),
            weight_mapping=get_model_conversion_mapping(model),
        )
        verdict = empty_verdict(model)
        done = 0
        for names in slices(checkpoint, model, plan.weight_mapping):
            tensors = {name: checkpoint[name] for name in names}
            part, _ = convert_and_load_state_dict_in_model(model, tensors, plan)
            merge(verdict, part)
            done += sum(map(num_bytes, tensors.values()))
            yield LoadProgress(order.uid, done, total)
        refuse_unfit(order.path, verdict)
        # Ties weights, and computes what no checkpoint holds (rotary frequencies).
        model._finalize_model_loading(model, plan, verdict)
    refuse_incomplete(order.path, verdict.missing_keys, verdict.unexpected_keys)
    return model


def slices(
    checkpoint: Checkpoint, model: PreTrainedModel, mapping: list[Any]
) -> Iterator[list[str]]:
    """The checkpoint's names in pieces of about SLICE_BYTES.

    Tensors that become one parameter (the experts of a layer, say) are kept together.
    """
    piece: list[str] = []
    size = 0
    for names in by_parameter(checkpoint, model, mapping):
        piece += names
        size += sum(num_bytes(checkpoint[name]) for name in names)
        if size >= SLICE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def by_parameter(
    names: Iterable[str], model: PreTrainedModel, mapping: list[Any]
) -> Iterable[list[str]]:
    renamings = [rule for rule in mapping if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in mapping if isinstance(rule, WeightConverter)]
    known = model.state_dict()
    groups: dict[str, list[str]] = {}
    for name in sorted(names, key=dot_natural_key):
        target, _ = rename_source_key(name, renamings, converters, model.base_model_prefix, known)
        groups.setdefault(target, []).append(name)
    return groups.values()


def empty_verdict(model: PreTrainedModel) -> LoadStateDictInfo:
    return LoadStateDictInfo(
        missing_keys=set(model.state_dict()),
        unexpected_keys=set(),
        mismatched_keys=set(),
        error_msgs=[],
        conversion_errors={},
        skipped_pp_keys=set(),
    )


def merge(verdict: LoadStateDictInfo, part: LoadStateDictInfo) -> None:
    verdict.missing_keys &= part.missing_keys
    verdict.unexpected_keys |= part.unexpected_keys
    verdict.mismatched_keys |= part.mismatched_keys
    verdict.conversion_errors |= part.conversion_errors


# -- what only transformers can load ---------------------------------------------------------------


def load_gguf(order: Load, gguf: Path) -> Generator[LoadProgress, None, PreTrainedModel]:
    # Left packed, transformers' weights are slow where it has no kernel for them (3 tokens/s).
    options = {"gguf_file": gguf.name, "quantization_config": GgufConfig(dequantize=True)}
    return (yield from load_whole(order, [gguf], options))


def load_quantised(
    order: Load, config: PretrainedConfig
) -> Generator[LoadProgress, None, PreTrainedModel]:
    """Unpack the weights: to run them packed takes kernels from the hub."""
    config.quantization_config = {**config.quantization_config, "dequantize": True}
    return (yield from load_whole(order, weight_files(order.path), {"config": config}))


def load_whole(
    order: Load, files: list[Path], options: dict[str, Any]
) -> Generator[LoadProgress, None, PreTrainedModel]:
    """`from_pretrained` in one slice.  It sets torch's default dtype while it runs."""
    total = sum(file.stat().st_size for file in files)
    yield LoadProgress(order.uid, 0, total)
    try:
        model, verdict = AutoModelForCausalLM.from_pretrained(
            order.path,
            dtype=DTYPES[order.dtype],
            device_map={"": order.device},
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            weights_only=True,
            output_loading_info=True,
            **OWN_KERNELS,
            **options,
        )
    except (ValueError, ImportError, NotImplementedError) as error:
        raise StoreError(f"{order.path} cannot be loaded: {first_line(error)}") from error
    refuse_unservable(model)
    refuse_incomplete(order.path, verdict["missing_keys"], verdict["unexpected_keys"])
    yield LoadProgress(order.uid, total, total)
    return model


# -- refusals --------------------------------------------------------------------------------------


def refuse_unfit(path: Path, verdict: LoadStateDictInfo) -> None:
    if verdict.mismatched_keys:
        name, found, wanted = min(verdict.mismatched_keys)
        raise StoreError(
            f"the weights in {path} do not fit its config.json: {name} is {list(found)}, not "
            f"{list(wanted)}"
        )
    if verdict.conversion_errors:
        raise StoreError(
            f"the weights in {path} do not fit its config.json: {min(verdict.conversion_errors)} "
            "cannot be put together from them"
        )


def refuse_incomplete(path: Path, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    """Random weights in place of missing ones, or ignored ones, would answer nonsense."""
    for names, what in ((missing, "lacks"), (unexpected, "holds unknown")):
        if some := sorted(names):
            raise StoreError(f"{path} {what} weights: {', '.join(some[:3])} ({len(some)} in all)")
