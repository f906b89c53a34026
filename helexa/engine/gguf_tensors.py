"""A GGUF file as a table of transformers' tensors, each unpacked from its blocks when it is asked for.

Which tensor becomes which parameter, and what is done to it on the way, is transformers' to say: its tables
are used one tensor at a time here, where `from_pretrained` unpacks all of them into float32 first.  Of some
architectures (Qwen3.5, LFM2) its tables are those of safetensors: such files are read `by_name`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import field, frozen
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import (
    TENSOR_PROCESSORS,
    TensorProcessor,
    get_gguf_hf_weights_map,
)

from helexa.store.gguf import GgufHeader, GgufTensor, read_header

# Large, and taken as they are: unpacked a few rows at a time, straight into the model's number format.
TABLES = ("token_embd.weight", "per_layer_token_embd.weight")
HEAD = "output.weight"  # as well, unless it is to be packed: then nothing is rounded before that
ROWS_BYTES = 16 << 20  # of float32 that are there at once of a table


def header_of(path: Path) -> GgufHeader:
    with path.open("rb") as file:
        return read_header(file, path.stat().st_size, path.name)


@frozen(eq=False)
class Source:
    """What it takes to unpack a tensor of one file."""

    data: NDArray[np.uint8]  # the file's, mapped
    names: Mapping[str, str]  # the file's -> transformers'
    processor: TensorProcessor
    dtype: torch.dtype  # of the model
    tables: Sequence[str]


@frozen(eq=False)
class Unpacked:
    """One of transformers' tensors, with the interface of a slice of safetensors.

    `parts` are what the file has of it: gate and up of all experts of a layer become one, say.
    """

    name: str
    parts: Sequence[GgufTensor]
    source: Source = field(repr=False)

    def get_shape(self) -> list[int]:
        """Of the first part; of a tensor of one part its own."""
        return list(self.parts[0].shape[::-1])

    def get_dtype(self) -> str:
        return "F32"

    def __getitem__(self, _: Any) -> Tensor:
        if self.parts[0].name in self.source.tables:
            return table(self.parts[0], self.source)
        found: dict[str, dict[str, Tensor]] = {"tensors": {}}
        for part in self.parts:
            result = self.source.processor.process(
                weights=values(part, self.source.data),
                name=part.name,
                tensor_key_mapping=self.source.names,
                parsed_parameters=found,
            )
            if result.name in self.source.names:
                name = self.source.names[result.name]
                found["tensors"][name] = owned(result.weights)
        return found["tensors"][self.name]


@frozen(eq=False)
class Blocks:
    """One of the file's own tensors, with the interface of a slice of safetensors."""

    tensor: GgufTensor
    data: NDArray[np.uint8] = field(repr=False)  # the file's, mapped

    def get_shape(self) -> list[int]:
        return list(self.tensor.shape[::-1])

    def get_dtype(self) -> str:
        return "F32"

    def __getitem__(self, _: Any) -> Tensor:
        return owned(values(self.tensor, self.data))


def by_name(path: Path, header: GgufHeader) -> dict[str, Blocks]:
    """All that the file has, by its own names."""
    data = mapped(path, header)
    return {tensor.name: Blocks(tensor, data) for tensor in header.tensors}


def mapped(path: Path, header: GgufHeader) -> NDArray[np.uint8]:
    return np.memmap(path, np.uint8, mode="r", offset=header.data_start)


def unpacked(
    path: Path, header: GgufHeader, model: PreTrainedModel, *, packs: bool
) -> dict[str, Unpacked]:
    """What the file has of `model`'s parameters, by transformers' names; what it does not know is left out.

    `packs`: layers are packed as they come, and should be whole in float32 for that.
    """
    processor = TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)(
        config=model.config.to_dict()
    )
    names = get_gguf_hf_weights_map(model, processor)
    source = Source(
        mapped(path, header), names, processor, model.dtype, TABLES if packs else (*TABLES, HEAD)
    )
    parts: dict[str, list[GgufTensor]] = {}
    for tensor in header.tensors:
        of_experts = tensor.name.removesuffix(".weight")
        name = names.get(tensor.name) or names.get(of_experts)
        if name is not None:
            parts.setdefault(name, []).append(tensor)
    return {name: Unpacked(name, some, source) for name, some in parts.items()}


def values(tensor: GgufTensor, data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """All of it in float32, rows first."""
    blocks = rows_of(tensor, data)
    shape = tensor.shape[::-1]
    unpacked: NDArray[np.float32] = dequantize(blocks, GGMLQuantizationType[tensor.type])
    return unpacked.reshape(shape)


def table(tensor: GgufTensor, source: Source) -> Tensor:
    """A matrix in the model's number format."""
    blocks, columns = rows_of(tensor, source.data), tensor.shape[0]
    made = torch.empty(len(blocks), columns, dtype=source.dtype)
    for rows in slabs(len(blocks), columns):
        made[rows] = owned(dequantize(blocks[rows], GGMLQuantizationType[tensor.type]))
    return made


def owned(values: NDArray[np.float32]) -> Tensor:
    """A tensor that is no part of the file: float32 lies in it as it is."""
    return torch.from_numpy(np.require(values, requirements=["C", "W", "O"]))


def slabs(rows: int, columns: int) -> Iterator[slice]:
    size = max(1, ROWS_BYTES // (4 * columns))
    return (slice(start, min(rows, start + size)) for start in range(0, rows, size))


def rows_of(tensor: GgufTensor, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Its blocks as bytes [rows, bytes of a row]."""
    rows = tensor.elements // tensor.shape[0]
    return data[tensor.offset : tensor.offset + tensor.bytes].reshape(rows, -1)
