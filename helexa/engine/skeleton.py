"""A model's modules without weights, on torch's meta device, built without process-wide settings.

`from_pretrained` would change torch's default dtype for the whole process, and the steps of other
device threads with it.
"""

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from helexa.errors import StoreError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# One of transformers' own implementations: sdpa where the architecture allows it, else eager.  A
# config must not choose: it could name a kernel to be fetched from the hub.
OWN_KERNELS = {"attn_implementation": None, "experts_implementation": None}


def read_config(directory: Path) -> PretrainedConfig:
    try:
        return AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{directory / 'config.json'} cannot be used: {first_line(error)}"
        ) from error


def build_skeleton(config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The model on the meta device with parameters in `dtype`, as `from_pretrained` would make them.

    StoreError if transformers has no such architecture.
    """
    try:
        with torch.device("meta"), DefaultDtype(dtype):
            # dtype=None: transformers leaves torch's default dtype alone.
            model = AutoModelForCausalLM.from_config(
                config, dtype=None, trust_remote_code=False, **OWN_KERNELS
            )
    except (ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        raise StoreError(f"its architecture cannot be built: {first_line(error)}") from error
    for part in (model.config, *(getattr(model.config, key) for key in model.config.sub_configs)):
        if part is not None:
            part.dtype = dtype
    refuse_unservable(model)
    return model


def refuse_unservable(model: PreTrainedModel) -> None:
    """StoreError if the model's forward is not one of a decoder with a cache (Mamba 1 and 2, XLNet, ...)."""
    arguments = inspect.signature(model.forward).parameters
    if not {"past_key_values", "logits_to_keep"} <= arguments.keys():
        raise StoreError(f"models of type {model.config.model_type} cannot be served")


class DefaultDtype(TorchFunctionMode):
    """Within the block, and in this thread alone, `dtype` is what torch's default dtype would be.

    What comes out in float32 although neither an argument nor an operand asked for it took the default.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not isinstance(result, Tensor) or result.dtype is not torch.float32:
            return result
        if func.__name__ == "float" or names_dtype((*args, *kwargs.values())):
            return result
        return result.to(self._dtype)


def names_dtype(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(map(names_dtype, value))
    if isinstance(value, Tensor):
        return value.is_floating_point()
    return isinstance(value, torch.dtype)


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
