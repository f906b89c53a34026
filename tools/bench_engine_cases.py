"""What the bench of the engine asks, and what it reads off the answers.

A case is one kind of request, sent to every side that can answer it; its figures become rows.
"""

import statistics
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Literal

from attrs import frozen
from bench_engine_model import Text
from bench_engine_wire import Answer, Request, Stream, Timing

Kind = Literal["helexa", "transformers", "llama.cpp"]
ALL: tuple[Kind, ...] = ("helexa", "transformers", "llama.cpp")
NATIVE: tuple[Kind, ...] = ("helexa", "llama.cpp")
OURS: tuple[Kind, ...] = ("helexa",)
AHEAD = 16  # tokens of a running stream before others come
SHORTS = 24  # short requests after one another, as many of them as the long prompt leaves time for


# -- figures ---------------------------------------------------------------------------------------


@frozen
class Target:
    """`of`: the ratio of our value to llama.cpp's, or our value itself."""

    sense: Literal["≤", "≥"]
    bound: float
    of: Literal["ratio", "value"] = "ratio"

    def met(self, value: float) -> bool:
        return value <= self.bound if self.sense == "≤" else value >= self.bound

    def __str__(self) -> str:
        return f"{self.sense} {self.bound:g}"


@frozen
class Figure:
    """One row: `read` makes a number in `unit` of all answers of one side, NaN if they tell nothing."""

    name: str
    unit: Literal["ms", "tok/s", "ratio", "steps", "MB"]
    read: Callable[[list[Answer]], float]
    target: Target | None = None


@frozen
class Case:
    """`request` makes a request of a number that no other request has.  `most` bounds its rounds."""

    row: str  # what --rows calls it
    sides: tuple[Kind, ...]
    request: Callable[[int], Request]
    figures: tuple[Figure, ...]
    most: int = 100


def median(read: Callable[[Answer], float]) -> Callable[[list[Answer]], float]:
    return lambda answers: statistics.median(map(read, answers))


def percentile(
    part: float, read: Callable[[Answer], list[float]]
) -> Callable[[list[Answer]], float]:
    """Of what all answers give together."""

    def of(answers: list[Answer]) -> float:
        values = sorted(value for answer in answers for value in read(answer))
        return values[min(len(values) - 1, int(part * len(values)))] if values else float("nan")

    return of


def over(
    above: Callable[[list[Answer]], float], below: Callable[[list[Answer]], float]
) -> Callable[[list[Answer]], float]:
    return lambda answers: above(answers) / (below(answers) or float("nan"))


def first_ms(timing: Timing) -> float:
    if timing.began is None or not timing.times:
        return float("nan")
    return 1000 * (timing.times[0] - timing.began)


def decode_rate(answer: Answer) -> float:
    """Tokens per second of all streams together, while all of them decode."""
    start = max(timing.times[0] for timing in answer.streams)
    end = min(timing.times[-1] for timing in answer.streams)
    count = sum(start < at <= end for timing in answer.streams for at in timing.times)
    return count / (end - start) if end > start else float("nan")


def gaps_ms(times: list[float]) -> list[float]:
    """Between tokens; those that came in one step count as one."""
    return [1000 * (after - before) for before, after in pairwise(sorted(set(times)))]


# -- the cases -------------------------------------------------------------------------------------


def cases(text: Text, quick: bool) -> Iterator[Case]:
    for length in (128, 512) if quick else (128, 512, 2048):
        yield first_token(text, length)
    for length in (32, 512) if quick else (32, 512, 2048):
        yield decode(text, length, 16 if quick else 64)
    for streams in (1, 4) if quick else (1, 4, 8, 16, 32):
        yield together(text, streams, 48 if quick else 96)
    yield crowded(text, 1000 if quick else 4000)
    yield second_turn(text, 500 if quick else 2000)
    system = 500 if quick else 2000
    yield agents(text, system, "sharing nothing", ALL)
    yield agents(text, system, "shared, seen for the first time", NATIVE)
    yield agents_again(text, system)


def first_token(text: Text, length: int) -> Case:
    return Case(
        "first",
        ALL,
        lambda n: Request([Stream(text.prompt(n, length), 1, str(n))]),
        (
            Figure(
                f"first token, {length} in",
                "ms",
                median(lambda answer: first_ms(answer.streams[0])),
                Target("≤", 0.2) if length >= 512 else None,
            ),
        ),
    )


def decode(text: Text, length: int, tokens: int) -> Case:
    bounds = {32: 1.0, 2048: 1.2}
    return Case(
        "decode",
        ALL,
        lambda n: Request([Stream(text.prompt(n, length), tokens, str(n))]),
        (
            Figure(
                f"decode, {length} in",
                "tok/s",
                median(decode_rate),
                Target("≥", bounds[length]) if length in bounds else None,
            ),
        ),
    )


