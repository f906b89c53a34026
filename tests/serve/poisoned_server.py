"""helexa with a device that is lost at the second request's first step, as a sticky CUDA error does it."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from bench_server import ReadyWorker

from helexa import logs
from helexa.config.places import places
from helexa.config.read import read_all
from helexa.devices.monitor import Device
from helexa.engine.orders import Add, Notice
from helexa.errors import DevicePoisoned
from helexa.serve import serve


class FragileWorker(ReadyWorker):
    def __init__(self, device: Device, threads: int) -> None:
        super().__init__(device, threads)
        self._num_adds = 0

    def apply(self, order: object) -> Sequence[Notice]:
        self._num_adds += isinstance(order, Add)
        return super().apply(order)  # type: ignore[arg-type]

    def step(self) -> Sequence[Notice]:
        if self._num_adds == 2:
            raise DevicePoisoned("CUDA error: an illegal memory access was encountered")
        return super().step()


async def main() -> int:
    config, catalogue = read_all(None, os.environ)
    ring = logs.configure("info", "json", os.environ)
    where = places(config, os.environ)
    return await serve(config, catalogue, where, ring, os.environ, make_worker=FragileWorker)


if __name__ == "__main__":
    sys.exit(trio.run(main))
