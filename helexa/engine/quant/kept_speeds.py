"""The file in the user's cache that keeps what was measured of one device and one set of shapes.

Its name tells what the times hang on; what does not fit any more is simply not found.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from attrs import frozen

from helexa import logs
from helexa.devices.host import describe
from helexa.engine.lean.library import cache_directory, is_own, kernels_name
from helexa.engine.orders import Measure, Quant
from helexa.replacing import replace

log = logs.get("helexa.engine")


@frozen
class KeptSpeeds:
    path: Path

    @classmethod
    def of(cls, order: Measure, *, compiled: bool) -> "KeptSpeeds":
        """`compiled`: packed layers are computed by our own kernels."""
        name = device_name(order.device)
        kernels = kernels_name() if compiled else ""
        told = (name, torch.get_num_threads(), torch.__version__, kernels, order.dtype)
        digest = hashlib.sha256(repr((told, order.quants, order.shapes, order.fuses)).encode())
        return cls(cache_directory() / f"speeds-{digest.hexdigest()[:16]}.json")

    def read(self) -> dict[Quant, float] | None:
        """None where nothing was kept."""
        try:
            if not is_own(self.path.parent):
                return None
            found = json.loads(self.path.read_bytes())
            return {quant: float(seconds) for quant, seconds in found["seconds"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, seconds: Mapping[Quant, float]) -> None:
        """Where that cannot be, the next load measures again."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace(self.path, json.dumps({"seconds": seconds}).encode())
        except OSError as error:
            log.warning("speeds not kept", path=str(self.path), reason=str(error))


def device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return describe().cpu_name
