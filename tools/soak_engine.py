"""Mixed random requests against the engine, for minutes: is anything left, does anything grow?

    tools/soak engine [--minutes 10] [--seed 0] [--quant none] [--device cpu] ...

Random lengths, shared beginnings, accounts, samplings and cancels, on a KV pool that is too small for
all of them, so that prefixes are evicted and sequences preempted.  A line per minute; exit code 1 if a
request fails, if a sequence or a token of one is left at the end, or if memory or the time of a step
grows.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from attrs import define, field, frozen
from bench_engine_helexa import MODEL_UID, open_worker
from bench_engine_model import Text, WantedDtype, dtype_on, find_model
from bench_engine_wire import Setup

from helexa.engine.orders import (
    Abort,
    Add,
    Crashed,
    Failed,
    KvUse,
    Notice,
    Piece,
    Quant,
    SamplingParams,
)
from helexa.engine.worker import Worker
from helexa.fleet.catalogue import DEMO_MODEL

BATCH_WIDTH = 8
IN_FLIGHT = 12  # some of them wait for a place in the batch
KV_TOKENS = 4096
SYSTEMS = 6  # beginnings that requests share
MAX_PROMPT, MAX_TOKENS = 1200, 160
CANCELLED = 0.25  # of the requests
MEMORY_GROWTH, STEP_GROWTH = 1.05, 1.5  # of the last third of the minutes over the second


@frozen
class Minute:
    number: int
    finished: int
    cancelled: int
    rss_mb: float
    steps_ms: list[float]
    use: KvUse | None

    @property
    def median_ms(self) -> float:
        return statistics.median(self.steps_ms)

    def __str__(self) -> str:
        slow = sorted(self.steps_ms)[int(0.99 * len(self.steps_ms))]
        return (
            f"{self.number:>4} {self.finished:>9} {self.cancelled:>9} {self.rss_mb:>7.0f} MB "
            f"{self.median_ms:>8.1f} ms {slow:>8.1f} ms  {kv(self.use)}"
        )


HEAD = "min.  finished cancelled        RSS  step median       p99  KV pool"


def kv(use: KvUse | None) -> str:
    if use is None:
        return "nothing told"
    return (
        f"{use.running_tokens} running + {use.cached_tokens} cached of {use.total_tokens} tokens, "
        f"{use.entries} entries, {use.hits} hits, {use.saved_tokens} saved, "
        f"{use.evictions} evicted, {use.preemptions} preempted"
    )


# -- requests --------------------------------------------------------------------------------------


@frozen
class Requests:
    """Random ones.  Lengths are drawn on a logarithmic scale: many are short, some are long."""

    text: Text
    rng: random.Random

    def next(self, uid: int) -> Add:
        rng = self.rng
        own = self.text.prompt(uid, drawn_length(rng, MAX_PROMPT))
        begun = self._system() if rng.random() < 0.6 else []
        return Add(
            uid,
            MODEL_UID,
            tuple([*begun, *own]),
            drawn_length(rng, MAX_TOKENS),
            self._sampling(uid),
            salt=rng.choice(("a", "b")),
        )

    def cancel_after(self) -> int | None:
        """Steps until a request is cancelled; 0 is before its first."""
        return drawn_length(self.rng, 200) - 1 if self.rng.random() < CANCELLED else None

    def _system(self) -> list[int]:
        number = self.rng.randrange(SYSTEMS)
        return self.text.prompt(number, 100 * (number + 1))

    def _sampling(self, seed: int) -> SamplingParams:
        if self.rng.random() < 0.5:
            return SamplingParams(temperature=0)
        return SamplingParams(
            temperature=0.8,
            top_p=0.9,
            seed=seed,
            repetition_penalty=self.rng.choice((1.0, 1.1)),
            top_logprobs=self.rng.choice((None, 2)),
        )


def drawn_length(rng: random.Random, most: int) -> int:
    return int(most ** rng.random())


# -- the run ---------------------------------------------------------------------------------------


@define
class Soak:
    worker: Worker
    requests: Requests
    live: dict[int, int | None] = field(factory=dict)  # uid: steps until it is cancelled
    uid: int = MODEL_UID
    finished: int = 0
    cancelled: int = 0
    use: KvUse | None = None
    problems: list[str] = field(factory=list)

    def minute(self, number: int, seconds: float) -> Minute:
        self.finished = self.cancelled = 0
        steps_ms: list[float] = []
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.problems:
            while len(self.live) < IN_FLIGHT:
                self._add()
            self._cancel_due()
            began = time.perf_counter()
            self._take(self.worker.step())
            steps_ms.append(1000 * (time.perf_counter() - began))
        return Minute(number, self.finished, self.cancelled, rss_mb(), steps_ms, self.use)

    def drain(self) -> None:
        """Cancel every other one, and let the rest end."""
        for uid in list(self.live)[::2]:
            self._cancel(uid)
        while not self.worker.idle:
            self._take(self.worker.step())
        if self.live:
            self.problems.append(f"{len(self.live)} sequences never ended")
        if self.use is None:
            self.problems.append("the worker never told what its KV pool holds")
        elif self.use.running_tokens:
            self.problems.append(f"{self.use.running_tokens} tokens of nobody are in the KV pool")

    def _add(self) -> None:
        self.uid += 1
        self.live[self.uid] = self.requests.cancel_after()
        self._take(self.worker.apply(self.requests.next(self.uid)))

    def _cancel_due(self) -> None:
        for uid, steps in list(self.live.items()):
            if steps == 0:
                self._cancel(uid)
            elif steps is not None:
                self.live[uid] = steps - 1

    def _cancel(self, uid: int) -> None:
        del self.live[uid]
        self.cancelled += 1
        self._take(self.worker.apply(Abort(uid)))

    def _take(self, notices: Iterable[Notice]) -> None:
        for notice in notices:
            match notice:
                case Piece(uid) if uid not in self.live:
                    self.problems.append(
                        f"a token for sequence {uid}, which was cancelled or ended"
                    )
                case Piece(uid, finish=str()):
                    del self.live[uid]
                    self.finished += 1
                case KvUse():
                    self.use = notice
                case Failed(uid, error):
                    self.live.pop(uid, None)
                    self.problems.append(f"sequence {uid} failed: {error}")
                case Crashed(_, reason):
                    self.problems.append(reason)


def growth(minutes: list[Minute]) -> list[str]:
    """What grew from the second third of the minutes to the last; the first third warms up."""
    third = len(minutes) // 3
    if not third:
        return []
    before, after = minutes[third : 2 * third], minutes[-third:]
    memory = median_of([m.rss_mb for m in after]) / median_of([m.rss_mb for m in before])
    steps = median_of([m.median_ms for m in after]) / median_of([m.median_ms for m in before])
    print(f"\nlast third over the second: memory {memory:.3f}, median step {steps:.2f}")
    found = []
    if memory > MEMORY_GROWTH:
        found.append("memory grows")
    if steps > STEP_GROWTH:
        found.append("steps take longer and longer")
    return found


def median_of(values: list[float]) -> float:
    return statistics.median(values)


def rss_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--minute-seconds", type=float, default=60.0, help="to try the soak itself")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quant", default="none", choices=get_args(Quant))
    parser.add_argument("--dtype", default="auto", choices=get_args(WantedDtype))
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    parser.add_argument("--threads", type=int, default=0, help="0 for all cores")
    parser.add_argument("--model", default=DEMO_MODEL.source, help="a source, as in the catalogue")
    given = parser.parse_args()
    soak = opened(given)
    print(HEAD)
    minutes = []
    for number in range(1, given.minutes + 1):
        minutes.append(soak.minute(number, given.minute_seconds))
        print(minutes[-1], flush=True)
        if soak.problems:
            break
    soak.drain()
    print(f"at the end: {kv(soak.use)}")
    problems = [*soak.problems, *growth(minutes)]
    print(*(problems or ["nothing is left, nothing grows"]), sep="\n")
    return 1 if problems else 0


def opened(given: argparse.Namespace) -> Soak:
    path, text = find_model(given.model)
    dtype = dtype_on(given.device, given.dtype)
    worker, loaded = open_worker(
        Setup(
            path=str(path),
            gguf="",
            device=given.device,
            dtype=dtype,
            threads=given.threads,
            quant=given.quant,
            batch_width=BATCH_WIDTH,
            kv_tokens=KV_TOKENS,
        )
    )
    print(f"{path.name} on {given.device}, {dtype}, {given.quant}, seed {given.seed}", end="")
    print(f", one at a time: {loaded.alone}" if loaded.alone else "")
    return Soak(worker, Requests(text, random.Random(given.seed)))


if __name__ == "__main__":
    sys.exit(main())
