"""Bringing a model from its directory onto the device.

Files are streamed in slices, so that running sequences go on.
"""

from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import torch
from attrs import frozen
from transformers import PreTrainedModel

from helexa.engine.gguf_tensors import header_of
from helexa.engine.kept_trial import Found, KeptTrial
from helexa.engine.lean.library import compiling
from helexa.engine.orders import Load, LoadProgress
from helexa.engine.skeleton import DTYPES, read_config
from helexa.engine.stream import stream, stream_gguf
from helexa.errors import StoreError
from helexa.fleet.quant import why_not


@frozen(eq=False)
class LoadedModel:
    """A model ready to be tried, or to run if it was: then `found` says what came of it.

    `dtype` is what it computes in; where it was `found` fused, single weights may have come as the files
    have them.  `trial` keeps what is found.  `max_positions`: the longest sequence it knows, in tokens.
    """

    name: str
    model: PreTrainedModel
    device: str
    dtype: torch.dtype
    vocab_size: int
    max_positions: int | None
    weights_bytes: int
    trial: KeptTrial | None
    found: Found | None


def load(order: Load, trial: KeptTrial | None = None) -> Generator[LoadProgress, None, LoadedModel]:
    """Load a model slice by slice; closing the generator frees what it has.

    What `trial` has kept need not be tried again; without one nothing is kept.

    StoreError for a directory that is incomplete, damaged or of an unknown architecture, and for a
    policy that the device cannot do.
    """
    if reason := why_not(order.quant, compute_capability(order.device)):
        raise StoreError(f"model {order.model} cannot be loaded: {reason}")
    found = trial.read() if trial else None
    with closing(kernels_for(order)) as kernels:
        next(kernels, None)  # they are compiled beside reading the weights
        model = yield from load_model(order, is_fused=found is not None and not found.unfused)
        loaded = settle(order, model, trial, found)
        for _ in kernels:
            yield LoadProgress(order.uid, loaded.weights_bytes, loaded.weights_bytes)
    return loaded


def kernels_for(order: Load) -> Generator[None, None, None]:
    """Have what multiplies packed layers compiled, where that is ours to do."""
    if order.quant != "none" and order.device == "cpu" and order.dtype == "fp32":
        yield from compiling()


def load_model(order: Load, *, is_fused: bool) -> Generator[LoadProgress, None, PreTrainedModel]:
    """`is_fused`: it will be, so that its modules need not be able to compute."""
    config, gguf = read_config(order.path), lone_gguf(order.path)
    if gguf is not None:
        return (yield from stream_gguf(order, config, gguf, header_of(gguf)))
    return (yield from stream(order, config, is_fused=is_fused))


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


def settle(
    order: Load, model: PreTrainedModel, trial: KeptTrial | None, found: Found | None
) -> LoadedModel:
    model.eval().requires_grad_(False)
    config = model.config.get_text_config(decoder=True)
    tensors = {t.data_ptr(): t.nbytes for t in (*model.parameters(), *model.buffers())}
    return LoadedModel(
        order.model,
        model,
        order.device,
        DTYPES[order.dtype],
        vocab_size=model.get_input_embeddings().num_embeddings,
        max_positions=getattr(config, "max_position_embeddings", None),
        weights_bytes=sum(tensors.values()),
        trial=trial,
        found=found,
    )
