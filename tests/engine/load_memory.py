"""Loads a model in a process of its own and prints, in bytes, what that took."""

import json
import sys
import threading
from pathlib import Path

from toys import cpu_worker, load_order, run

from helexa.engine.orders import Abort, Load, Loaded, LoadProgress, Unload
from helexa.engine.worker import Worker


def own_bytes() -> int:
    """Memory of this process alone; pages of mapped files are not counted."""
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) << 10


class Peak:
    """The most memory that there was within the block."""

    def __enter__(self) -> "Peak":
        self.bytes, self._done = own_bytes(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.bytes = max(self.bytes, own_bytes())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def loaded(worker: Worker, order: Load) -> Loaded:
    worker.apply(order)
    return next(notice for notice in run(worker) if isinstance(notice, Loaded))


def gone(worker: Worker, uid: int) -> int:
    worker.apply(Unload(uid))
    run(worker)
    return own_bytes()


def called_off(worker: Worker, order: Load) -> int:
    """What is left of a load that was called off in its middle."""
    worker.apply(order)
    while True:
        told = [notice for notice in worker.step() if isinstance(notice, LoadProgress)]
        if told and told[-1].done_bytes > told[-1].total_bytes // 2:
            break
    worker.apply(Abort(order.uid))
    run(worker)
    return own_bytes()


def main(small: str, path: str, changes: str) -> None:
    worker, options = cpu_worker(threads=1), json.loads(changes)
    for uid in (1, 2):  # what a process takes once, for the first load
        loaded(worker, load_order(Path(small), uid=uid, **options))
        gone(worker, uid)
    before = own_bytes()
    with Peak() as peak:
        told = loaded(worker, load_order(Path(path), uid=3, kv_tokens=64, **options))
    there = own_bytes()
    left = gone(worker, 3)
    aborted = called_off(worker, load_order(Path(path), uid=4, kv_tokens=64, **options))
    result = {
        "weights": told.weights_bytes,
        "peak": peak.bytes - before,
        "there": there - before,
        "left": left - before,
        "aborted": aborted - before,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
