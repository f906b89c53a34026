"""A process that is killed at a random moment: the ledger has what clients got, but for a second of it."""

import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from ledger_child import PROMPT
from ledgers import ANN, BOB

from helexa.accounts.book import MeterId
from helexa.accounts.database import open_ledger
from helexa.accounts.windows import BALANCE, Meter, Scope

CHILD = Path(__file__).with_name("ledger_child.py")
MOST_LOST_SECONDS = 1.0
STORY_SECONDS = 1.5
KILLS = int(os.environ.get("HELEXA_TEST_KILLS", "2"))  # over HTTP there are more

Told = dict[str, list[float]]  # of each request, when each of its tokens was written


def run_and_kill(file: Path, seconds: float) -> tuple[Told, float]:
    """What the child told until it was killed after so long, and when that was."""
    told: Told = {}
    command = [sys.executable, str(CHILD), str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        first = child.stdout.readline()  # it is up
        select.select([], [], [], seconds)
        killed_at = time.monotonic()
        child.kill()
        for line in (first, *child.stdout.readlines()):
            name, number, at = line.decode().split()
            told.setdefault(name, []).append(float(at))
            assert len(told[name]) == int(number)
    return told, killed_at


@pytest.mark.parametrize("life", range(KILLS))
def test_what_was_streamed_is_recorded_but_for_the_last_second(tmp_path: Path, life: int) -> None:
    file = tmp_path / "ledger.sqlite"
    told, killed_at = run_and_kill(file, random.uniform(0.0, STORY_SECONDS))
    with open_ledger(file) as database:
        rows = database.read(
            "SELECT request_id, outcome, prompt_tokens, completion_tokens FROM requests"
        )
        meters = database.found.meters
    recorded = {name: completion for name, _, _, completion in rows}
    for name, times in told.items():
        certain = sum(at < killed_at - MOST_LOST_SECONDS for at in times)
        is_bounded = int(name.partition(".")[0]) % 2 == 0
        assert name in recorded or not is_bounded
        assert certain <= recorded.get(name, 0) <= len(times), (name, life)
    assert {outcome for _, outcome, _, _ in rows} <= {"settled", "released", "crashed"}
    assert all(prompt == (PROMPT if completion else 0) for _, _, prompt, completion in rows)
    charged = sum(prompt + completion for _, _, prompt, completion in rows)
    assert spent(meters, Scope(ANN.account_id)) == charged
    assert sum(spent(meters, Scope(one.account_id, one.key_id)) for one in (ANN, BOB)) == charged


def spent(meters: Mapping[MeterId, Meter], scope: Scope) -> int:
    return meters.get((scope, BALANCE), Meter()).spent.tokens
