"""Who has which part of the KV pool: the sequences that run, and what is kept of those that ended."""

from collections.abc import Iterator, Sequence

from attrs import define, evolve, field, frozen

from helexa.engine.kv.layers import Layers, Segment
from helexa.engine.kv.parked import Parked
from helexa.engine.kv.prefixes import Held, as_tokens, find, num_shared
from helexa.engine.kv.spans import BLOCK, Spans, packed, rounded
from helexa.engine.kv.states import States, copied, moved, num_bytes, snapshot

MAX_ENTRIES = 256  # sequences that are kept; looking through them takes a few microseconds each


@frozen
class Counts:
    """What the prefix cache did so far."""

    hits: int = 0
    saved_tokens: int = 0
    evictions: int = 0


@define(eq=False)
class Running:
    """What a sequence has: its span, how much of it is computed, its states."""

    held: Held
    states: States
    marks: frozenset[int]  # where its states are to be kept
    computed: int = 0


@define(eq=False)
class Memory:
    """The only one that takes and gives positions of the pool.

    Sequences are known by their uid.  What ended stays, the least recently used goes first when room is
    needed, and counts as free.  Of states there are `max_marks` snapshots at most, of `mark_bytes` in all
    (None: however large they are).
    """

    layers: Layers
    total: int  # tokens
    keeps: bool  # what ended, for those that begin alike
    max_marks: int = 8
    mark_bytes: int | None = None
    _spans: Spans = field(init=False)
    _running: dict[int, Running] = field(factory=dict)
    _kept: list[Held] = field(factory=list)  # the least recently used first
    counts: Counts = Counts()

    def __attrs_post_init__(self) -> None:
        self._spans = Spans(self.total)

    # -- what there is ---------------------------------------------------------------------------

    @property
    def free(self) -> int:
        return self._spans.free + sum(held.size for held in self._kept)

    @property
    def num_kept(self) -> int:
        return len(self._kept)

    @property
    def kept_tokens(self) -> int:
        return sum(len(held.tokens) for held in self._kept)

    @property
    def running_tokens(self) -> int:
        """Positions that running sequences have, computed or not."""
        return sum(running.held.size for running in self._running.values())

    @property
    def state_bytes(self) -> int:
        """Of windows and recurrent states, those of running sequences and snapshots."""
        running = sum(num_bytes(each.states) for each in self._running.values())
        return running + sum(map(marked_bytes, self._holders()))

    def capacity(self, uid: int) -> int:
        """The positions that a sequence has, 0 if it has not begun."""
        running = self._running.get(uid)
        return running.held.size if running else 0

    def next_mark(self, uid: int) -> int | None:
        """Up to where its tokens may be computed at once, so that its states can be kept there."""
        running = self._running.get(uid)
        marks = running.marks if running else ()
        return min((mark for mark in marks if running and mark > running.computed), default=None)

    def mark(self, uid: int, place: int) -> None:
        """Keep the states of a sequence at `place` tokens, from where another is to go on."""
        if self.layers.has_states:
            self._running[uid].marks |= {place}

    def segment(self, uid: int, before: int, count: int) -> Segment:
        running = self._running[uid]
        return Segment(running.held.start, before, count, running.states)

    # -- a sequence's life -----------------------------------------------------------------------

    def begin(self, uid: int, tokens: list[int], salt: str, size: int, *, reuses: bool) -> int:
        """Give a sequence `size` positions; how many of its first tokens are computed already.

        There must be so many free.
        """
        known = as_tokens(tokens)
        source, usable, shared = None, 0, 0
        if self.keeps and reuses:
            others = [running.held for running in self._running.values()]
            candidates = [*others, *self._kept]
            source, usable, shared = find(
                known, salt, candidates, needs_mark=self.layers.has_states
            )
        has_states = self.layers.has_states
        states = copied(source.marks[usable]) if source and has_states else self.layers.new_states()
        held = self._room_for(size, salt, source, usable)
        held.tokens = known[:usable]
        marks = frozenset({len(tokens) - 1, shared} if has_states else ())
        self._running[uid] = Running(held, states, marks, usable)
        if usable:
            saved = self.counts.saved_tokens + usable
            self.counts = evolve(self.counts, hits=self.counts.hits + 1, saved_tokens=saved)
        return usable

    def grow(self, uid: int, size: int) -> None:
        """Let a sequence have `size` positions; there must be so many more free."""
        running = self._running[uid]
        self._extend(running.held, running.computed, size)

    def advance(self, uid: int, tokens: list[int], computed: int) -> None:
        """The first `computed` of its `tokens` are now in the cache; others may begin with them."""
        running = self._running[uid]
        count, running.computed = computed - running.computed, computed
        if self.keeps and count > 1:
            running.held.tokens = as_tokens(tokens[:computed])
        if self.keeps and computed in running.marks:
            self._mark(running)

    def go_back(self, uid: int, count: int) -> None:
        """Forget the last `count` tokens that a pass computed: they were guesses, and wrong.

        They were never told of by `advance`, so the pool has nothing to forget.
        """
        for state in self._running[uid].states.values():
            state.go_back(count)

    def end(self, uid: int, tokens: list[int] | None) -> None:
        """Give back what a sequence has; `tokens`, what is computed of it, are kept for others."""
        running = self._running.pop(uid, None)
        if running is None:
            return
        held = running.held
        if not (self.keeps and tokens):
            self._spans.give(held.start, held.size)
            return
        held.tokens = as_tokens(tokens)
        if self.layers.has_states:
            self._mark(running)
        used = rounded(len(tokens))
        self._spans.give(held.start + used, held.size - used)
        held.size = used
        self._keep(held)
        while len(self._kept) > MAX_ENTRIES:
            self._evict()

    def _keep(self, held: Held) -> None:
        """Keep it unless all of it is the beginning of another; what is a beginning of it goes."""
        for other in [each for each in self._kept if each.salt == held.salt]:
            longer, shorter = (
                (held, other) if len(held.tokens) > len(other.tokens) else (other, held)
            )
            if num_shared(held.tokens, other.tokens) < len(shorter.tokens):
                continue
            longer.marks = {**shorter.marks, **longer.marks}
            self._spans.give(shorter.start, shorter.size)
            self._kept.remove(other)
            held = longer
        self._kept.append(held)

    def clear(self) -> None:
        """Forget all that runs and is kept; the layers may have been in the middle of a change of size."""
        while self._kept:
            self._evict()
        self._running.clear()
        self.total = min((layer.pool[0].shape[1] for layer in self.layers.full), default=self.total)
        self._spans = Spans(self.total)

    def resize(self, total: int) -> None:
        """Hold `total` positions, or as many as running sequences have; what is kept goes first."""
        self.total = max(rounded(total), self.running_tokens)
        while self._kept and self.running_tokens + sum(h.size for h in self._kept) > self.total:
            self._evict()
        self._compact()
        for layer in self.layers.full:
            layer.resize(self.total, self.total - self._spans.free)

    # -- a model's leave ---------------------------------------------------------------------------

    def park(self) -> Iterator[Parked]:
        """What is kept, on the host, the most recently used first; copied as it is asked for."""
        return (self._parked(held) for held in reversed(self._kept))

    def unpark(self, some: Sequence[Parked]) -> None:
        """Keep again what was parked, as far as there is room."""
        fitting: list[tuple[Parked, int]] = []
        for each in some:
            start = self._spans.take(rounded(len(each.tokens)))
            if start is None:
                break
            fitting.append((each, start))
        for each, start in reversed(fitting):
            end = start + len(each.tokens)
            for layer, parked in zip(self.layers.full, each.pools, strict=True):
                for part, tensor in zip(layer.pool, parked, strict=True):
                    part[:, start:end] = tensor
            marks = {mark: moved(states, self.layers.device) for mark, states in each.marks.items()}
            size = rounded(len(each.tokens))
            self._kept.append(Held(each.salt, start, size, each.tokens, marks))

    def _parked(self, held: Held) -> Parked:
        there = slice(held.start, held.start + len(held.tokens))
        pools = [
            tuple(part[:, there].to("cpu", copy=True) for part in layer.pool)
            for layer in self.layers.full
        ]
        marks = {mark: moved(states, "cpu") for mark, states in held.marks.items()}
        return Parked(held.salt, held.tokens, pools, marks)

    # -- room ------------------------------------------------------------------------------------

    def _room_for(self, size: int, salt: str, source: Held | None, usable: int) -> Held:
        """A span that holds the first `usable` tokens of `source`.

        What ended is taken over if little of it is lost by that, or if there is no room for a copy.
        """
        if source is None or source not in self._kept:
            held = self._fresh(size, salt)
            if source is not None:
                self._copy(source, held, usable)
            return held
        self._kept.remove(source)
        lost = len(source.tokens) - usable
        start = None if lost <= max(BLOCK, usable // 8) else self._take(size, beside=source)
        if start is None:
            return self._take_over(source, usable, size)
        held = Held(salt, start, size)
        self._copy(source, held, usable)
        self._kept.append(source)  # now the most recently used
        return held

    def _take_over(self, source: Held, usable: int, size: int) -> Held:
        source.tokens = source.tokens[:usable]
        source.marks = {mark: states for mark, states in source.marks.items() if mark <= usable}
        if source.size > size:
            self._spans.give(source.start + size, source.size - size)
            source.size = size
        self._extend(source, usable, size)
        return source

    def _extend(self, held: Held, computed: int, size: int) -> None:
        """Let a span, of which so much is computed, have `size` positions, wherever they are."""
        more = size - held.size
        if more <= 0:
            return
        self._make_free(more)
        if self._spans.extend(held.start + held.size, more):
            held.size = size
            return
        start = self._spans.take(size)
        if start is None:
            self._compact(last=(held, computed))
            self._spans.extend(held.start + held.size, more)
        else:
            for layer in self.layers.full:
                layer.copy(held.start, start, computed)
            self._spans.give(held.start, held.size)
            held.start = start
        held.size = size

    def _copy(self, source: Held, target: Held, count: int) -> None:
        for layer in self.layers.full:
            layer.copy(source.start, target.start, count)

    def _fresh(self, size: int, salt: str) -> Held:
        start = self._take(size)
        assert start is not None, "there is room, as the plan counted it"
        return Held(salt, start, size)

    def _take(self, size: int, beside: Held | None = None) -> int | None:
        """A span of `size`, for which what is kept may go and the rest be moved; None if there is no room.

        `beside` is moved as well, although it is neither kept nor running.
        """
        self._make_free(size)
        start = self._spans.take(size)
        if start is None and self._spans.free >= size:
            self._compact(last=(beside, len(beside.tokens)) if beside else None)
            start = self._spans.take(size)
        return start

    def _make_free(self, size: int) -> None:
        """Let go of what is kept until `size` positions are free, wherever they are.

        That is all: to move what is there costs a hundredth of computing again what was let go.
        """
        while self._kept and self._spans.free < size:
            self._evict()

    def _evict(self) -> None:
        held = self._kept.pop(0)
        self._spans.give(held.start, held.size)
        self.counts = evolve(self.counts, evictions=self.counts.evictions + 1)

    def _compact(self, last: tuple[Held, int] | None = None) -> None:
        """Move all that there is together, so that what is free is one span.

        `last`, of which so much is computed, lies before it.
        """
        used = [(running.held, running.computed) for running in self._running.values()]
        used += [(held, len(held.tokens)) for held in self._kept]
        if last:
            used = [*(each for each in used if each[0] is not last[0]), last]
        sizes = [(held.start, held.size) for held, _ in used]
        starts = packed(sizes, len(used) - 1 if last else -1)
        moves = [
            (held.start, start, count)
            for (held, count), start in zip(used, starts, strict=True)
            if start != held.start
        ]
        for layer in self.layers.full:
            layer.move(moves)
        self._spans = Spans(self.total)
        for (held, _), start in zip(used, starts, strict=True):
            held.start = start
        self._spans.take(sum(held.size for held, _ in used))

    # -- states ----------------------------------------------------------------------------------

    def _mark(self, running: Running) -> None:
        """Keep the states of a sequence as they are now; the oldest that are kept make room."""
        running.held.marks[running.computed] = snapshot(running.states)
        holders = self._holders(newest=running.held)
        while self._is_over(holders):
            oldest = next(each for each in holders if each.marks)
            del oldest.marks[min(oldest.marks)]

    def _is_over(self, holders: Sequence[Held]) -> bool:
        """Whether more states are kept than may be."""
        if sum(len(each.marks) for each in holders) > self.max_marks:
            return True
        return self.mark_bytes is not None and sum(map(marked_bytes, holders)) > self.mark_bytes

    def _holders(self, newest: Held | None = None) -> list[Held]:
        """All that may have snapshots, those longest unused first."""
        running = [each.held for each in self._running.values() if each.held is not newest]
        return [*self._kept, *running, *([newest] if newest else [])]


def marked_bytes(held: Held) -> int:
    """Of its snapshots."""
    return sum(map(num_bytes, held.marks.values()))
