"""The file beside a model of the store in which its packed weights are kept: `packed/NAME.safetensors`.

NAME tells the policy and a hash over what the files hold and the form it was packed in; what does not fit
any more is simply not found.  No pickle: the format is
https://huggingface.co/docs/safetensors/index#format
"""

import json
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from attrs import frozen
from safetensors import SafetensorError, safe_open
from torch import Tensor

from helexa import logs
from helexa.engine.orders import Load
from helexa.engine.remembered import digest_of
from helexa.replacing import replacing
from helexa.store.contents import contents
from helexa.store.record import RECORD

FORMAT = 1  # of what is packed how; another number, another file
FOLDER = "packed"
SPARE_BYTES = 1 << 30  # of the disk, left free
WRITTEN_AT_ONCE = 16 << 20
DTYPES = {torch.uint8: "U8", torch.int32: "I32", torch.bfloat16: "BF16", torch.float32: "F32"}

log = logs.get("helexa.engine")


@frozen
class Kept:
    """Where packed weights of one model and form are kept."""

    path: Path

    @classmethod
    def of(cls, order: Load, layout: str) -> "Kept | None":
        """None for a directory that is not a model of the store, and for a policy that is not kept."""
        if order.quant in ("none", "fp8") or not (order.path / RECORD).is_file():
            return None
        policy = order.quant.removesuffix("+bf16")
        form = (FORMAT, policy, layout, torch.__version__, order.dtype)
        digest = digest_of(form, contents(order.path))
        return cls(order.path / FOLDER / f"{policy}-{digest}.safetensors")

    def read(self, device: str) -> dict[str, Tensor]:
        """The kept tensors on `device`; on a CPU pages of the file.  None of them if it is damaged."""
        try:
            with safe_open(self.path, framework="pt", device=device) as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except FileNotFoundError:
            return {}
        except (OSError, SafetensorError) as error:
            log.warning("packed weights not read", path=str(self.path), reason=str(error))
            return {}

    def write(self, tensors: Mapping[str, Tensor]) -> Generator[None, None, None]:
        """Replace the file, or leave things as they are where there is no room; a piece at a time."""
        try:
            self.path.parent.mkdir(mode=0o700, exist_ok=True)
            needed = sum(tensor.nbytes for tensor in tensors.values()) + SPARE_BYTES
            if shutil.disk_usage(self.path.parent).free < needed:
                log.warning("packed weights not kept: the disk is nearly full", path=str(self.path))
                return
            with replacing(self.path) as file:
                yield from write_tensors(file, tensors)
                policy = self.path.name.partition("-")[0]
                for old in self.path.parent.glob(f"{policy}-*.safetensors"):
                    old.unlink()
        except OSError as error:
            log.warning("packed weights not kept", path=str(self.path), reason=str(error))


def write_tensors(file: BinaryIO, tensors: Mapping[str, Tensor]) -> Generator[None, None, None]:
    """In the form of a safetensors file, piece by piece."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        span = [end, end := end + tensor.nbytes]
        dtype, shape = DTYPES[tensor.dtype], list(tensor.shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": span}
    told = json.dumps(header, separators=(",", ":")).encode()
    told += b" " * (-len(told) % 8)  # so that tensors lie on whole words
    file.write(len(told).to_bytes(8, "little") + told)
    for tensor in tensors.values():
        data: Any = tensor.cpu().contiguous().view(torch.uint8).flatten().numpy()
        for start in range(0, len(data), WRITTEN_AT_ONCE):
            file.write(data[start : start + WRITTEN_AT_ONCE])
            yield
