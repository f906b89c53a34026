"""Bringing a model from its directory onto the device.

Safetensors and GGUF files are streamed in slices, so that running sequences go on; quantised safetensors,
and GGUF files of which transformers makes something else, are left to `from_pretrained`, in one slice.
"""

from collections.abc import Generator
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from transformers import AutoModelForCausalLM, GgufConfig, PretrainedConfig, PreTrainedModel

from helexa.engine.blocks import can_be_streamed, header_of
from helexa.engine.checkpoint import weight_files
from helexa.engine.orders import Load, LoadProgress
from helexa.engine.quant.packer import Packer
from helexa.engine.skeleton import DTYPES, OWN_KERNELS, first_line, read_config, refuse_unservable
from helexa.engine.stream import stream, stream_gguf
from helexa.engine.verdict import refuse_incomplete
from helexa.errors import StoreError
from helexa.fleet.quant import why_not


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

    StoreError for a directory that is incomplete, damaged or of an unknown architecture, and for a
    policy that the device cannot do.
    """
    if reason := why_not(order.quant, compute_capability(order.device)):
        raise StoreError(f"model {order.model} cannot be loaded: {reason}")
    gguf = lone_gguf(order.path)
    if gguf is not None:
        model = yield from load_gguf(order, gguf)
    else:
        config = read_config(order.path)
        quantised = getattr(config, "quantization_config", None)
        by = load_quantised if quantised else stream
        model = yield from by(order, config)
    return settle(model, order.device)


def compute_capability(device: str) -> str | None:
    """Of a card ("8.6"); a CPU has none."""
    if not device.startswith("cuda"):
        return None
    major, minor = torch.cuda.get_device_capability(device)
    return f"{major}.{minor}"


def lone_gguf(directory: Path) -> Path | None:
    """The GGUF file of a directory that has no safetensors."""
    if next(directory.glob("*.safetensors"), None) is not None:
        return None
    return min(directory.glob("*.gguf"), default=None)


def load_gguf(order: Load, gguf: Path) -> Generator[LoadProgress, None, PreTrainedModel]:
    header = header_of(gguf)
    if can_be_streamed(header):
        return (yield from stream_gguf(order, read_config(order.path), gguf, header))
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
    packer = Packer(model, order)
    for _ in chain(packer.pack(last=True), packer.keep()):
        yield LoadProgress(order.uid, total, total)
    yield LoadProgress(order.uid, total, total)
    return model


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
