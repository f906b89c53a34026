"""The safetensors files of a model directory as one table of tensors that are read when asked for."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from helexa.errors import StoreError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

Checkpoint = Mapping[str, Any]  # name -> safetensors' slice; `slice[...]` reads the tensor


@contextmanager
def open_checkpoint(directory: Path) -> Iterator[Checkpoint]:
    """All tensors of `directory`; the files stay open as long as the block lasts."""
    tensors: dict[str, Any] = {}
    with ExitStack() as files:
        for path in weight_files(directory):
            try:
                file = files.enter_context(safe_open(path, framework="pt", device="cpu"))
            except (OSError, SafetensorError) as error:
                raise StoreError(f"{path} cannot be read: {error}") from error
            tensors.update((name, file.get_slice(name)) for name in file.keys())  # noqa: SIM118
        yield tensors


def weight_files(directory: Path) -> list[Path]:
    if (directory / INDEX).is_file():
        return [directory / name for name in shards(directory / INDEX)]
    if (directory / SINGLE).is_file():
        return [directory / SINGLE]
    raise StoreError(f"{directory} holds no weights (model.safetensors)")


def shards(index: Path) -> list[str]:
    """The files that an index names; they must lie beside it."""
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{index} is damaged: it does not map tensors to files") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise StoreError(f"{index} names a file outside of its directory")
    return names


def num_bytes(tensor: Any) -> int:
    """The size of a safetensors slice.  Its dtype names its bits ("BF16", "F8_E4M3"); BOOL takes 8."""
    bits = re.search(r"\d+", tensor.get_dtype())
    numel: int = math.prod(tensor.get_shape())
    return numel * (int(bits[0]) if bits else 8) // 8
