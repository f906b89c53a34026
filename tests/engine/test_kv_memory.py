"""The KV pool: whoever comes, grows and goes, what a sequence has computed is what it finds there."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from helexa.engine.kv import layers, memory
from helexa.engine.kv.layers import FullLayer, Kind, Layers
from helexa.engine.kv.memory import Memory
from helexa.engine.kv.spans import BLOCK, rounded
from helexa.engine.kv.states import Window
from helexa.engine.kv.storage import Storage

FULL = Kind(heads=1, key_dim=1, value_dim=1)
SLIDING = Kind(width=5, heads=1, key_dim=1, value_dim=1)
TOTAL = 7 * BLOCK


def memory_of(*kinds: Kind, total: int = TOTAL, keeps: bool = True) -> Memory:
    return Memory(Layers(kinds, total, torch.float64, "cpu"), total, keeps)


def prints(salt: str, tokens: Sequence[int], start: int = 0) -> list[float]:
    """A number for each token from `start` on that tells it and all before it, as keys and values do."""
    numbers, number = [], float(len(salt))
    for token in tokens:
        number = (number * 31 + token + 1) % 1_000_003
        numbers.append(number)
    return numbers[start:]


def compute(mine: Memory, uid: int, tokens: list[int], start: int, end: int, salt: str) -> None:
    """What a pass over the tokens [start, end) of a sequence writes."""
    new = torch.tensor(prints(salt, tokens[:end], start), dtype=torch.float64)[None, :, None]
    segment = mine.segment(uid, start, end - start)
    for layer in mine.layers.full:
        for pool in layer.pool:
            pool[:, segment.at + start : segment.at + end] = new
    for state in segment.states.values():
        assert isinstance(state, Window)
        state.append(new, new)
    mine.advance(uid, tokens, end)


def found(mine: Memory, uid: int, computed: int) -> list[list[float]]:
    """What a sequence finds of its first `computed` tokens, in each layer."""
    segment = mine.segment(uid, computed, 0)
    at = slice(segment.at, segment.at + computed)
    rows = [pool[0, at, 0].tolist() for layer in mine.layers.full for pool in layer.pool]
    for state in segment.states.values():
        assert isinstance(state, Window)
        if computed:
            assert state.keys is not None
            rows.append(state.keys[0, max(0, state.end - 4) : state.end, 0].tolist())
    return rows


def expected(mine: Memory, tokens: list[int], computed: int, salt: str) -> list[list[float]]:
    numbers = prints(salt, tokens[:computed])
    rows = [numbers] * (2 * len(list(mine.layers.full)))
    return rows + ([numbers[-4:]] if mine.layers.has_states and computed else [])


@st.composite
def text_of(draw: st.DrawFn) -> list[int]:
    """One of few beginnings and one of few ends, so that many share some."""
    shared = draw(st.sampled_from([1, 10, 63, 64, 65, 100, 190]))
    own = draw(st.sampled_from([0, 1, 7, 70]))
    return [draw(st.integers(0, 2))] * shared + [draw(st.integers(7, 9))] * own


texts = text_of()
salts = st.sampled_from(["a", "a", "bb"])


class Life(RuleBasedStateMachine):
    """All that may come, in any order."""

    kinds: tuple[Kind, ...] = (FULL,)
    keeps = True

    def __init__(self) -> None:
        super().__init__()
        self.memory = memory_of(*self.kinds, keeps=self.keeps)
        self.tokens: dict[int, list[int]] = {}  # of those that run
        self.computed: dict[int, int] = {}
        self.salts: dict[int, str] = {}
        self.ended: list[tuple[str, list[int]]] = []
        self.uid = 0

    @rule(tokens=texts, salt=salts, ahead=st.integers(0, 2), reuses=st.integers(0, 3).map(bool))
    def begin(self, tokens: list[int], salt: str, ahead: int, reuses: bool) -> None:
        size = rounded(len(tokens)) + ahead * BLOCK
        if size > self.memory.free:
            return
        self.uid += 1
        computed = self.memory.begin(self.uid, tokens, salt, size, reuses=reuses)
        self.tokens[self.uid], self.computed[self.uid] = tokens, computed
        self.salts[self.uid] = salt
        assert computed < len(tokens)
        assert self.memory.capacity(self.uid) == size
        if computed:
            assert self.keeps
            assert reuses
            known = [kept for kept_salt, kept in self.ended if kept_salt == salt]
            known += [self.tokens[u] for u, s in self.salts.items() if s == salt and u != self.uid]
            assert any(kept[:computed] == tokens[:computed] for kept in known)

    @rule(tokens=texts, salt=salts)
    def live(self, tokens: list[int], salt: str) -> None:
        """A whole life, so that much is kept."""
        before = self.uid
        self.begin(tokens, salt, 0, True)
        if self.uid > before:
            while self.computed[self.uid] < len(tokens):
                self.go_on(self.uid, 500)
            self.leave(self.uid, True)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), most=st.sampled_from([1, 16, 500]))
    def advance(self, data: st.DataObject, most: int) -> None:
        self.go_on(data.draw(st.sampled_from(sorted(self.tokens))), most)

    def go_on(self, uid: int, most: int) -> None:
        tokens, start = self.tokens[uid], self.computed[uid]
        end = min(len(tokens), start + most, self.memory.capacity(uid))
        end = min(end, self.memory.next_mark(uid) or end)
        if end > start:
            compute(self.memory, uid, tokens, start, end, self.salts[uid])
            self.computed[uid] = end

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), blocks=st.integers(0, 3))
    def grow(self, data: st.DataObject, blocks: int) -> None:
        uid = data.draw(st.sampled_from(sorted(self.tokens)))
        size = self.memory.capacity(uid) + blocks * BLOCK
        if size - self.memory.capacity(uid) > self.memory.free:
            return
        self.tokens[uid] = self.tokens[uid] + [50 + uid % 5] * (size - len(self.tokens[uid]))
        self.memory.grow(uid, size)
        assert self.memory.capacity(uid) == size

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), keep=st.sampled_from([True, True, False]))
    def end(self, data: st.DataObject, keep: bool) -> None:
        self.leave(data.draw(st.sampled_from(sorted(self.tokens))), keep)

    def leave(self, uid: int, keep: bool) -> None:
        tokens, computed = self.tokens.pop(uid), self.computed.pop(uid)
        salt = self.salts.pop(uid)
        self.memory.end(uid, tokens[:computed] if keep else None)
        if keep and computed:
            self.ended.append((salt, tokens[:computed]))
        assert self.memory.capacity(uid) == 0

    @rule()
    def park_and_come_back(self) -> None:
        if not self.tokens:
            parked = list(self.memory.park())
            before = self.memory.kept_tokens
            self.memory = memory_of(*self.kinds, keeps=self.keeps)
            self.memory.unpark(parked)
            assert self.memory.kept_tokens == before

    @invariant()
    def nothing_overlaps_and_nothing_is_lost(self) -> None:
        mine = self.memory
        holders = [running.held for running in mine._running.values()] + mine._kept
        taken = sorted((held.start, held.size) for held in holders)
        ends = [0, *(start + size for start, size in taken)]
        assert all(end <= start for end, (start, _) in zip(ends, taken, strict=False))
        assert ends[-1] <= TOTAL
        assert sum(size for _, size in taken) + mine._spans.free == TOTAL
        assert mine.running_tokens + mine.free == TOTAL
        assert mine._running.keys() == self.tokens.keys()
        assert mine.num_kept == len(mine._kept) == len({id(held) for held in mine._kept})
        if not self.keeps:
            assert not mine._kept
        assert sum(len(held.marks) for held in holders) <= mine.max_marks

    @invariant()
    def what_was_computed_is_there(self) -> None:
        for uid, tokens in self.tokens.items():
            computed, salt = self.computed[uid], self.salts[uid]
            there = found(self.memory, uid, computed)
            assert there == expected(self.memory, tokens, computed, salt)

    @invariant()
    def what_is_kept_is_whole_and_nothing_is_kept_twice(self) -> None:
        kept = [(held.salt, held.tokens.tolist()) for held in self.memory._kept]
        for salt, tokens in kept:
            longer = [other for other_salt, other in kept if other_salt == salt]
            assert [other[: len(tokens)] for other in longer].count(tokens) == 1
        for held, (salt, tokens) in zip(self.memory._kept, kept, strict=True):
            assert rounded(len(tokens)) <= held.size
            for layer in self.memory.layers.full:
                for pool in layer.pool:
                    values = pool[0, held.start : held.start + len(tokens), 0].tolist()
                    assert values == prints(salt, tokens)
            for mark, states in held.marks.items():
                for state in states.values():
                    kept_window = state.keys[0, max(0, state.end - 4) : state.end, 0].tolist()
                    assert kept_window == prints(salt, tokens[:mark])[-4:]


class SlidingLife(Life):
    kinds = (FULL, SLIDING)


class KeptNothing(Life):
    kinds = (FULL, SLIDING)
    keeps = False


TestLife = Life.TestCase
TestSlidingLife = SlidingLife.TestCase
TestKeptNothing = KeptNothing.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40)
TestSlidingLife.settings = settings(max_examples=40, stateful_step_count=40)
TestKeptNothing.settings = settings(max_examples=10, stateful_step_count=30)


# -- one by one ------------------------------------------------------------------------------------


def ran(mine: Memory, uid: int, tokens: list[int], salt: str = "a", size: int = 0) -> int:
    """Begin a sequence, compute all of it and end it; what it found computed."""
    computed = mine.begin(uid, tokens, salt, size or rounded(len(tokens)), reuses=True)
    found_at_first = computed
    while computed < len(tokens):
        end = min(len(tokens), mine.next_mark(uid) or len(tokens))
        compute(mine, uid, tokens, computed, end, salt)
        computed = end
    mine.end(uid, tokens)
    return found_at_first


def text(first: int, count: int) -> list[int]:
    return [first + i % 90 for i in range(count)]


def starts(mine: Memory) -> list[int]:
    return [running.held.start for running in mine._running.values()]


def test_the_least_recently_used_goes_first() -> None:
    mine = memory_of(FULL, total=4 * BLOCK)
    for uid, first in enumerate([0, 100, 200, 300]):
        ran(mine, uid, text(first, 60))
    ran(mine, 9, text(0, 60))  # used again
    mine.begin(10, text(400, 60), "a", BLOCK, reuses=True)
    assert mine.counts.evictions == 1
    assert {held.tokens[0] for held in mine._kept} == {0, 200, 300}


def test_the_next_turn_of_a_conversation_takes_over_what_the_last_one_left() -> None:
    mine = memory_of(FULL)
    ran(mine, 1, text(0, 100))
    computed = mine.begin(2, text(0, 150), "a", rounded(150), reuses=True)
    assert computed == 100
    assert mine.num_kept == 0
    assert mine.free == TOTAL - rounded(150)
    assert (mine.counts.hits, mine.counts.saved_tokens, mine.counts.evictions) == (1, 100, 0)


def test_a_beginning_of_something_longer_is_copied_and_the_longer_stays() -> None:
    mine = memory_of(FULL)
    ran(mine, 1, text(0, 200))
    assert mine.begin(2, [*text(0, 80), 999, 999], "a", 2 * BLOCK, reuses=True) == 80
    assert [len(held.tokens) for held in mine._kept] == [200]


def test_where_there_is_no_room_for_a_copy_it_is_taken_over() -> None:
    mine = memory_of(FULL, total=4 * BLOCK)
    ran(mine, 1, text(0, 200))
    assert mine.begin(2, [*text(0, 80), 999, 999], "a", 2 * BLOCK, reuses=True) == 80
    assert mine.num_kept == 0
    assert mine.free == 2 * BLOCK


def test_a_sequence_begins_with_what_one_that_still_runs_has_computed() -> None:
    mine = memory_of(FULL)
    mine.begin(1, text(0, 100), "a", 2 * BLOCK, reuses=True)
    compute(mine, 1, text(0, 100), 0, 90, "a")
    assert mine.begin(2, text(0, 100), "a", 2 * BLOCK, reuses=True) == 90
    assert found(mine, 2, 90) == expected(mine, text(0, 100), 90, "a")


def test_the_same_twice_is_kept_once() -> None:
    mine = memory_of(FULL)
    for uid in (1, 2):
        mine.begin(uid, text(0, 100), "a", 2 * BLOCK, reuses=False)
        compute(mine, uid, text(0, 100), 0, 100, "a")
    for uid in (1, 2):
        mine.end(uid, text(0, 100))
    assert (mine.num_kept, mine.kept_tokens) == (1, 100)
    assert mine.free == TOTAL


def test_a_full_pool_without_a_gap_that_is_large_enough_is_moved_together() -> None:
    mine = memory_of(FULL, total=6 * BLOCK)
    for uid in range(6):
        mine.begin(uid, text(100 * uid, 60), "a", BLOCK, reuses=True)
        compute(mine, uid, text(100 * uid, 60), 0, 60, "a")
    for uid in (1, 3):
        mine.end(uid, None)
    mine.begin(9, text(900, 100), "a", 2 * BLOCK, reuses=True)
    assert mine.free == 0
    assert sorted(starts(mine)) == [place * BLOCK for place in range(5)]
    for uid in (0, 2, 4, 5):
        assert found(mine, uid, 60) == expected(mine, text(100 * uid, 60), 60, "a")


def test_one_that_grows_in_a_full_pool_is_moved_behind_the_others() -> None:
    mine = memory_of(FULL, total=4 * BLOCK)
    for uid in range(4):
        mine.begin(uid, text(100 * uid, 60), "a", BLOCK, reuses=True)
        compute(mine, uid, text(100 * uid, 60), 0, 60, "a")
    mine.end(2, None)
    mine.grow(0, 2 * BLOCK)
    assert mine.free == 0
    for uid in (0, 1, 3):
        assert found(mine, uid, 60) == expected(mine, text(100 * uid, 60), 60, "a")


def test_nothing_is_let_go_where_moving_makes_a_span() -> None:
    mine = memory_of(FULL, total=6 * BLOCK)
    for uid in range(3):  # what is kept, then a gap, three times
        ran(mine, 10 + uid, text(100 * uid, 60))
        mine.begin(uid, text(500 + uid, 60), "b", BLOCK, reuses=False)
    for uid in range(3):
        mine.end(uid, None)
    mine.begin(9, text(900, 100), "a", 3 * BLOCK, reuses=False)
    assert (mine.num_kept, mine.counts.evictions) == (3, 0)
    for uid in range(3):
        assert mine.begin(20 + uid, text(100 * uid, 60), "a", BLOCK, reuses=True) == 59


def test_one_that_grows_past_others_lets_go_of_no_more_than_it_lacks() -> None:
    mine = memory_of(FULL, total=5 * BLOCK)
    mine.begin(0, text(0, 100), "a", 2 * BLOCK, reuses=True)
    compute(mine, 0, text(0, 100), 0, 100, "a")
    for uid in range(1, 4):
        ran(mine, uid, text(200 * uid, 60))
    mine.grow(0, 3 * BLOCK)
    assert (mine.num_kept, mine.counts.evictions) == (2, 1)
    assert found(mine, 0, 100) == expected(mine, text(0, 100), 100, "a")


def test_what_is_taken_over_grows_where_it_lies_or_elsewhere() -> None:
    mine = memory_of(FULL, total=4 * BLOCK)
    ran(mine, 1, text(0, 100))
    mine.begin(2, text(500, 60), "b", BLOCK, reuses=False)
    compute(mine, 2, text(500, 60), 0, 60, "b")
    assert mine.begin(3, text(0, 150), "a", 3 * BLOCK, reuses=True) == 100
    assert mine.free == 0
    assert found(mine, 3, 100) == expected(mine, text(0, 100), 100, "a")
    assert found(mine, 2, 60) == expected(mine, text(500, 60), 60, "b")


def test_no_more_sequences_are_kept_than_can_be_looked_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "MAX_ENTRIES", 3)
    mine = memory_of(FULL)
    for uid in range(5):
        ran(mine, uid, text(100 * uid, 10))
    assert [held.tokens[0] for held in mine._kept] == [200, 300, 400]


def test_clear_forgets_all() -> None:
    mine = memory_of(FULL, SLIDING)
    ran(mine, 1, text(0, 100))
    mine.begin(2, text(500, 100), "a", 2 * BLOCK, reuses=True)
    mine.clear()
    assert (mine.free, mine.running_tokens, mine.num_kept) == (TOTAL, 0, 0)
    assert mine.begin(3, text(0, 100), "a", TOTAL, reuses=True) == 0


# -- states ----------------------------------------------------------------------------------------


def test_a_window_goes_on_from_where_a_prompt_ended() -> None:
    mine = memory_of(FULL, SLIDING)
    ran(mine, 1, text(0, 100))
    assert ran(mine, 2, text(0, 150)) == 100
    assert ran(mine, 3, text(0, 150)) == 149


def test_where_two_prompts_part_a_third_goes_on() -> None:
    mine = memory_of(FULL, SLIDING)
    assert ran(mine, 1, [*text(0, 80), 901, 902]) == 0
    assert ran(mine, 2, [*text(0, 80), 903, 904]) == 0  # nothing was kept there, but now it is
    assert ran(mine, 3, [*text(0, 80), 905, 906]) == 80


def test_few_states_are_kept_and_those_longest_unused_go() -> None:
    mine = memory_of(FULL, SLIDING, total=64 * BLOCK)
    for uid in range(20):
        ran(mine, uid, text(100 * uid, 30))
    marked = [held for held in mine._kept if held.marks]
    assert marked == mine._kept[-len(marked) :]
    assert sum(len(held.marks) for held in marked) == mine.max_marks


def test_snapshots_take_no_more_bytes_than_they_may() -> None:
    one = 2 * 4 * 8  # four tokens of a window, keys and values in float64
    mine = memory_of(FULL, SLIDING, total=64 * BLOCK)
    mine.mark_bytes = 3 * one + 1
    for uid in range(6):
        ran(mine, uid, text(100 * uid, 30))
        assert mine.state_bytes <= mine.mark_bytes
    assert mine.state_bytes == 3 * one
    mine.mark_bytes = 0
    ran(mine, 9, text(900, 30))
    assert mine.state_bytes == 0


def test_a_sequence_that_goes_on_from_a_snapshot_has_room_for_its_window() -> None:
    window, all_ = Window(5), torch.arange(200.0).reshape(1, 200, 1)
    window.append(all_[:, :3], all_[:, :3])
    again = window.snapshot().copy()
    for start in range(3, 150):
        new = all_[:, start : start + 1]
        seen, _ = again.append(new, new)
        assert seen[0, :, 0].tolist() == list(map(float, range(max(0, start - 4), start + 1)))


# -- the pool of one layer -------------------------------------------------------------------------


def test_moves_that_overlap_lose_nothing() -> None:
    layer = FullLayer(FULL, 10, Storage(torch.float32), "cpu")
    for pool in layer.pool:
        pool[0, :, 0] = torch.arange(10)
    layer.move([(2, 0, 4), (6, 4, 3), (0, 7, 2)])
    for pool in layer.pool:
        assert pool[0, :9, 0].tolist() == [2, 3, 4, 5, 6, 7, 8, 0, 1]


def test_a_long_move_is_made_in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "MOVED_AT_ONCE", 3)
    layer = FullLayer(FULL, 40, Storage(torch.float32), "cpu")
    for pool in layer.pool:
        pool[0, :, 0] = torch.arange(40)
    layer.move([(5, 0, 20), (30, 20, 8), (0, 28, 5)])
    for pool in layer.pool:
        assert pool[0, :33, 0].tolist() == [*range(5, 25), *range(30, 38), *range(5)]


@pytest.mark.parametrize("count", [1, 4, 5, 30, 100])
def test_a_window_shows_what_its_width_says_however_it_is_filled(count: int) -> None:
    window, all_ = Window(5), torch.arange(200.0).reshape(1, 200, 1)
    for start in range(0, 200, count):
        new = all_[:, start : start + count]
        for seen in window.append(new, new):
            first = max(0, start - 4)
            assert seen[0, :, 0].tolist() == list(map(float, range(first, min(200, start + count))))
