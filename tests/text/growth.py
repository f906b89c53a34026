"""How the work of a function grows with its input."""

import gc
import time
from collections.abc import Callable

TRIES = 5


def in_proportion(work: Callable[[int], object], size: int) -> bool:
    """Whether ten times `size` takes `work` clearly less than a hundred times as long.

    In processor time of this process, without the garbage collector (a full collection takes longer than
    what is asked about), and in the best of a few tries: a bad moment of the machine is no growth.
    """
    work(size)
    gc.disable()
    try:
        return any(
            seconds(work, 10 * size) < 40 * max(seconds(work, size), 0.005) for _ in range(TRIES)
        )
    finally:
        gc.enable()


def seconds(work: Callable[[int], object], size: int) -> float:
    began = time.process_time()
    work(size)
    return time.process_time() - began
