r"""Measure the engine beside its peers in one run, in turns, and print a table of ratios.

    tools/bench_engine [--llama PYTHON] [--minutes 15] [--quick] [--quant none,int4] [--rows first,decode]

The sides are our engine, without the rest of helexa; `generate` of transformers; and llama.cpp on the
GGUF file that the model was made from, in an environment of its own.  Each has a process of its own.
Nothing else should be running: all sides slow down, but not by the same factor.

The peer is built for the processor (what its wheel was built with is printed), once, in 10 minutes:

    python3 -m venv ~/llama
    CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON" \
        ~/llama/bin/pip install llama-cpp-python==0.3.36
    tools/bench_engine --llama ~/llama/bin/python

A processor with AVX-512 wants its flags too (-DGGML_AVX512=ON and the like), a card -DGGML_CUDA=ON.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import get_args

from attrs import frozen
from bench_engine_cases import Case, Figure, Kind, cases
from bench_engine_meter import Meter
from bench_engine_model import WantedDtype, dtype_on, find_model
from bench_engine_sides import Side, SideFailed, opened
from bench_engine_table import NOT_MEASURED, Answers, Row, markdown, rows
from bench_engine_wire import Answer, Request, Setup

from helexa.devices.host import ROOT
from helexa.devices.survey import survey
from helexa.engine.orders import Quant
from helexa.fleet.catalogue import DEMO_MODEL

MEMORY = "memory"
ROWS = ("first", "decode", "streams", "crowded", "turn", "agents", MEMORY)
BATCH_WIDTH = 32
MOST_OTHERS = 0.05  # of the CPU time, for figures that say something
KV_TOKENS = 24 * 1024  # more than any request of the cases needs
NOTES = """
ms: the median of the rounds, less is better; tok/s: more is better.  Every prompt is new, so that
only the second turn and the agents find anything in a cache.  llama.cpp has the best of its KV layouts
and of flash attention on and off for each kind of request, and computes a shared beginning once where
streams may share it; it has no scheduler at this level, so that nothing runs beside a prefill.
Memory is the peak of the resident set, of the whole run, with the KV cache of its largest request."""


@frozen
class Options:
    model: str
    gguf: Path | None
    llama: str | None
    quants: list[str]
    rows: list[str]
    dtype: WantedDtype
    device: str
    threads: int
    chunk: int
    rounds: int
    minutes: float
    quick: bool
    stock: bool
    drafts: bool


def read_options() -> Options:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--llama", metavar="PYTHON", help="one that can import llama_cpp")
    parser.add_argument("--quick", action="store_true", help="one round of smaller requests")
    parser.add_argument("--quant", default="none", metavar="Q,Q", help="each is a side of its own")
    parser.add_argument("--rows", default=",".join(ROWS), help="(default: %(default)s)")
    parser.add_argument("--dtype", default="auto", choices=get_args(WantedDtype))
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    parser.add_argument("--threads", type=int, default=2, help="of every side")
    parser.add_argument("--chunk", type=int, default=256, help="prompt tokens of one of our steps")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--minutes", type=float, default=60, help="no more than one round when its share is over"
    )
    parser.add_argument("--drafts", action="store_true", help="let our side draft")
    parser.add_argument("--model", default=DEMO_MODEL.source, help="a source, as in the catalogue")
    parser.add_argument("--gguf", type=Path, help="for llama.cpp (default: the model's own)")
    parser.add_argument("--without-transformers", action="store_true")
    given = parser.parse_args()
    for option, known in (("rows", ROWS), ("quant", get_args(Quant))):
        if unknown := set(getattr(given, option).split(",")) - set(known):
            parser.error(f"--{option}: {', '.join(unknown)} is none of {', '.join(known)}")
    return Options(
        given.model,
        given.gguf,
        given.llama,
        given.quant.split(","),
        given.rows.split(","),
        given.dtype,
        given.device,
        given.threads,
        given.chunk,
        1 if given.quick else given.rounds,
        given.minutes,
        given.quick,
        not given.without_transformers,
        given.drafts,
    )


def commands(options: Options, path: Path) -> Iterator[tuple[Kind, str, Setup]]:
    """What to start: kind, interpreter and setup of each side."""
    gguf = options.gguf or next(iter(path.glob("*.gguf")), None)
    plain = Setup(
        path=str(path),
        gguf=str(gguf or ""),
        device=options.device,
        dtype=dtype_on(options.device, options.dtype),
        threads=options.threads,
        batch_width=BATCH_WIDTH,
        prefill_chunk_tokens=options.chunk,
        kv_tokens=KV_TOKENS,
        drafts=options.drafts,
    )
    for quant in options.quants:
        yield "helexa", sys.executable, replace(plain, quant=quant)
    if options.stock:
        yield "transformers", sys.executable, plain
    if options.llama and gguf:
        yield "llama.cpp", options.llama, plain


# -- measuring -------------------------------------------------------------------------------------


def measure(
    case: Case, sides: list[Side], numbers: Iterator[int], options: Options, end: float
) -> Answers:
    """The rounds of one case, each side in turn and another one first in each round.

    The first is measured however long it takes, none begins after `end`.  A side that fails is left out
    from then on.
    """
    answers: Answers = {}
    taking_part = [side for side in sides if side.kind in case.sides]
    for number in range(0 if options.quick else -1, min(options.rounds, case.most)):
        if number > 0 and time.monotonic() >= end:
            break
        request = case.request(next(numbers))
        for side in turned(taking_part, number):
            answer = asked(side, replace(request, warm_up=number < 0))
            if answer is None:
                sides.remove(side)
                taking_part.remove(side)
            elif number >= 0:
                answers.setdefault((side.kind, side.quant), []).append(answer)
    return answers


def turned(sides: list[Side], by: int) -> list[Side]:
    start = by % max(1, len(sides))
    return sides[start:] + sides[:start]


def asked(side: Side, request: Request) -> Answer | None:
    try:
        return side.ask(request)
    except SideFailed as error:
        print(error, file=sys.stderr)
        return None


def memory_rows(sides: list[Side], quants: list[str]) -> Iterator[Row]:
    peaks = {(side.kind, side.quant): side.peak_mb() for side in sides}
    figure = Figure("peak memory", "MB", lambda answers: float("nan"))
    for quant in quants:
        yield Row(
            figure,
            quant,
            peaks.get(("helexa", quant), NOT_MEASURED),
            peaks.get(("transformers", "none"), NOT_MEASURED),
            peaks.get(("llama.cpp", "none"), NOT_MEASURED),
        )


def main() -> None:
    options = read_options()
    path, text = find_model(options.model)
    numbers, table = count(1), list[Row]()
    with opened(list(commands(options, path))) as (sides, problems):
        describe(options, path, sides, problems)
        meter = Meter(tuple(side.process.pid for side in sides))
        wanted = [case for case in cases(text, options.quick) if case.row in options.rows]
        last = time.monotonic() + 60 * options.minutes
        for place, case in enumerate(wanted):
            now = time.monotonic()
            end = now + (last - now) / (len(wanted) - place)
            answers = measure(case, sides, numbers, options, end)
            found = list(rows(case, answers, options.quants))
            print(*(row.line for row in found), sep="\n", file=sys.stderr)
            table += found
        if MEMORY in options.rows:
            table += memory_rows(sides, options.quants)
        others = meter.others()
    print(f"\n{markdown(table)}\n{NOTES}")
    print(f"Of the CPU time that was used meanwhile, other programs took {others:.0%}.")
    if others > MOST_OTHERS:
        print(
            "That is too much for a comparison: measure again on a machine that does nothing else."
        )


def describe(options: Options, path: Path, sides: list[Side], problems: list[str]) -> None:
    host = survey(ROOT).host
    print(f"- machine: {host.cpu_name}, {os.cpu_count()} cores")
    print(f"- model: {path.name}, on {options.device}, rounds: {options.rounds}")
    for side in sides:
        print(f"- {side.kind}: {side.about}")
    for problem in problems:
        print(f"- not measured: {problem}")
    if not options.llama:
        print("- not measured: llama.cpp, for which --llama names a python")
    elif not options.gguf and not any(path.glob("*.gguf")):
        print("- not measured: llama.cpp, because the model has no GGUF file; --gguf names one")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
