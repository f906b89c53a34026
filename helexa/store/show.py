"""Showing how far an add is: a bar on a terminal, else a line per phase and every ten seconds."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, TextIO

from helexa.store.progress import Progress

LINE_EVERY_SECONDS = 10.0
SAID = {
    "wait": "waiting for another process that adds this model",
    "download": "downloading",
    "verify": "verifying",
    "prepare": "preparing (this can take a minute)",
}


@contextmanager
def shown(stream: TextIO) -> Iterator[Progress]:
    """A Progress that writes to `stream`."""
    if not (stream.isatty() and find_spec("tqdm")):
        yield Lines(stream)
        return
    bar = Bar(stream)
    try:
        yield bar
    finally:
        bar.close()


class Lines:
    """One line when a phase starts, and now and then while it lasts."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._phase, self._next = "", 0.0

    def __call__(self, phase: str, done_bytes: int, total_bytes: int, /) -> None:
        now = self._clock()
        if phase == self._phase and now < self._next:
            return
        self._phase, self._next = phase, now + LINE_EVERY_SECONDS
        print(
            f"{SAID.get(phase, phase)}{part(done_bytes, total_bytes)}",
            file=self._stream,
            flush=True,
        )


class Bar:
    """A tqdm bar per phase."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._phase = stream, ""
        self._bar: Any = None

    def __call__(self, phase: str, done_bytes: int, total_bytes: int, /) -> None:
        if phase != self._phase:
            self.close()
            self._phase, self._bar = phase, self._new_bar(phase)
        self._bar.total = total_bytes or None
        self._bar.update(done_bytes - self._bar.n)

    def _new_bar(self, phase: str) -> Any:
        from tqdm import tqdm  # only a node has it

        return tqdm(
            desc=SAID.get(phase, phase),
            file=self._stream,
            unit="B",
            unit_scale=True,
            dynamic_ncols=True,
        )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def part(done_bytes: int, total_bytes: int) -> str:
    if total_bytes:
        return f": {size(done_bytes)} of {size(total_bytes)}"
    return f": {size(done_bytes)}" if done_bytes else ""


def size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
