"""The plan of a step, as tables and as laws."""

import subprocess
import sys

import pytest
from attrs import define, evolve, field
from hypothesis import given, settings
from hypothesis import strategies as st

from helexa.engine.kv.spans import BLOCK, rounded
from helexa.engine.scheduler import (
    AHEAD,
    LEAST_CHUNK,
    STALL,
    Chunk,
    Plan,
    Progress,
    beginner,
    plan,
    prompt_budget,
)

BUDGET, WIDTH = 10, 3


def begun(uid: int, known: int, computed: int = 0, capacity: int = 64, **more: int) -> Progress:
    return Progress(uid, known, computed, capacity, **more)


def computes(*chunks: Chunk) -> Plan:
    return Plan((), chunks)


TABLE = {
    "nothing to do": ([], 0, Plan()),
    "who has not begun is not computed": ([Progress(1, known=4)], 640, Plan()),
    "a short prompt is computed at once and gives its first token": (
        [begun(1, known=4)],
        0,
        computes(Chunk(1, 0, 4, True, 64)),
    ),
    "a long prompt is cut and gives no token yet": (
        [begun(1, known=25)],
        0,
        computes(Chunk(1, 0, 10, False, 64)),
    ),
    "the last chunk of a prompt gives a token": (
        [begun(1, known=25, computed=20)],
        0,
        computes(Chunk(1, 20, 5, True, 64)),
    ),
    "a sequence with a token out decodes": (
        [begun(1, known=5, computed=4)],
        0,
        computes(Chunk(1, 4, 1, True, 64)),
    ),
    "those that decode come before an older prompt": (
        [begun(1, known=25), begun(2, known=7, computed=6)],
        0,
        computes(Chunk(2, 6, 1, True, 64), Chunk(1, 0, 10, False, 64)),
    ),
    "what a prompt leaves of the budget goes to the next": (
        [begun(1, known=25, computed=22), begun(2, known=25)],
        0,
        computes(Chunk(1, 22, 3, True, 64), Chunk(2, 0, 7, False, 64)),
    ),
    "a short prompt need not wait for a long one": (
        [begun(7, known=25), begun(2, known=1)],
        0,
        computes(Chunk(7, 0, 9, False, 64), Chunk(2, 0, 1, True, 64)),
    ),
    "half of the budget is the oldest's, the shortest of the others takes the rest": (
        [begun(7, known=25), begun(2, known=30), begun(3, known=20)],
        0,
        computes(Chunk(7, 0, 5, False, 64), Chunk(3, 0, 5, False, 64)),
    ),
    "a chunk ends where states are to be kept": (
        [begun(1, known=25, computed=3, until=7)],
        0,
        computes(Chunk(1, 3, 4, False, 64)),
    ),
    "one that decodes gets room for what it may say, if there is any": (
        [begun(1, known=65, computed=64, left=100)],
        640,
        computes(Chunk(1, 64, 1, True, 192)),
    ),
    "but for no more than a little ahead": (
        [begun(1, known=65, computed=64, left=10_000)],
        6400,
        computes(Chunk(1, 64, 1, True, rounded(65 + AHEAD))),
    ),
    "and where there is little, for what it needs": (
        [begun(1, known=65, computed=64, left=100)],
        64,
        computes(Chunk(1, 64, 1, True, 128)),
    ),
    "what is drafted is computed with what decodes": (
        [begun(1, known=5, computed=4, left=9, drafted=3)],
        0,
        computes(Chunk(1, 4, 4, True, 64, drafted=3)),
    ),
    "but nothing behind the last token that may still come": (
        [begun(1, known=5, computed=4, left=3, drafted=8)],
        0,
        computes(Chunk(1, 4, 3, True, 64, drafted=2)),
    ),
    "nor more than there is room for": (
        [begun(1, known=62, computed=61, left=9, drafted=8), begun(2, known=64)],
        0,
        Plan((), (Chunk(1, 61, 3, True, 64, drafted=2), Chunk(2, 0, 10, False, 64))),
    ),
    "one whose text is not computed drafts nothing": (
        [begun(1, known=5, left=9, drafted=8)],
        0,
        computes(Chunk(1, 0, 5, True, 64)),
    ),
    "in a full pool the youngest gives its room to an older one": (
        [begun(1, known=65, computed=64), begun(2, known=9), begun(3, known=9, computed=5)],
        0,
        Plan((3,), (Chunk(1, 64, 1, True, 128), Chunk(2, 0, 9, True, 64))),
    ),
    "and gives way itself if it is the one that needs room": (
        [begun(1, known=9, computed=8), begun(2, known=65, computed=64)],
        0,
        Plan((2,), (Chunk(1, 8, 1, True, 64),)),
    ),
}


@pytest.mark.parametrize(("sequences", "free", "planned"), TABLE.values(), ids=TABLE.keys())
def test_plan(sequences: list[Progress], free: int, planned: Plan) -> None:
    assert plan(sequences, BUDGET, free) == planned


