"""One loaded model and the sequences that run on it, from `add` to their last piece."""

import time
from collections.abc import Iterator
from collections.abc import Sequence as Some

from attrs import evolve

from helexa.devices.faults import classify
from helexa.engine.admit import check, start
from helexa.engine.drawing import draw
from helexa.engine.faults import out_of_memory, own_fault
from helexa.engine.kv.parked import Parked
from helexa.engine.lives import Lives
from helexa.engine.loader import LoadedModel
from helexa.engine.orders import (
    Add,
    Failed,
    KvUse,
    Load,
    Notice,
    Piece,
    PrefillProgress,
    PromptScores,
)
from helexa.engine.pace import Pace
from helexa.engine.planning import plan_step
from helexa.engine.room import make_room
from helexa.engine.runner import Outcomes
from helexa.engine.scheduler import Chunk
from helexa.errors import HelexaError


class Batch:
    """Lives on the device thread.  `model` is the name for people.

    `identity` is what the numbers in its KV pool depend on.  `alone` says why its sequences are computed
    one after the other, "" if they are batched.
    """

    def __init__(self, order: Load, loaded: LoadedModel, identity: object = None) -> None:
        self.model = order.model
        self.identity = identity
        self.order = order
        self._loaded = loaded
        self._memory, self._runner, self.alone = make_room(order, loaded)
        self._drafts = order.drafts and not self.alone and self._memory.layers.can_go_back
        self._lives = Lives(self._memory, self._runner)
        self._width = order.batch_width  # less after the device ran out of memory
        self._pace = Pace()
        self._told = self._use()

    @property
    def is_busy(self) -> bool:
        return bool(self._lives.sequences)

    @property
    def weights_bytes(self) -> int:
        return self._runner.weights_bytes

    @property
    def kv_tokens(self) -> int:
        return self._memory.total

    @property
    def kv_bytes_per_token(self) -> int:
        return self._memory.layers.bytes_per_token

    # -- what comes and goes -----------------------------------------------------------------------

    def add(self, order: Add) -> list[Notice]:
        """Take a sequence in, or refuse one that the model cannot run."""
        try:
            check(order, self._loaded, self._memory)
            sequence = start(order, self._loaded, self._memory, drafts=self._drafts)
        except Exception as error:
            return [Failed(order.uid, own_fault(error, self.order.device))]
        self._lives.sequences[order.uid] = sequence
        return []

    def abort(self, uid: int) -> list[Notice]:
        """Forget a sequence, if it is there."""
        if uid not in self._lives.sequences:
            return []
        self._lives.end(uid)
        return [*self._news()]

    def resize(self, kv_tokens: int) -> KvUse:
        """Sizes need room to be copied: where there is none, the pool is emptied and may stay as large."""
        try:
            self._memory.resize(kv_tokens)
        except Exception as error:
            if classify(error) != "out_of_memory":
                raise
            self._lives.start_over()
        self._told = self._use()
        return self._told

    def park(self) -> Iterator[Parked]:
        return self._memory.park()

    def unpark(self, some: Some[Parked]) -> None:
        self._memory.unpark(some)
        self._told = self._use()

    def fail_all(self, error: HelexaError) -> list[Notice]:
        return [self._lives.fail(uid, error) for uid in list(self._lives.sequences)]

    # -- one step ----------------------------------------------------------------------------------

    def step(self) -> list[Notice]:
        """Compute one plan.  Errors that are no single sequence's come out of here."""
        notices: list[Notice] = []
        began = time.monotonic()
        lives = self._lives
        try:
            chunks = plan_step(lives, self._pace, self._width, self.order.prefill_chunk_tokens)
            if not chunks:
                return [*lives.fail_outgrown(), *self._news()]
            outcomes = self._runner.run(chunks, lives.sequences)
            for chunk in chunks:
                notices += self._settle(chunk, outcomes)
            notices += draw(outcomes, lives)
        except Exception as error:
            if classify(error) != "out_of_memory":
                raise
            return [*notices, *self._relieve(), *self._news()]
        self._pace.measure(chunks, time.monotonic() - began)
        ended = sum(isinstance(notice, Piece) and bool(notice.finish) for notice in notices)
        self._width = min(self._width + ended, self.order.batch_width)
        return [*notices, *self._news()]

    def _settle(self, chunk: Chunk, outcomes: Outcomes) -> Iterator[Notice]:
        if chunk.uid in outcomes.errors:
            yield self._lives.fail(chunk.uid, outcomes.errors[chunk.uid])
            return
        self._lives.advance(chunk)
        sequence = self._lives.sequences[chunk.uid]
        if sequence.scores:
            yield PromptScores(chunk.uid, tuple(sequence.scores))
            sequence.scores.clear()
        if not sequence.num_generated:
            total = len(sequence.order.prompt)
            yield PrefillProgress(chunk.uid, sequence.computed, total, sequence.cached or 0)

    def _relieve(self) -> list[Notice]:
        """The device is out of memory in the middle of a step: half as many at once begin again.

        One that was alone fails.
        """
        sequences = self._lives.sequences
        was_alone = self._width == 1 or len(sequences) == 1
        self._width = max(1, self._lives.start_over() // 2)
        if not was_alone or not sequences:
            return []
        return [self._lives.fail(next(iter(sequences)), out_of_memory(self.order.device))]

    # -- what is told of the pool ------------------------------------------------------------------

    def _use(self) -> KvUse:
        memory, counts, lives = self._memory, self._memory.counts, self._lives
        return KvUse(
            self.order.uid,
            memory.running_tokens,
            memory.kept_tokens,
            memory.total,
            memory.num_kept,
            counts.hits,
            counts.saved_tokens,
            counts.evictions,
            lives.preemptions,
            state_bytes=memory.state_bytes,
            drafted=lives.drafted,
            accepted=lives.accepted,
        )

    def _news(self) -> Iterator[KvUse]:
        """Drafts change nothing that is held: they are told of with what does."""
        use, told = self._use(), self._told
        if evolve(use, drafted=told.drafted, accepted=told.accepted) != told:
            self._told = use
            yield use
