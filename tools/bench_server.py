"""helexa with a device that has every token ready: what is left is our own cost per token.

The rest is the real process: tokenizer, template, admission, actors, codec, HTTP.

    bench_server.py [STEP_SECONDS]   how long a step takes: 0.004 as of a model, 0 for tokens at once
"""

import os
import sys
import time
from collections.abc import Sequence

import trio

from helexa import logs
from helexa.config.places import places
from helexa.config.read import read_all
from helexa.devices.monitor import Device
from helexa.engine.orders import (
    Abort,
    Add,
    Load,
    Loaded,
    Measure,
    Measured,
    Notice,
    Piece,
    Unload,
    Unloaded,
)
from helexa.serve import serve

DEFAULT_STEP_SECONDS = 0.004
AT_ONCE = 64  # tokens of a sequence in a step that takes no time
FIRST_TOKEN = 1000  # of a run of plain words in the demo model's vocabulary


class ReadyWorker:
    """One token per sequence and step, without a model."""

    step_seconds = float(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_STEP_SECONDS

    def __init__(self, device: Device, threads: int) -> None:
        self._live: dict[int, tuple[Add, int]] = {}

    @property
    def idle(self) -> bool:
        return not self._live

    def apply(self, order: Measure | Load | Unload | Add | Abort) -> Sequence[Notice]:
        match order:
            case Measure(uid):
                return [Measured(uid, ())]
            case Load(uid):
                return [Loaded(uid, 0, 0.0)]
            case Unload(uid):
                return [Unloaded(uid)]
            case Add(uid):
                self._live[uid] = (order, 0)
            case Abort(uid):
                self._live.pop(uid, None)
        return []

    def step(self) -> Sequence[Notice]:
        time.sleep(self.step_seconds)
        turns = 1 if self.step_seconds else AT_ONCE
        return [self._next(uid) for _ in range(turns) for uid in list(self._live)]

    def _next(self, uid: int) -> Piece:
        add, count = self._live[uid]
        count += 1
        last = count == add.max_tokens
        if last:
            del self._live[uid]
        else:
            self._live[uid] = (add, count)
        return Piece(uid, FIRST_TOKEN + count % 1000, "length" if last else None)


async def main() -> None:
    config, catalogue = read_all(None, os.environ)
    ring = logs.configure("warning", "human", os.environ)
    where = places(config, os.environ)
    await serve(config, catalogue, where, ring, os.environ, make_worker=ReadyWorker)


if __name__ == "__main__":
    sys.exit(trio.run(main))
