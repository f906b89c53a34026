"""Bringing a model from its directory onto the device.

Safetensors and GGUF files are streamed in slices, so that running sequences go on; quantised safetensors are
left to `from_pretrained`, in one slice.
"""

from collections.abc import Generator
from contextlib import closing
from itertools import chain
from pathlib import Path

import torch
from attrs import frozen
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from helexa.engine.checkpoint import weight_files
from helexa.engine.gguf_tensors import header_of
from helexa.engine.lean.library import compiling
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
    with closing(kernels_for(order)) as kernels:
        next(kernels, None)  # they are compiled beside reading the weights
        loaded = settle((yield from load_model(order)), order.device)
        for _ in kernels:
            yield LoadProgress(order.uid, loaded.weights_bytes, loaded.weights_bytes)
    return loaded


def kernels_for(order: Load) -> Generator[None, None, None]:
    """Have what multiplies packed layers compiled, where that is ours to do."""
    if order.quant != "none" and order.device == "cpu" and order.dtype == "fp32":
        yield from compiling()


def load_model(order: Load) -> Generator[LoadProgress, None, PreTrainedModel]:
    config, gguf = read_config(order.path), lone_gguf(order.path)
    if gguf is not None:
        return (yield from stream_gguf(order, config, gguf, header_of(gguf)))
    by = load_quantised if getattr(config, "quantization_config", None) else stream
    return (yield from by(order, config))


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


def load_quantised(
    order: Load, config: PretrainedConfig
) -> Generator[LoadProgress, None, PreTrainedModel]:
    """Unpack the weights: to run them packed takes kernels from the hub."""
    config.quantization_config = {**config.quantization_config, "dequantize": True}
    return (yield from load_whole(order, config))


def load_whole(
    order: Load, config: PretrainedConfig
) -> Generator[LoadProgress, None, PreTrainedModel]:
    """`from_pretrained` in one slice.  It sets torch's default dtype while it runs."""
    total = sum(file.stat().st_size for file in weight_files(order.path))
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
            config=config,
            **OWN_KERNELS,
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
