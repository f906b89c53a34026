"""What holding an answer to a form costs: tokens per second with and without, on the demo model.

    python tools/bench_constraints.py [--seconds S] [--threads N]

Both sides are measured in turn in one run, over the same number of tokens, so that a busy machine slows
both.  Beside it: how long it takes to compile a form for the first time, and a mask.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from helexa.config.schema import Store as StoreSettings
from helexa.conversation import Conversation, JsonObject, JsonSchema, Regex, Tool, ToolChoice
from helexa.devices.discovery import DeviceInfo
from helexa.devices.monitor import CpuDevice
from helexa.engine.orders import Add, Constraint, Load, Piece, SamplingParams
from helexa.engine.worker import Worker
from helexa.fleet.catalogue import DEMO_MODEL
from helexa.store import Store
from helexa.text.constraint import compile_constraint
from helexa.text.markup import Markup
from helexa.text.tokenizer import Tokenizer

TOKENS = 64  # of an answer
STORE = Path.home() / ".cache" / "helexa-test"

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "c"]}},
        "address": {"type": "object", "properties": {"street": {"type": "string"}}},
    },
    "required": ["name", "age", "tags", "address"],
}
WEATHER = Tool("get_weather", None, {"type": "object", "properties": {"city": {"type": "string"}}})
CASES: dict[str, Conversation] = {
    "json_schema": Conversation("m", format=JsonSchema("person", PERSON)),
    "json_object": Conversation("m", format=JsonObject()),
    "regex": Conversation("m", format=Regex(r"([A-Za-z]+ ){100,}")),
    "forced call": Conversation("m", tools=(WEATHER,), tool_choice=ToolChoice("required")),
}


@frozen
class Row:
    name: str
    compile_seconds: float
    mask_seconds: float  # median
    free: float  # tokens per second
    held: float

    @property
    def ratio(self) -> float:
        return self.held / self.free


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=10.0, help="for each case")
    options.add_argument("--threads", type=int, default=0, help="of torch, 0 for all cores")
    given = options.parse_args()
    path = Store(StoreSettings(), STORE).add(DEMO_MODEL.source).path
    worker, tokenizer = loaded(path, given.threads), Tokenizer.load(path / "tokenizer.json")
    began = time.perf_counter()
    assert tokenizer.compiler
    print(f"vocabulary of {tokenizer.num_ids} read in {time.perf_counter() - began:.2f} s\n")
    print("form           compile   mask      free        held        held / free")
    for name in CASES:
        row = measure(name, worker, tokenizer, given.seconds)
        print(
            f"{row.name:<14} {row.compile_seconds * 1e3:4.0f} ms   {row.mask_seconds * 1e6:4.0f} us   "
            f"{row.free:6.1f}/s    {row.held:6.1f}/s    {row.ratio:.3f}"
        )


def loaded(path: Path, threads: int) -> Worker:
    worker = Worker(CpuDevice(DeviceInfo(0, "CPU", "cpu", 16_000, None, "cpu")), threads)
    worker.apply(Load(1, "demo", path, "cpu", "fp32", 1, 512))
    while not worker.idle:
        worker.step()
    return worker


def measure(name: str, worker: Worker, tokenizer: Tokenizer, seconds: float) -> Row:
    began = time.perf_counter()
    constraint = compile_constraint(tokenizer, CASES[name], "", Markup())
    compile_seconds = time.perf_counter() - began
    assert constraint is not None
    prompt = tokenizer.encode("Tell me about a person as JSON.\n")
    end = frozenset({tokenizer.token_id("<|im_end|>") or 0})
    masks: list[float] = []
    timed = Timed(constraint, masks)
    rates: dict[bool, list[float]] = {False: [], True: []}
    seed, deadline = 0, time.perf_counter() + seconds
    while time.perf_counter() < deadline or seed < 4:
        held = seed % 2 == 1
        order = Add(
            100 + seed,
            1,
            prompt,
            TOKENS,
            SamplingParams(temperature=0.8, top_p=0.9, seed=seed // 2),
            end if held else frozenset(),
            timed if held else None,
        )
        rates[held].append(rate(worker, order))
        seed += 1
    free, constrained = (statistics.median(rates[held]) for held in (False, True))
    return Row(name, compile_seconds, statistics.median(masks), free, constrained)


def rate(worker: Worker, order: Add) -> float:
    """Tokens per second after the first."""
    worker.apply(order)
    times: list[float] = []
    while not worker.idle:
        pieces = [notice for notice in worker.step() if isinstance(notice, Piece)]
        times += [time.perf_counter()] * len(pieces)
    return (len(times) - 1) / max(times[-1] - times[0], 1e-9)


@frozen
class Timed:
    """A constraint whose masks are timed."""

    constraint: Constraint
    masks: list[float]

    def matcher(self) -> "TimedMatcher":
        inner = self.constraint.matcher()
        return TimedMatcher(inner.allowed, inner.closing, inner.accept, self.masks)


@frozen
class TimedMatcher:
    inner: Callable[[], tuple[bytearray, bool]]
    closing: Callable[[bytearray], bytearray]
    accept: Callable[[int], None]
    masks: list[float]

    def allowed(self) -> tuple[bytearray, bool]:
        began = time.perf_counter()
        found = self.inner()
        self.masks.append(time.perf_counter() - began)
        return found


if __name__ == "__main__":
    main()
