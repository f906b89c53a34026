"""The lives of a model's sequences: what each holds of the KV pool, from its beginning to its end."""

from attrs import define, field

from helexa.engine.faults import full_pool
from helexa.engine.kv.memory import Memory
from helexa.engine.orders import Failed
from helexa.engine.runner import Runner
from helexa.engine.scheduler import Chunk, Progress
from helexa.engine.sequence import Sequence
from helexa.errors import HelexaError


@define(eq=False)
class Lives:
    """`sequences` in the order they came; those with room in `memory` have begun.

    So many drafted tokens were computed, and so many of them were right.
    """

    memory: Memory
    runner: Runner
    sequences: dict[int, Sequence] = field(factory=dict)
    preemptions: int = 0
    drafted: int = 0
    accepted: int = 0

    def progress(self) -> list[Progress]:
        return [
            Progress(
                uid,
                known=len(sequence.tokens),
                computed=sequence.computed,
                capacity=self.memory.capacity(uid),
                left=sequence.max_tokens - sequence.num_generated,
                until=self.memory.next_mark(uid),
                awaits=self.awaited(sequence) is not None,
                drafted=len(sequence.draft),
            )
            for uid, sequence in self.sequences.items()
        ]

    def awaited(self, sequence: Sequence) -> tuple[int, int] | None:
        """The older text that one which has not begun will go on from, and from which of its tokens on.

        None if there is none.
        """
        if not self.memory.keeps or self.memory.capacity(sequence.order.uid):
            return None
        for uid, older in self.sequences.items():
            if older is sequence:
                break
            if self.memory.capacity(uid) and (shared := sequence.gains_from(older)):
                return uid, shared
        return None

    def mark_awaited(self) -> None:
        """Let the states of texts be kept where others will go on from them."""
        for sequence in self.sequences.values():
            if found := self.awaited(sequence):
                self.memory.mark(*found)

    def begin(self, uid: int, capacity: int) -> None:
        sequence = self.sequences[uid]
        order = sequence.order
        sequence.computed = self.memory.begin(
            uid, sequence.tokens, order.salt, capacity, reuses=order.prompt_logprobs is None
        )
        if sequence.cached is None:
            sequence.cached = sequence.computed

    def advance(self, chunk: Chunk) -> None:
        """A chunk was computed; what of it was drafted counts when it turns out right."""
        sequence = self.sequences[chunk.uid]
        sequence.computed += chunk.count - chunk.drafted
        self.memory.advance(chunk.uid, sequence.tokens, sequence.computed)

    def settle_draft(self, uid: int, drafted: int, right: int) -> None:
        """Of the tokens that were drafted and computed so many are right; the cache forgets the others."""
        sequence = self.sequences[uid]
        for computed in range(sequence.computed - right, sequence.computed):
            self.memory.advance(uid, sequence.tokens, computed + 1)
        if drafted > right:
            self.memory.go_back(uid, drafted - right)
        self.drafted += drafted
        self.accepted += right

    def end(self, uid: int) -> None:
        """What is computed of the sequence is kept for others."""
        sequence = self.sequences.pop(uid)
        self.memory.end(uid, sequence.tokens[: sequence.computed])
        self.runner.forget(uid)

    def fail(self, uid: int, error: HelexaError) -> Failed:
        """What is computed of it may be what is wrong with it: nobody begins with that."""
        del self.sequences[uid]
        self.memory.end(uid, None)
        self.runner.forget(uid)
        return Failed(uid, error)

    def fail_outgrown(self) -> list[Failed]:
        """The first in line, if it never could run, as the pool was made smaller."""
        uid, sequence = next(iter(self.sequences.items()))
        tokens, total = len(sequence.tokens), self.memory.total
        return [self.fail(uid, full_pool(tokens, total))] if tokens > total else []

    def preempt(self, uid: int) -> None:
        """Take a sequence's room; it begins again when there is some, unseen by its client."""
        sequence = self.sequences[uid]
        self.memory.end(uid, sequence.tokens[: sequence.computed])
        self.runner.forget(uid)
        sequence.computed = 0
        self.preemptions += 1

    def start_over(self) -> int:
        """Empty the pool, which may be half written; how many sequences begin again."""
        begun = [uid for uid in self.sequences if self.memory.capacity(uid)]
        self.memory.clear()
        for uid in begun:
            self.preempt(uid)
        return len(begun)
