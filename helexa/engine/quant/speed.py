"""How fast this device multiplies by weights in each form, at the shapes of a model's own layers.

The weights are made up.  Of every shape there is a piece, and so many copies of them that they do not fit a
processor's caches, as those of a model do not.  What was measured twice alike is kept for the next load.
"""

import time
from collections.abc import Generator, Mapping, Sequence
from ctypes import CDLL
from itertools import chain, repeat

import torch
from torch import Tensor

from helexa import logs
from helexa.devices.faults import classify
from helexa.engine.lean.library import compiling, library
from helexa.engine.orders import LoadProgress, Measure, Measured, Quant
from helexa.engine.quant.kept_speeds import KeptSpeeds
from helexa.engine.quant.pieces import Cutter, Piece, piece_rows
from helexa.engine.skeleton import DTYPES, first_line

PROMPT_TOKENS, ANSWER_TOKENS = 512, 128  # of a usual request
CHUNK = 64  # rows of a pass that reads a prompt
RING_BYTES = 48 << 20
PASSES = 3
MOST_SECONDS = 0.5  # for as many of them as can be made
STEADY = 1.25  # times that differ by more tell of what else runs here

log = logs.get("helexa.engine")


@torch.inference_mode()
def measure(order: Measure) -> Generator[LoadProgress, None, Measured]:
    """Seconds for each policy; yields between pieces of work of some milliseconds."""
    is_cpu = order.device == "cpu"
    for _ in compiling() if is_cpu else ():
        yield moved(order)
    lib = library() if is_cpu and order.dtype == "fp32" and order.fuses else None
    kept = KeptSpeeds.of(order, compiled=lib is not None)
    found = kept.read()
    if found is None:
        found = yield from measure_all(order, lib)
        again = yield from measure_all(order, lib)
        if is_steady(found, again):
            kept.write(found)
        else:
            log.info("speeds not kept", model=order.model, reason="they changed while measured")
    return Measured(order.uid, tuple(found.items()))


def measure_all(
    order: Measure, lib: CDLL | None
) -> Generator[LoadProgress, None, dict[Quant, float]]:
    found: dict[Quant, float] = {}
    for quant in order.quants:
        try:
            found[quant] = yield from measured(order, Cutter(order, quant, lib))
        except Exception as error:
            if classify(error) != "other":
                raise
            log.warning("not measured", quant=quant, reason=first_line(error))
    return found


def is_steady(one: Mapping[Quant, float], other: Mapping[Quant, float]) -> bool:
    """Whether two rounds found the same, as they do where nobody else takes the processor."""
    if one.keys() != other.keys():
        return False
    return all(max(one[q], other[q]) <= STEADY * min(one[q], other[q]) for q in one)


def measured(order: Measure, cutter: Cutter) -> Generator[LoadProgress, None, float]:
    """For all layers, of a usual request."""
    pieces = []
    for rows, columns, _ in order.shapes:
        pieces.append(cutter.cut(rows, columns))
        yield moved(order)
    cut = sum(piece_rows(rows, columns) * columns for rows, columns, _ in order.shapes)
    times = sum(rows * columns * count for rows, columns, count in order.shapes) / cut
    ring = [pieces]
    for _ in range(min(RING_BYTES // sum(piece.nbytes for piece in pieces), int(times)) - 1):
        ring.append([piece.again() for piece in pieces])
        yield moved(order)
    token = yield from fastest(order, ring, 1)
    chunk = yield from fastest(order, [pieces], CHUNK)
    return (ANSWER_TOKENS * token + PROMPT_TOKENS / CHUNK * chunk) * times


def fastest(
    order: Measure, ring: Sequence[Sequence[Piece]], rows: int
) -> Generator[LoadProgress, None, float]:
    """Seconds for `rows` rows by one piece of each shape: the least of each, as others work beside us."""
    dtype, device = DTYPES[order.dtype], order.device
    inputs = {p.columns: torch.ones(rows, p.columns, dtype=dtype, device=device) for p in ring[0]}
    best = [float("inf")] * len(ring[0])
    ends = time.monotonic() + MOST_SECONDS
    for pieces in chain.from_iterable(repeat(ring, PASSES)):
        taken = [seconds(piece, inputs[piece.columns], device) for piece in pieces]
        best = list(map(min, best, taken))
        yield moved(order)
        if time.monotonic() > ends:
            break
    return sum(best)


def seconds(piece: Piece, x: Tensor, device: str) -> float:
    wait_for(device)
    began = time.perf_counter()
    piece.multiply(x)
    wait_for(device)
    return time.perf_counter() - began


def wait_for(device: str) -> None:
    """Until a card has done what it was told."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def moved(order: Measure) -> LoadProgress:
    return LoadProgress(order.uid, 0, 0)