NEW = Progress(9, known=70, left=20)

BEGINNERS = {
    "nobody": ([], 640, None),
    "the first that has not begun, with room for what it may say": ([NEW], 640, (9, 128)),
    "or for what it knows": ([evolve(NEW, known=60)], 64, (9, 64)),
    "who has begun is left as it is": ([begun(1, 5, 4)], 640, None),
    "nobody where there is no room": ([NEW], 64, None),
    "nobody is passed over": ([NEW, Progress(10, known=1)], 64, None),
    "nobody beyond the batch width": ([begun(i, 5, 4) for i in range(WIDTH)] + [NEW], 640, None),
    "behind a short text": ([begun(1, known=9), NEW], 640, (9, 128)),
    "the shortest beside one text that fills the steps": (
        [begun(1, known=25), NEW, Progress(10, known=60)],
        640,
        (10, 64),
    ),
    "nobody beside two of them": (
        [begun(1, known=25), begun(2, known=25), NEW],
        640,
        None,
    ),
    "not who awaits what another computes": (
        [begun(1, known=25), evolve(NEW, awaits=True)],
        640,
        None,
    ),
    "but the one behind it": (
        [evolve(NEW, awaits=True), Progress(10, known=60)],
        640,
        (10, 64),
    ),
    "behind a long text that is nearly done": (
        [begun(1, known=25, computed=16), NEW],
        640,
        (9, 128),
    ),
    "behind those that decode": ([begun(i, 5, 4) for i in range(2)] + [NEW], 640, (9, 128)),
}


@pytest.mark.parametrize(("sequences", "free", "found"), BEGINNERS.values(), ids=BEGINNERS.keys())
def test_beginner(sequences: list[Progress], free: int, found: tuple[int, int] | None) -> None:
    assert beginner(sequences, WIDTH, free, BUDGET) == found


@pytest.mark.parametrize(
    ("step", "token", "budget"),
    [
        (None, 0.001, 512),
        (0.05, None, 512),
        (0.05, 0.001, int(STALL * 50)),
        (0.05, 0.000_001, 512),
        (0.001, 0.01, LEAST_CHUNK),
    ],
    ids=["nobody decodes", "no pace is known", "some steps", "a fast device", "a slow device"],
)
def test_a_text_may_take_some_steps_of_those_that_decode(
    step: float | None, token: float | None, budget: int
) -> None:
    assert prompt_budget(512, step, token) == budget
    assert prompt_budget(5, step, token) == 5


@st.composite
def progresses(draw: st.DrawFn) -> list[Progress]:
    """Sequences in any state in which a step may find them."""
    sequences = []
    for uid in range(draw(st.integers(0, 12))):
        known = draw(st.integers(1, 300))
        computed = draw(st.sampled_from([0, draw(st.integers(0, known - 1)), known - 1]))
        # A sequence has room for all it knows but the last token, which it needs none for until now.
        room = rounded(max(1, known - 1 if computed == known - 1 and computed else known))
        capacity = draw(st.sampled_from([0, room, room + BLOCK]))
        left = draw(st.integers(1, 600))
        drafted = draw(st.integers(0, 8))
        computed = computed if capacity else 0
        sequences.append(Progress(uid, known, computed, capacity, left, drafted=drafted))
    return sequences


frees = st.integers(0, 20).map(lambda blocks: blocks * BLOCK)


@given(progresses(), st.integers(1, 400), frees)
def test_a_plan_keeps_to_its_budget_and_its_room_and_never_stalls_who_decodes(
    sequences: list[Progress], budget: int, free: int
) -> None:
    planned = plan(sequences, budget, free)
    chunks = {chunk.uid: chunk for chunk in planned.chunks}
    assert len(chunks) == len(planned.chunks)
    stay = [s for s in sequences if s.has_begun and s.uid not in planned.preempted]
    assert chunks.keys() <= {s.uid for s in stay}
    texts = [chunks[s.uid].count for s in stay if not s.decodes and s.uid in chunks]
    assert sum(texts) <= budget
    assert bool(texts) == any(not s.decodes for s in stay)
    for sequence in stay:
        chunk = chunks.get(sequence.uid)
        if sequence.decodes:
            assert chunk is not None
            assert chunk.count == 1 + chunk.drafted
            assert chunk.drafted <= sequence.drafted
            assert chunk.drafted < sequence.left
        if chunk is not None:
            known = chunk.count - chunk.drafted
            assert chunk.start == sequence.computed
            assert 0 < known <= sequence.pending
            assert chunk.samples == (known == sequence.pending)
            assert sequence.decodes or not chunk.drafted
            assert chunk.capacity >= max(sequence.capacity, chunk.start + chunk.count)
    given_back = sum(s.capacity for s in sequences if s.uid in planned.preempted)
    more = sum(c.capacity - s.capacity for s in stay if (c := chunks.get(s.uid)))
    assert more <= free + given_back