def together(text: Text, streams: int, tokens: int) -> Case:
    """All at once; longer answers for more of them, so that none ends before the last begins."""
    bounds = {8: 1.5, 16: 2.0, 32: 2.5}
    return Case(
        "streams",
        ALL,
        lambda n: Request(
            [
                Stream(text.prompt(100 * n + i, 128), tokens + 5 * streams, str(n))
                for i in range(streams)
            ]
        ),
        (
            Figure(
                f"decode in all, {streams} streams, 128 in",
                "tok/s",
                median(decode_rate),
                Target("≥", bounds[streams]) if streams in bounds else None,
            ),
        ),
    )


def crowded(text: Text, length: int) -> Case:
    """Stream 0 runs, stream 1 brings the long prompt, the others are short, one after another."""

    def request(n: int) -> Request:
        running = Stream(text.prompt(100 * n, 128), length, str(n), background=True)
        long = Stream(text.prompt(100 * n + 1, length), 1, str(n), 0, AHEAD)
        shorts = [
            Stream(
                text.prompt(100 * n + i, 32),
                1,
                str(n),
                after=i - 1 if i > 2 else 0,
                after_tokens=1 if i > 2 else AHEAD,
                before=1,
            )
            for i in range(2, 2 + SHORTS)
        ]
        return Request([running, long, *shorts])

    def shorts(answer: Answer) -> list[float]:
        return [first_ms(each) for each in answer.streams[2:] if each.began is not None]

    def before(answer: Answer) -> list[float]:
        return gaps_ms(answer.streams[0].times[:AHEAD])

    def meanwhile(answer: Answer) -> list[float]:
        """From the token before the long prompt came to its own first one."""
        end = answer.streams[1].times[0]
        return gaps_ms([at for at in answer.streams[0].times[AHEAD - 1 :] if at <= end])

    then = f"while {length} tokens prefill"
    return Case(
        "crowded",
        OURS,
        request,
        (
            Figure(f"first token of a short request {then}, p50", "ms", percentile(0.5, shorts)),
            Figure(f"first token of a short request {then}, p99", "ms", percentile(0.99, shorts)),
            Figure(
                f"first token of the {length} tokens themselves",
                "ms",
                median(lambda answer: first_ms(answer.streams[1])),
            ),
            Figure(
                "between tokens of a running stream before, median", "ms", percentile(0.5, before)
            ),
            Figure(
                f"between tokens of a running stream {then}, median",
                "ms",
                percentile(0.5, meanwhile),
            ),
            Figure(
                f"between tokens of a running stream {then}, p99", "ms", percentile(0.99, meanwhile)
            ),
            Figure(
                "the same p99 / its median",
                "ratio",
                over(percentile(0.99, meanwhile), percentile(0.5, meanwhile)),
                Target("≤", 4.0, "value"),
            ),
            Figure(
                "steps until a left stream is gone",
                "steps",
                median(lambda answer: answer.steps_to_stop),
                Target("≤", 1, "value"),
            ),
        ),
    )


def second_turn(text: Text, length: int) -> Case:
    def request(n: int) -> Request:
        first = Stream(text.prompt(n, length), 32, str(n))
        second = Stream(text.prompt(n + 50, 32), 1, str(n), 0, 32, continues=True)
        return Request([first, second])

    cold = median(lambda answer: first_ms(answer.streams[0]))
    again = median(lambda answer: first_ms(answer.streams[1]))
    return Case(
        "turn",
        NATIVE,
        request,
        (
            Figure(f"first token, second turn after {length}", "ms", again),
            Figure(
                "the same / its own cold first token",
                "ratio",
                over(again, cold),
                Target("≤", 0.1, "value"),
            ),
        ),
    )


def agents(text: Text, system: int, how: str, sides: tuple[Kind, ...]) -> Case:
    """Eight at once, with one salt or each with its own."""
    shared = how != "sharing nothing"

    def request(n: int) -> Request:
        return Request(
            [agent(text, system, n, i, f"{n}" if shared else f"{n}.{i}") for i in range(8)]
        )

    return agents_case(system, how, sides, request)


def agents_again(text: Text, system: int) -> Case:
    """The same eight, when somebody has had an answer to the system prompt."""

    def request(n: int) -> Request:
        begun = Stream(text.prompt(n, system), 1, str(n))
        return Request([begun, *(agent(text, system, n, i, str(n), after=0) for i in range(8))])

    return agents_case(system, "shared, seen before", OURS, request)


def agent(
    text: Text, system: int, number: int, i: int, salt: str, after: int | None = None
) -> Stream:
    own = text.prompt(100 * number + i, 32)
    return Stream([*text.prompt(number, system), *own], 1, salt, after)


def agents_case(
    system: int, how: str, sides: tuple[Kind, ...], request: Callable[[int], Request]
) -> Case:
    def all_first_ms(answer: Answer) -> float:
        agents = answer.streams[-8:]
        return 1000 * (max(t.times[0] for t in agents) - min(t.began or 0.0 for t in agents))

    name = f"8 agents, {system} tokens {how}, all first tokens"
    return Case("agents", sides, request, (Figure(name, "ms", median(all_first_ms)),), most=2)
