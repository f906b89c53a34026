"""Crowds on keys at their caps, and `kill -9` at random moments: is the ledger right each time?

    tools/soak accounts [--bursts 50] [--kills 100] [--seed 0]

A real process serves a script model over HTTP.  A burst is two hundred requests at once on a key of its
own; a kill ends the process in the middle of eight streams, and the next life has to know of them.  Every
burst and kill is a line, at the end there is a table; exit code 1 if anything was not as it has to be.
The tests run a few of the same.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "serve"))

from bursts import NUM_REQUESTS, Burst, burst
from kills import Kill, kill
from process import Helexa, helexa
from spenders import make_key, model_options

ENDLESS = 10**12  # tokens


def run_bursts(process: Helexa, number: int, seed: int) -> list[Burst]:
    done = []
    for index in range(number):
        one = burst(process, seed + index)
        say(
            f"burst {index + 1:>3}/{number}  cap {one.cap:>5}  answered {one.answered:>3}  "
            f"left {one.left:>2}  refused {one.refused:>3}  most taken {one.most_taken:>5}",
            one.problems,
        )
        done.append(one)
    return done


def run_kills(process: Helexa, number: int, seed: int) -> list[Kill]:
    secret, done = make_key(process, "killed", ENDLESS), []
    for index in range(number):
        one = kill(process, "killed", secret, random.Random(seed + index))
        say(
            f"kill {index + 1:>4}/{number}  streams {one.streams:>3}  ended {one.ended:>3}  "
            f"received {one.received:>4}  recorded {one.recorded:>4}  "
            f"lost {one.most_lost:>2}  ahead {one.most_ahead:>2}",
            one.problems,
        )
        done.append(one)
    return done


def say(line: str, problems: Sequence[str]) -> None:
    print(line, *(f"  WRONG: {each}" for each in problems), sep="\n", flush=True)


# -- the table -----------------------------------------------------------------------------------------


def table(bursts: Sequence[Burst], kills: Sequence[Kill]) -> list[tuple[str, int]]:
    rows: list[tuple[str, int]] = []
    if bursts:
        rows += [
            (f"bursts of {NUM_REQUESTS} requests", len(bursts)),
            ("answered", sum(one.answered for one in bursts)),
            ("left in the middle", sum(one.left for one in bursts)),
            ("refused", sum(one.refused for one in bursts)),
            ("bursts that went over their cap", sum(one.most_taken > one.cap for one in bursts)),
            ("bursts with anything wrong", sum(bool(one.problems) for one in bursts)),
        ]
    if kills:
        rows += [
            ("kills", len(kills)),
            ("streams", sum(one.streams for one in kills)),
            ("of which had ended", sum(one.ended for one in kills)),
            ("tokens received by clients", sum(one.received for one in kills)),
            ("tokens in the ledger", sum(one.recorded for one in kills)),
            ("most tokens of one answer lost", max(one.most_lost for one in kills)),
            ("most tokens on their way to a client", max(one.most_ahead for one in kills)),
            ("kills with anything wrong", sum(bool(one.problems) for one in kills)),
        ]
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bursts", type=int, default=50)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    began = time.monotonic()
    store = Path(os.environ["HELEXA_STORE__DIR"])
    with tempfile.TemporaryDirectory(prefix="helexa-soak-") as path:
        folder = Path(path)
        with helexa(folder / "state", store, model_options(folder)) as process:
            bursts = run_bursts(process, given.bursts, given.seed)
            kills = run_kills(process, given.kills, given.seed)
    print()
    for name, value in table(bursts, kills):
        print(f"{name:<38} {value:>7}")
    is_wrong = any(one.problems for one in bursts) or any(one.problems for one in kills)
    print(f"{time.monotonic() - began:.0f} s; {'WRONG' if is_wrong else 'all is as it has to be'}")
    return 1 if is_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
