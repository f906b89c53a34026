"""The free spans of the KV pool: whatever is taken and given, nothing overlaps and nothing is lost."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from helexa.engine.kv.spans import BLOCK, Spans, packed, rounded

TOTAL = 16 * BLOCK
sizes = st.integers(1, 6).map(lambda blocks: blocks * BLOCK)


class SpansLife(RuleBasedStateMachine):
    """`taken` holds what was taken, by its start."""

    def __init__(self) -> None:
        super().__init__()
        self.spans = Spans(TOTAL)
        self.taken: dict[int, int] = {}

    def gaps(self) -> list[tuple[int, int]]:
        """The free spans, as those that were taken leave them."""
        found, end = [], 0
        for start, size in [*sorted(self.taken.items()), (TOTAL, 0)]:
            if start > end:
                found.append((end, start - end))
            end = start + size
        return found

    @rule(size=sizes)
    def take(self, size: int) -> None:
        rooms = [room for _, room in self.gaps() if room >= size]
        start = self.spans.take(size)
        if start is None:
            assert not rooms
            return
        (room,) = (room for gap, room in self.gaps() if gap == start)
        assert room == min(rooms)
        self.taken[start] = size

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), size=sizes)
    def extend(self, data: st.DataObject, size: int) -> None:
        start = data.draw(st.sampled_from(sorted(self.taken)))
        end = start + self.taken[start]
        fits = any(gap == end and room >= size for gap, room in self.gaps())
        assert self.spans.extend(end, size) == fits
        if fits:
            self.taken[start] += size

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), keep=st.integers(0, 5).map(lambda blocks: blocks * BLOCK))
    def give(self, data: st.DataObject, keep: int) -> None:
        """The whole of a span, or its end."""
        start = data.draw(st.sampled_from(sorted(self.taken)))
        size = self.taken.pop(start)
        keep = min(keep, size)
        self.spans.give(start + keep, size - keep)
        if keep:
            self.taken[start] = keep

    @invariant()
    def nothing_overlaps_and_nothing_is_lost(self) -> None:
        assert self.spans.free + sum(self.taken.values()) == TOTAL
        assert self.spans._free == self.gaps()


TestSpans = SpansLife.TestCase
TestSpans.settings = settings(max_examples=60, stateful_step_count=40)


def test_a_pool_of_nothing_gives_nothing() -> None:
    spans = Spans(0)
    assert spans.free == 0
    assert spans.take(BLOCK) is None


@given(st.integers(0, 10_000))
def test_whole_blocks_hold_all_tokens_and_no_block_is_empty(tokens: int) -> None:
    assert tokens <= rounded(tokens) < tokens + BLOCK
    assert rounded(tokens) % BLOCK == 0


@given(st.lists(sizes, min_size=1, max_size=6), st.data())
def test_packed_leaves_no_gap_and_puts_one_last(lengths: list[int], data: st.DataObject) -> None:
    before, end = [], 0
    for size in lengths:
        end += data.draw(st.integers(0, 3)) * BLOCK
        before.append((end, size))
        end += size
    spans = data.draw(st.permutations(before))
    last = data.draw(st.integers(-1, len(spans) - 1))
    starts = packed(spans, last)
    after = sorted((start, size) for start, (_, size) in zip(starts, spans, strict=True))
    assert [start for start, _ in after] == [
        sum(s for _, s in after[:i]) for i in range(len(after))
    ]
    others = [i for i in range(len(spans)) if i != last]
    assert sorted(others, key=lambda i: starts[i]) == sorted(others, key=lambda i: spans[i][0])
    if last >= 0:
        assert starts[last] == max(starts)
