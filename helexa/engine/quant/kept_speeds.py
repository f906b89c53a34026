"""The file in the user's cache that keeps what was measured of one device and one set of shapes."""

from collections.abc import Mapping
from pathlib import Path

import torch
from attrs import frozen

from helexa.engine.lean.library import cache_directory, kernels_name
from helexa.engine.orders import Measure, Quant
from helexa.engine.remembered import device_name, digest_of, recall, remember


@frozen
class KeptSpeeds:
    path: Path

    @classmethod
    def of(cls, order: Measure, *, compiled: bool) -> "KeptSpeeds":
        """`compiled`: packed layers are computed by our own kernels."""
        name = device_name(order.device)
        kernels = kernels_name() if compiled else ""
        told = (name, torch.get_num_threads(), torch.__version__, kernels, order.dtype)
        digest = digest_of(told, order.quants, order.shapes, order.fuses)
        return cls(cache_directory() / f"speeds-{digest}.json")

    def read(self) -> dict[Quant, float] | None:
        """None where nothing was kept."""
        try:
            return {quant: float(told) for quant, told in recall(self.path)["seconds"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, seconds: Mapping[Quant, float]) -> None:
        """Where that cannot be, the next load measures again."""
        remember(self.path, {"seconds": seconds})
