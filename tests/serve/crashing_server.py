"""helexa with a device whose thread dies of a bug of ours at its first step, every time."""

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from bench_server import ReadyWorker

from helexa import logs
from helexa.__main__ import run_to_end
from helexa.config.places import places
from helexa.config.read import read_all
from helexa.engine.orders import Notice
from helexa.serve import serve


class CrashingWorker(ReadyWorker):
    @property
    def idle(self) -> bool:
        return False

    def step(self) -> Sequence[Notice]:
        raise RuntimeError("a bug in the worker")


if __name__ == "__main__":
    config, catalogue = read_all(None, os.environ)
    ring = logs.configure("info", "json", os.environ)
    where = places(config, os.environ)
    run_to_end(
        partial(serve, config, catalogue, where, ring, os.environ, make_worker=CrashingWorker)
    )
