"""What one step of a model computes: values in, a plan out, no torch.

Sequences are served in the order they came, with a lane for short ones.  All whose text is computed but
for the last token decode in every step; texts are computed in chunks beside them, so that a long prompt
delays the streams that run by one chunk at most.  Where the KV pool is full the youngest gives way and
begins again later.

A sequence that decodes may have drafted what comes after its next token: that is computed in the same
chunk, as far as there is room, and counts only where it turns out right.
"""

from collections.abc import Sequence

from attrs import define, field, frozen

from helexa.engine.kv.spans import rounded

AHEAD = 256  # positions that a sequence gets beyond what it needs now, if there is room
STALL = 3.0  # steps of those that decode: how long a chunk of text beside them may take
LEAST_CHUNK = 16  # tokens


@frozen
class Progress:
    """How far a sequence is, in tokens: `computed` of the `known` ones, with room for `capacity`.

    `left` may still be generated, `drafted` are guesses of what comes behind those known.  `until`, if set,
    is where a chunk must end.  `awaits`: an older text is being computed that it will go on from.
    """

    uid: int
    known: int
    computed: int = 0
    capacity: int = 0
    left: int = 1
    until: int | None = None
    awaits: bool = False
    drafted: int = 0

    @property
    def has_begun(self) -> bool:
        return self.capacity > 0

    @property
    def pending(self) -> int:
        return self.known - self.computed

    @property
    def decodes(self) -> bool:
        return self.computed > 0 and self.pending == 1


@frozen
class Chunk:
    """Compute `count` tokens of a sequence from position `start` on, with room for `capacity` in all.

    `samples`: all that is known is computed with it, so its logits give the next one.  The last `drafted`
    of the tokens are guesses behind what is known; each gives the one after it, if it is right itself.
    """

    uid: int
    start: int
    count: int
    samples: bool
    capacity: int = 0
    drafted: int = 0

    @property
    def is_text(self) -> bool:
        return self.count - self.drafted > 1


@frozen
class Plan:
    """One step: who gives its room back to begin again later, and what is computed."""

    preempted: tuple[int, ...] = ()
    chunks: tuple[Chunk, ...] = ()


def beginner(
    sequences: Sequence[Progress], batch_width: int, free: int, prompt_tokens: int
) -> tuple[int, int] | None:
    """Which sequence gets room next: (uid, positions).

    `sequences` in the order they came; the first `batch_width` of them run.  The next in line begins when
    the texts before it leave some of a step; beside one text that fills the steps the shortest begins,
    so that a short request need not wait for a long one.  Who awaits what another computes is passed
    over until it is there; nobody else is: where there is no room for the one whose turn it is, all wait.
    """
    window = sequences[:batch_width]
    texts = [sequence for sequence in window if sequence.has_begun and not sequence.decodes]
    waiting = [each for each in window if not each.has_begun and not each.awaits]
    if not waiting:
        return None
    if sum(text.pending for text in texts) < prompt_tokens:
        chosen = waiting[0]
    elif len(texts) == 1:
        chosen = min(waiting, key=lambda each: each.pending)
    else:
        return None
    capacity = wanted(chosen, free)
    return (chosen.uid, capacity) if capacity <= free else None


def plan(sequences: Sequence[Progress], prompt_tokens: int, free: int) -> Plan:
    """The chunks of one step, at most one for each sequence that has begun.

    `sequences` in the order they came.  Those that decode come first, then at most `prompt_tokens` of
    texts.  `free` positions of the pool are left; who needs more takes them from the youngest.
    """
    begun = [sequence for sequence in sequences if sequence.has_begun]
    room = Room(free, {sequence.uid: sequence.capacity for sequence in begun})
    for sequence in begun:
        if sequence.decodes:
            room.grow(sequence)
    begun = [sequence for sequence in begun if sequence.uid in room.capacity]
    decode = [next_chunk(sequence, room) for sequence in begun if sequence.decodes]
    texts = [sequence for sequence in begun if not sequence.decodes]
    return Plan(tuple(room.preempted), (*decode, *prefill(texts, prompt_tokens, room)))


@define
class Room:
    """Who has how much of the pool while a step is planned, in the order they came."""

    free: int
    capacity: dict[int, int]
    preempted: list[int] = field(factory=list)

    def grow(self, sequence: Progress) -> None:
        """Room for what the sequence knows; it gives way itself if it is the youngest."""
        while sequence.uid in self.capacity:
            capacity = self.capacity[sequence.uid]
            if rounded(sequence.known) <= capacity + self.free:
                if rounded(sequence.known) > capacity:
                    more = wanted(sequence, capacity + self.free)
                    self.capacity[sequence.uid] = more
                    self.free -= more - capacity
                return
            uid, given = self.capacity.popitem()
            self.free += given
            self.preempted.append(uid)


def wanted(sequence: Progress, free: int) -> int:
    """The positions to give it: some ahead, if there is room, so that it need not ask again soon."""
    ahead = rounded(sequence.known + min(sequence.left, AHEAD))
    return ahead if ahead <= free else rounded(sequence.known)


def prefill(texts: Sequence[Progress], budget: int, room: Room) -> list[Chunk]:
    """Half of the budget is the oldest's, or all that the others leave; of them the shortest is first."""
    others = sorted(texts[1:], key=lambda text: text.pending)
    rest = sum(text.pending for text in others)
    chunks: list[Chunk] = []
    for text in (*texts[:1], *others):
        share = budget if chunks else max(budget - budget // 2, budget - rest)
        if share <= 0:
            break
        end = text.known if text.until is None else min(text.until, text.known)
        chunks.append(chunk(text, min(end - text.computed, share), room))
        budget -= chunks[-1].count
    return chunks


def chunk(sequence: Progress, count: int, room: Room) -> Chunk:
    samples = count == sequence.pending
    return Chunk(sequence.uid, sequence.computed, count, samples, room.capacity[sequence.uid])


def next_chunk(sequence: Progress, room: Room) -> Chunk:
    """Of one that decodes.  Nobody gives way to drafts, they take what room it has."""
    capacity = room.capacity[sequence.uid]
    drafted = min(sequence.drafted, sequence.left - 1, capacity - sequence.known)
    return Chunk(sequence.uid, sequence.computed, 1 + drafted, True, capacity, drafted)


def prompt_budget(most: int, step_seconds: float | None, token_seconds: float | None) -> int:
    """How many tokens of texts to compute in a step, `most` at most.

    Beside sequences that decode in `step_seconds` (None if none does, or it is not known) a text, at
    `token_seconds` a token, may take STALL of their steps.
    """
    if not (step_seconds and token_seconds):
        return most
    return max(min(LEAST_CHUNK, most), min(most, int(STALL * step_seconds / token_seconds)))
