"""One loaded model and the sequences that run on it, from `add` to their last piece."""

import time
from collections.abc import Iterator
from collections.abc import Sequence as Some

from attrs import define

from helexa.devices.faults import classify
from helexa.engine.form import Form, Masks
from helexa.engine.kv.memory import Memory
from helexa.engine.kv.parked import Parked
from helexa.engine.loader import LoadedModel
from helexa.engine.orders import (
    Add,
    Failed,
    KvUse,
    Load,
    Notice,
    PrefillProgress,
    PromptScores,
)
from helexa.engine.room import make_room
from helexa.engine.runner import Outcomes
from helexa.engine.sampler import Sampler, draw_all
from helexa.engine.scheduler import Chunk, Progress, beginner, plan, prompt_budget
from helexa.engine.sequence import Sequence
from helexa.errors import ContextLengthExceeded, HelexaError, InsufficientVram, InvalidRequest


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
        self._sequences: dict[int, Sequence] = {}  # in the order they came
        self._width = order.batch_width  # less after the device ran out of memory
        self._pace = Pace()
        self._preemptions = 0
        self._told = self._use()

    @property
    def is_busy(self) -> bool:
        return bool(self._sequences)

    @property
    def weights_bytes(self) -> int:
        return self._loaded.weights_bytes

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
            self._sequences[order.uid] = start(order, self._loaded, self._memory)
        except Exception as error:
            return [Failed(order.uid, own_fault(error, self.order.device))]
        return []

    def abort(self, uid: int) -> list[Notice]:
        """Forget a sequence, if it is there."""
        if uid not in self._sequences:
            return []
        self._end(uid)
        return [*self._news()]

    def resize(self, kv_tokens: int) -> KvUse:
        """Sizes need room to be copied: where there is none, the pool is emptied and may stay as large."""
        try:
            self._memory.resize(kv_tokens)
        except Exception as error:
            if classify(error) != "out_of_memory":
                raise
            self._start_over()
        self._told = self._use()
        return self._told

    def park(self) -> Iterator[Parked]:
        return self._memory.park()

    def unpark(self, some: Some[Parked]) -> None:
        self._memory.unpark(some)
        self._told = self._use()

    def fail_all(self, error: HelexaError) -> list[Notice]:
        return [self._fail(uid, error) for uid in list(self._sequences)]

    def _end(self, uid: int) -> None:
        """What is computed of the sequence is kept for others."""
        sequence = self._sequences.pop(uid)
        self._memory.end(uid, sequence.tokens[: sequence.computed])
        self._runner.forget(uid)

    def _fail(self, uid: int, error: HelexaError) -> Failed:
        """What is computed of it may be what is wrong with it: nobody begins with that."""
        del self._sequences[uid]
        self._memory.end(uid, None)
        self._runner.forget(uid)
        return Failed(uid, error)

    # -- one step ----------------------------------------------------------------------------------

    def step(self) -> list[Notice]:
        """Compute one plan.  Errors that are no single sequence's come out of here."""
        notices: list[Notice] = []
        began = time.monotonic()
        try:
            chunks = self._plan()
            if not chunks:
                return [*self._outgrown(), *self._news()]
            outcomes = self._runner.run(chunks, self._sequences)
            for chunk in chunks:
                notices += self._settle(chunk, outcomes)
            notices += self._draw(outcomes)
        except Exception as error:
            if classify(error) != "out_of_memory":
                raise
            return [*notices, *self._relieve(), *self._news()]
        self._pace.measure(chunks, time.monotonic() - began)
        return [*notices, *self._news()]

    def _progress(self) -> list[Progress]:
        return [
            Progress(
                uid,
                known=len(sequence.tokens),
                computed=sequence.computed,
                capacity=self._memory.capacity(uid),
                left=sequence.max_tokens - sequence.num_generated,
                until=self._memory.next_mark(uid),
                awaits=self._awaits(sequence),
            )
            for uid, sequence in self._sequences.items()
        ]

    def _awaits(self, sequence: Sequence) -> bool:
        """Whether an older text is being computed that a sequence which has not begun will go on from."""
        if not self._memory.keeps or self._memory.capacity(sequence.order.uid):
            return False
        for uid, older in self._sequences.items():
            if older is sequence:
                break
            if self._memory.capacity(uid) and (shared := sequence.gains_from(older)):
                self._memory.mark(uid, shared)
                return True
        return False

    def _plan(self) -> Some[Chunk]:
        progress = self._progress()
        step_seconds = self._pace.step if any(each.decodes for each in progress) else 0.0
        budget = prompt_budget(self.order.prefill_chunk_tokens, step_seconds, self._pace.token)
        while found := beginner(progress, self._width, self._memory.free, budget):
            self._begin(*found)
            progress = self._progress()
        planned = plan(progress, budget, self._memory.free)
        for uid in planned.preempted:
            self._preempt(uid)
        for chunk in planned.chunks:
            self._memory.grow(chunk.uid, chunk.capacity)
        return planned.chunks

    def _outgrown(self) -> Iterator[Notice]:
        """Nothing runs: fail the first in line if it never could, as the pool was made smaller."""
        uid, sequence = next(iter(self._sequences.items()))
        if len(sequence.tokens) > self._memory.total:
            yield self._fail(uid, full_pool(len(sequence.tokens), self._memory.total))

    def _begin(self, uid: int, capacity: int) -> None:
        sequence = self._sequences[uid]
        order = sequence.order
        sequence.computed = self._memory.begin(
            uid, sequence.tokens, order.salt, capacity, reuses=order.prompt_logprobs is None
        )
        if sequence.cached is None:
            sequence.cached = sequence.computed

    def _preempt(self, uid: int) -> None:
        """Take a sequence's room; it begins again when there is some, unseen by its client."""
        sequence = self._sequences[uid]
        self._memory.end(uid, sequence.tokens[: sequence.computed])
        self._runner.forget(uid)
        sequence.computed = 0
        self._preemptions += 1

    def _relieve(self) -> list[Notice]:
        """The device is out of memory in the middle of a step: half as many at once begin again.

        One that was alone fails.
        """
        was_alone = self._width == 1 or len(self._sequences) == 1
        self._width = max(1, self._start_over() // 2)
        if not was_alone:
            return []
        return [self._fail(next(iter(self._sequences)), out_of_memory(self.order.device))]

    def _start_over(self) -> int:
        """Empty the pool, which may be half written; how many sequences begin again."""
        begun = [uid for uid in self._sequences if self._memory.capacity(uid)]
        self._memory.clear()
        for uid in begun:
            self._preempt(uid)
        return len(begun)

    def _settle(self, chunk: Chunk, outcomes: Outcomes) -> Iterator[Notice]:
        if chunk.uid in outcomes.errors:
            yield self._fail(chunk.uid, outcomes.errors[chunk.uid])
            return
        sequence = self._sequences[chunk.uid]
        sequence.computed += chunk.count
        self._memory.advance(chunk.uid, sequence.tokens, sequence.computed)
        if sequence.scores:
            yield PromptScores(chunk.uid, tuple(sequence.scores))
            sequence.scores.clear()
        if not sequence.num_generated:
            total = len(sequence.order.prompt)
            yield PrefillProgress(chunk.uid, sequence.computed, total, sequence.cached or 0)

    def _draw(self, outcomes: Outcomes) -> Iterator[Notice]:
        """The next token of every sequence whose logits are there."""
        rows: list[int] = []
        masks: list[Masks | None] = []
        for row, uid in enumerate(outcomes.uids):
            form = self._sequences[uid].form
            try:
                masks.append(form.masks() if form else None)
                rows.append(row)
            except Exception as error:
                yield self._fail(uid, own_fault(error, self.order.device))
        if not rows or outcomes.logits is None:
            return
        uids = [outcomes.uids[row] for row in rows]
        logits = outcomes.logits if len(rows) == len(outcomes.uids) else outcomes.logits[rows]
        samplers = [self._sequences[uid].sampler for uid in uids]
        for uid, drawn in zip(uids, draw_all(logits, samplers, masks), strict=True):
            if isinstance(drawn, HelexaError):
                yield self._fail(uid, drawn)
                continue
            try:
                piece = self._sequences[uid].take(drawn)
            except Exception as error:
                yield self._fail(uid, own_fault(error, self.order.device))
                continue
            yield piece
            if piece.finish:
                self._end(uid)
                self._width = min(self._width + 1, self.order.batch_width)

    # -- what is told of the pool ------------------------------------------------------------------

    def _use(self) -> KvUse:
        memory, counts = self._memory, self._memory.counts
        return KvUse(
            self.order.uid,
            memory.running_tokens,
            memory.kept_tokens,
            memory.total,
            memory.num_kept,
            counts.hits,
            counts.saved_tokens,
            counts.evictions,
            self._preemptions,
        )

    def _news(self) -> Iterator[KvUse]:
        use = self._use()
        if use != self._told:
            self._told = use
            yield use


@define
class Pace:
    """Smoothed seconds of a step that only decodes, and of a token of text beyond such a step."""

    step: float = 0.0
    token: float = 0.0

    def measure(self, chunks: Some[Chunk], seconds: float) -> None:
        texts = sum(chunk.count for chunk in chunks if chunk.count > 1)
        if not texts:
            self.step = smoothed(self.step, seconds)
        elif texts > 8:
            decodes = any(chunk.count == 1 for chunk in chunks)
            self.token = smoothed(
                self.token, max(seconds - self.step * decodes, seconds / 4) / texts
            )


def smoothed(before: float, now: float) -> float:
    return 0.7 * before + 0.3 * now if before else now


def own_fault(error: Exception, device: str) -> HelexaError:
    """The error as one that ends a single sequence; raises it again if it is more than that."""
    if isinstance(error, HelexaError):
        return error
    if classify(error) == "out_of_memory":
        return out_of_memory(device)
    raise error


def out_of_memory(device: str) -> InsufficientVram:
    return InsufficientVram(
        f"the memory of device {device} is full: this request found no room in it", retry_after=5
    )


def full_pool(tokens: int, total: int) -> InsufficientVram:
    return InsufficientVram(
        f"the KV cache of this model holds {total} tokens; this request needs {tokens}",
        retry_after=30,
    )


def check(order: Add, loaded: LoadedModel, memory: Memory) -> None:
    """Refuse what would fail on the device; there a token id out of range poisons the context."""
    if not order.prompt:
        raise InvalidRequest("the prompt is empty", param="prompt")
    if order.max_tokens < 1:
        raise InvalidRequest("max_tokens must be at least 1", param="max_tokens")
    vocabulary = range(loaded.vocab_size)
    if min(order.prompt) not in vocabulary or max(order.prompt) not in vocabulary:
        raise InvalidRequest(f"the prompt holds a token id outside of 0..{loaded.vocab_size - 1}")
    for token, _ in order.sampling.logit_bias:
        if token not in vocabulary:
            raise InvalidRequest(
                f"logit_bias names token {token}, which the model has not", param="logit_bias"
            )
    if loaded.max_positions and len(order.prompt) > loaded.max_positions:
        raise ContextLengthExceeded(
            f"This model's maximum context length is {loaded.max_positions} tokens. The prompt has "
            f"{len(order.prompt)}.",
            prompt_len=len(order.prompt),
            max=loaded.max_positions,
        )
    if len(order.prompt) > memory.total:
        raise full_pool(len(order.prompt), memory.total)


def start(order: Add, loaded: LoadedModel, memory: Memory) -> Sequence:
    """The sequence, bounded by the positions that the model knows and by what the pool holds."""
    end = min(loaded.max_positions or memory.total, memory.total)
    max_tokens = min(order.max_tokens, max(1, end - len(order.prompt)))
    sampler = Sampler(order.sampling, order.prompt, loaded.vocab_size, loaded.device)
    form = None
    if order.constraint is not None:
        matcher = order.constraint.matcher()
        form = Form(matcher, order.stop_ids, max_tokens, loaded.vocab_size, loaded.device)
    return Sequence(order, max_tokens, sampler, list(order.prompt), form)