@given(progresses(), st.integers(1, 400), frees)
def test_nobody_gives_way_and_nobody_gets_room_for_drafts(
    sequences: list[Progress], budget: int, free: int
) -> None:
    planned = plan(sequences, budget, free)
    plain = plan([evolve(each, drafted=0) for each in sequences], budget, free)
    assert planned.preempted == plain.preempted
    known = [evolve(c, count=c.count - c.drafted, drafted=0) for c in planned.chunks]
    assert known == [*plain.chunks]


@given(progresses(), st.integers(1, 400), frees)
def test_only_the_youngest_give_way_and_only_where_there_is_no_room(
    sequences: list[Progress], budget: int, free: int
) -> None:
    gave_way = plan(sequences, budget, free).preempted
    running = [s.uid for s in sequences if s.has_begun]
    assert set(gave_way) == set(running[len(running) - len(gave_way) :])
    needed = sum(max(0, rounded(s.known) - s.capacity) for s in sequences if s.decodes)
    if gave_way:
        assert needed > free


@given(progresses(), st.integers(1, 6), frees, st.integers(1, 400))
def test_nobody_is_passed_over(
    sequences: list[Progress], width: int, free: int, budget: int
) -> None:
    found = beginner(sequences, width, free, budget)
    waiting = [s for s in sequences[:width] if not s.has_begun]
    texts = [s for s in sequences[:width] if s.has_begun and not s.decodes]
    is_filled = sum(s.pending for s in texts) >= budget
    shortest = min((s.pending for s in waiting), default=0)
    if found is None:
        needs = shortest if is_filled else waiting[0].known if waiting else 0
        assert not waiting or rounded(needs) > free or (is_filled and len(texts) > 1)
    else:
        uid, capacity = found
        chosen = next(s for s in waiting if s.uid == uid)
        assert chosen.pending == shortest if is_filled else chosen is waiting[0]
        assert rounded(chosen.known) <= capacity <= free


# -- a whole life ----------------------------------------------------------------------------------


@define
class Pool:
    """Steps sequences as an engine does, but computes nothing."""

    total: int
    width: int
    budget: int
    live: list[Progress]
    preemptions: int = 0
    ended: list[int] = field(factory=list)

    @property
    def free(self) -> int:
        return self.total - sum(s.capacity for s in self.live)

    def step(self) -> None:
        while (found := beginner(self.live, self.width, self.free, self.budget)) is not None:
            uid, capacity = found
            self.live = [evolve(s, capacity=capacity) if s.uid == uid else s for s in self.live]
        planned = plan(self.live, self.budget, self.free)
        self.preemptions += len(planned.preempted)
        chunks = {chunk.uid: chunk for chunk in planned.chunks}
        assert chunks, "no step without progress"
        self.live = [
            evolve(s, capacity=0, computed=0)
            if s.uid in planned.preempted
            else after(s, chunks[s.uid])
            if s.uid in chunks
            else s
            for s in self.live
        ]
        self.ended += [s.uid for s in self.live if not s.left]
        self.live = [s for s in self.live if s.left]
        assert self.free >= 0


def after(sequence: Progress, chunk: Chunk) -> Progress:
    return evolve(
        sequence,
        capacity=chunk.capacity,
        computed=sequence.computed + chunk.count,
        known=sequence.known + chunk.samples,
        left=sequence.left - chunk.samples,
    )


lives = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 200)), min_size=1, max_size=8)


@settings(max_examples=60)
@given(lives, st.integers(0, 4), st.integers(1, 8), st.integers(1, 300))
def test_every_sequence_ends_even_in_a_pool_that_just_holds_one(
    sizes: list[tuple[int, int]], more: int, width: int, budget: int
) -> None:
    total = max(rounded(known + left - 1) for known, left in sizes) + more * BLOCK
    live = [Progress(uid, known, left=left) for uid, (known, left) in enumerate(sizes)]
    blocks = sum(rounded(known + left) // BLOCK for known, left in sizes)
    pool = Pool(total, width, budget, live)
    # Who grows takes the room of the others at most, and a block more only once.
    most_preemptions = len(sizes) * blocks
    longest = max(known + left for known, left in sizes)
    for _ in range((most_preemptions + len(sizes)) * (longest + 1)):
        if not pool.live:
            break
        pool.step()
    assert sorted(pool.ended) == list(range(len(sizes)))
    assert pool.preemptions <= most_preemptions


@given(st.integers(2, 8), st.integers(20, 200))
def test_sequences_for_which_there_is_room_are_never_preempted(count: int, left: int) -> None:
    live = [Progress(uid, known=50, left=left) for uid in range(count)]
    pool = Pool(count * rounded(50 + left), count, 64, live)
    while pool.live:
        pool.step()
    assert not pool.preemptions


def test_orders_and_plans_need_no_torch() -> None:
    code = "import sys, helexa.engine.orders, helexa.engine.scheduler; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
