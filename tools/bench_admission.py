"""What admission costs: decisions per second of the pure policy while many requests wait.

    python tools/bench_admission.py [--waiting 10000] [--keys 1000] [--seconds 2]

A decision is one that a request needs: it arrives and waits, its turn comes, or it gives up.  Beside it:
how long it takes to put the whole queue in order, which the actor does every two seconds at most when more
than a hundred wait, and what a refusal costs with the place that it is told.
"""

import argparse
import random
import time
from collections.abc import Callable, Iterator

from helexa.conversation import Principal
from helexa.fleet.admission import Line, Rules
from helexa.fleet.share import Share
from helexa.fleet.turns import Ticket

WIDTH = 64
RANDOM = random.Random(7)


def tickets(num_keys: int) -> Iterator[Ticket]:
    """Requests of many keys, of which a tenth floods; every fifth is batch, every ninth wide."""
    number = 0
    while True:
        number += 1
        key = RANDOM.randrange(num_keys if number % 2 else max(1, num_keys // 10))
        share = Share(1 + key % 3, "batch" if key % 5 == 0 else "interactive")
        slots = 8 if number % 9 == 0 else 1
        cost = RANDOM.randrange(50, 8000)
        yield Ticket(number, Principal(f"account {key}", "key"), slots, cost, share)


def fill(line: Line, coming: Iterator[Ticket]) -> int:
    """How many had to come until the queue was full."""
    number = 0
    while len(line.waiting) < line.rules.max_queue_depth:
        line.arrive(next(coming))
        number += 1
    return number


def per_second(seconds: float, step: Callable[[], int]) -> float:
    """Decisions per second of CPU, by steps that tell how many each of them was."""
    decisions, began = 0, time.process_time()
    while (elapsed := time.process_time() - began) < seconds:
        decisions += step()
    return decisions / elapsed


def turn_over(line: Line, coming: Iterator[Ticket]) -> Callable[[], int]:
    """One request ends, those whose turn it is start, as many come."""

    def step() -> int:
        ends = next(iter(line.running))
        started = line.leave(ends, tokens=RANDOM.randrange(50, 8000))
        return 1 + len(started) + fill(line, coming)

    return step


def give_up(line: Line, coming: Iterator[Ticket]) -> Callable[[], int]:
    """One that waits gives up, another comes."""
    waits: list[int] = []

    def step() -> int:
        if not waits:
            waits.extend(line.waiting)
            RANDOM.shuffle(waits)
        line.leave(waits.pop())
        return 1 + fill(line, coming)

    return step


def refuse(line: Line, coming: Iterator[Ticket]) -> Callable[[], int]:
    """One comes to the full queue, and is told how many slots go first."""
    order = line.order()

    def step() -> int:
        ticket = next(coming)
        decision, _ = line.arrive(ticket)
        assert decision == "queue_full"
        line.slots_ahead(ticket, order)
        return 1

    return step


def rows(
    waiting: int = 10_000, keys: int = 1000, seconds: float = 2.0
) -> Iterator[tuple[str, str]]:
    """What is measured, and the figure, each as soon as it is there."""
    coming = tickets(keys)
    line = Line(Rules(WIDTH, waiting, max_per_principal=0))
    began = time.process_time()
    rate = fill(line, coming) / (time.process_time() - began)
    yield f"the queue fills to {waiting}: decisions", f"{rate:.0f}/s"
    for name, steps in (
        ("one ends, one starts, one comes", turn_over),
        ("one gives up, one comes", give_up),
        ("one is refused and told its place", refuse),
    ):
        yield f"{name}: decisions", f"{per_second(seconds, steps(line, coming)):.0f}/s"
    began = time.process_time()
    line.order()
    yield "the whole queue in order", f"{1000 * (time.process_time() - began):.1f} ms"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--waiting", type=int, default=10_000)
    options.add_argument("--keys", type=int, default=1000)
    options.add_argument("--seconds", type=float, default=2.0)
    asked = options.parse_args()
    for name, figure in rows(asked.waiting, asked.keys, asked.seconds):
        print(f"{name:<48} {figure:>12}")


if __name__ == "__main__":
    main()
