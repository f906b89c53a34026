"""Our own side: a Worker driven as its device thread drives it, without the rest of helexa."""

import time
from collections.abc import Iterable
from itertools import count
from pathlib import Path

import torch
from attrs import define, field
from bench_engine_wire import Answer, Request, Setup, Stream, Timing, Work, serve, shortened

from helexa.config.schema import Node
from helexa.devices.discovery import CPU, DeviceInfo, cpu_device, discover
from helexa.devices.host import ROOT
from helexa.devices.monitor import open_device
from helexa.engine.orders import (
    Abort,
    Add,
    Crashed,
    Failed,
    Load,
    Loaded,
    Notice,
    Piece,
    PrefillProgress,
    SamplingParams,
)
from helexa.engine.worker import Worker

MODEL_UID = 1
GREEDY = SamplingParams(temperature=0)


def open_worker(setup: Setup) -> tuple[Worker, Loaded]:
    """A worker that has the model loaded.  Raises HelexaError if it does not load."""
    worker = Worker(open_device(device_of(setup.device), Node()), setup.threads)
    order = Load(
        MODEL_UID,
        "bench",
        Path(setup.path),
        setup.device,
        setup.dtype,  # type: ignore[arg-type]
        setup.batch_width,
        setup.prefill_chunk_tokens,
        kv_tokens=setup.kv_tokens,
        quant=setup.quant,  # type: ignore[arg-type]
        drafts=setup.drafts,
    )
    notices: list[Notice] = list(worker.apply(order))
    while not worker.idle:
        notices += worker.step()
    for notice in notices:
        if isinstance(notice, Failed):
            raise notice.error
        if isinstance(notice, Loaded):
            return worker, notice
    raise RuntimeError("the worker says nothing about the load")


def device_of(name: str) -> DeviceInfo:
    if name == CPU:
        return cpu_device(Node(), "CPU", ROOT)
    found = discover(Node())
    for device in found.devices:
        if device.torch_name == name:
            return device
    raise SystemExit(f"there is no {name}: {found.cuda_unavailable_reason or found.devices}")


@define
class Drive:
    """One request on the worker; `now` is in seconds since it was made."""

    worker: Worker
    streams: list[Stream]
    uids: list[int]
    timings: list[Timing] = field(init=False)
    tokens: list[list[int]] = field(init=False)
    began: float = field(init=False, factory=time.perf_counter)
    waiting: set[int] = field(init=False)
    running: set[int] = field(init=False, factory=set)

    def __attrs_post_init__(self) -> None:
        self.timings = [Timing() for _ in self.streams]
        self.tokens = [[] for _ in self.streams]
        self.waiting = set(range(len(self.streams)))

    @property
    def now(self) -> float:
        return time.perf_counter() - self.began

    def run(self) -> Answer:
        self._begin()
        while self._wanted and not self.worker.idle:
            self._take(self.worker.step())
            self._begin()
        for i in self.running:
            self.worker.apply(Abort(self.uids[i]))
        return Answer(self.timings, self._steps_to_stop())

    @property
    def _wanted(self) -> bool:
        return any(not self.streams[i].background for i in self.running | self.waiting)

    def _begin(self) -> None:
        for i in sorted(self.waiting):
            stream = self.streams[i]
            if stream.before is not None and self._ended(stream.before):
                self.waiting.remove(i)
            elif stream.after is None or len(self.tokens[stream.after]) >= stream.after_tokens:
                self.waiting.remove(i)
                self._add(i)

    def _ended(self, i: int) -> bool:
        return i not in self.waiting and i not in self.running

    def _add(self, i: int) -> None:
        stream = self.streams[i]
        prompt = list(stream.prompt)
        if stream.continues and stream.after is not None:
            prompt = [*self.streams[stream.after].prompt, *self.tokens[stream.after], *prompt]
        order = Add(
            self.uids[i], MODEL_UID, tuple(prompt), stream.max_tokens, GREEDY, salt=stream.salt
        )
        self.running.add(i)
        self.timings[i].began = self.now
        self._take(self.worker.apply(order))

    def _take(self, notices: Iterable[Notice]) -> None:
        now = self.now
        for notice in notices:
            match notice:
                case Piece(uid, token, finish):
                    i = self.uids.index(uid)
                    self.timings[i].times.append(now)
                    self.tokens[i].append(token)
                    if finish:
                        self.running.discard(i)
                case PrefillProgress(uid, cached_tokens=cached):
                    self.timings[self.uids.index(uid)].cached_tokens = cached
                case Failed(_, error):
                    raise error
                case Crashed(_, reason):
                    raise RuntimeError(reason)

    def _steps_to_stop(self) -> int:
        steps = 0
        while not self.worker.idle:
            self.worker.step()
            steps += 1
        return steps


def open_helexa(setup: Setup) -> tuple[str, Work]:
    worker, loaded = open_worker(setup)
    uids = count(MODEL_UID + 1)

    def work(request: Request) -> Answer:
        streams = (shortened(request) if request.warm_up else request).streams
        return Drive(worker, streams, [next(uids) for _ in streams]).run()

    batching = f"one at a time, because {loaded.alone}" if loaded.alone else "batched"
    about = (
        f"torch {torch.__version__}, {setup.dtype}, quant {setup.quant}, {batching}, "
        f"weights {loaded.weights_bytes >> 20} MB, KV pool of {loaded.kv_tokens} tokens of "
        f"{loaded.kv_bytes_per_token} bytes, chunks of {setup.prefill_chunk_tokens}, "
        f"loaded in {loaded.seconds:.2f} s"
    )
    return about, work


if __name__ == "__main__":
    serve(open_helexa)
