"""The plan of a step, as tables and as laws."""

import subprocess
import sys

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from helexa.engine.scheduler import Chunk, Progress, plan

BUDGET, WIDTH = 10, 3

TABLE = {
    "nothing to do": ([], []),
    "a short prompt is computed at once and gives its first token": (
        [Progress(1, prompt=4)],
        [Chunk(1, 0, 4, True)],
    ),
    "a long prompt is cut and gives no token yet": (
        [Progress(1, prompt=25)],
        [Chunk(1, 0, 10, False)],
    ),
    "the last chunk of a prompt gives a token": (
        [Progress(1, prompt=25, computed=20)],
        [Chunk(1, 20, 5, True)],
    ),
    "a sequence with a token out decodes": (
        [Progress(1, prompt=4, computed=4, generated=1)],
        [Chunk(1, 4, 1, True)],
    ),
    "those that decode come before an older prompt": (
        [Progress(1, prompt=25), Progress(2, prompt=4, computed=6, generated=3)],
        [Chunk(2, 6, 1, True), Chunk(1, 0, 10, False)],
    ),
    "what a prompt leaves of the budget goes to the next": (
        [Progress(1, prompt=25, computed=22), Progress(2, prompt=25)],
        [Chunk(1, 22, 3, True), Chunk(2, 0, 7, False)],
    ),
    "prompts are served first come first served": (
        [Progress(7, prompt=25), Progress(2, prompt=1)],
        [Chunk(7, 0, 10, False)],
    ),
    "a sequence beyond the batch width waits": (
        [Progress(i, prompt=2, computed=2, generated=1) for i in range(4)],
        [Chunk(i, 2, 1, True) for i in range(3)],
    ),
}


@pytest.mark.parametrize(("sequences", "chunks"), TABLE.values(), ids=TABLE.keys())
def test_plan(sequences: list[Progress], chunks: list[Chunk]) -> None:
    assert plan(sequences, BUDGET, WIDTH) == tuple(chunks)


@st.composite
def progresses(draw: st.DrawFn) -> list[Progress]:
    sequences = []
    for uid in range(draw(st.integers(0, 12))):
        prompt = draw(st.integers(1, 60))
        computed = draw(st.integers(0, prompt - 1))
        generated = draw(st.integers(0, 5))
        if generated:
            computed = prompt + generated - 1
        sequences.append(Progress(uid, prompt, computed, generated))
    return sequences


@given(progresses(), st.integers(1, 40), st.integers(1, 10))
def test_a_plan_keeps_to_its_budget_and_never_stalls_who_decodes(
    sequences: list[Progress], budget: int, width: int
) -> None:
    chunks = {chunk.uid: chunk for chunk in plan(sequences, budget, width)}
    running = sequences[:width]
    assert chunks.keys() <= {s.uid for s in running}
    prompts = [chunks[s.uid].count for s in running if s.in_prompt and s.uid in chunks]
    assert sum(prompts) <= budget
    assert bool(prompts) == any(s.in_prompt for s in running)
    for sequence in running:
        if not sequence.in_prompt:
            assert chunks[sequence.uid].count == 1
        if (chunk := chunks.get(sequence.uid)) is not None:
            assert chunk.start == sequence.computed
            assert 0 < chunk.count <= sequence.pending
            assert chunk.samples == (chunk.count == sequence.pending)


@given(progresses(), st.integers(1, 40), st.integers(1, 10), st.integers(1, 6))
def test_every_sequence_ends(
    sequences: list[Progress], budget: int, width: int, answer: int
) -> None:
    wanted = {s.uid: s.generated + answer for s in sequences}
    live = list(sequences)
    # No step without progress: each computes at least one token of what is left.
    steps = sum(s.pending + answer for s in sequences) + 1
    while live and steps:
        steps -= 1
        done = {chunk.uid: chunk for chunk in plan(live, budget, width)}
        live = [advance(s, done[s.uid]) if s.uid in done else s for s in live]
        live = [s for s in live if s.generated < wanted[s.uid]]
    assert not live


def advance(sequence: Progress, chunk: Chunk) -> Progress:
    return evolve(
        sequence,
        computed=sequence.computed + chunk.count,
        generated=sequence.generated + chunk.samples,
    )


def test_orders_and_plans_need_no_torch() -> None:
    code = "import sys, helexa.engine.orders, helexa.engine.scheduler; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
