"""Quantised safetensors, unpacked as they are read: to run them packed takes kernels from the hub."""

from pathlib import Path

from transformers import PretrainedConfig, PreTrainedModel
from transformers.quantizers import HfQuantizer
from transformers.quantizers.auto import get_hf_quantizer

from helexa.engine.skeleton import first_line
from helexa.errors import StoreError


def unpacker_of(config: PretrainedConfig, path: Path, device: str) -> HfQuantizer | None:
    """What transformers unpacks these weights with; None if they are plain.

    StoreError for a quantisation that is not to be had here.
    """
    quantised = getattr(config, "quantization_config", None)
    if not quantised:
        return None
    config.quantization_config = {**quantised, "dequantize": True}
    try:
        unpacker, _, _ = get_hf_quantizer(config, None, {"": device}, True, {})
    except (ValueError, ImportError, NotImplementedError) as error:
        raise StoreError(f"{path} cannot be loaded: {first_line(error)}") from error
    return unpacker


def prepare(unpacker: HfQuantizer, model: PreTrainedModel, device: str) -> None:
    """Have the modules of a model without weights wait for plain ones."""
    unpacker.preprocess_model(
        model=model, dtype=model.dtype, device_map={"": device}, use_kernels=False
    )
