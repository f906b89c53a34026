"""One loaded model and the sequences that run on it, from `add` to their last piece."""

from collections.abc import Iterator

from helexa.devices.faults import classify
from helexa.engine.form import Form
from helexa.engine.loader import LoadedModel
from helexa.engine.orders import Add, Failed, Load, Notice, PrefillProgress, PromptScores
from helexa.engine.runner import Outcome, Runner, out_of_memory
from helexa.engine.sampler import Sampler
from helexa.engine.scheduler import Chunk, plan
from helexa.engine.sequence import Sequence
from helexa.errors import ContextLengthExceeded, HelexaError, InvalidRequest


class Batch:
    """Lives on the device thread.  `model` is the name for people."""

    def __init__(self, order: Load, loaded: LoadedModel) -> None:
        self.model = order.model
        self._order = order
        self._loaded = loaded
        self._runner = Runner(loaded)
        self._sequences: dict[int, Sequence] = {}  # in the order they came

    @property
    def is_busy(self) -> bool:
        return bool(self._sequences)

    def add(self, order: Add) -> list[Notice]:
        """Take a sequence in, or refuse one that the model cannot run."""
        try:
            check(order, self._loaded)
            self._sequences[order.uid] = start(order, self._loaded)
        except Exception as error:
            return [Failed(order.uid, own_fault(error, self._order.device))]
        return []

    def abort(self, uid: int) -> None:
        self._sequences.pop(uid, None)
        self._runner.forget(uid)

    def fail_all(self, error: HelexaError) -> list[Notice]:
        uids = list(self._sequences)
        for uid in uids:
            self.abort(uid)
        return [Failed(uid, error) for uid in uids]

    def step(self) -> list[Notice]:
        """Compute one plan.  Errors that are no single sequence's come out of here."""
        chunks = plan(
            [sequence.progress for sequence in self._sequences.values()],
            self._order.prefill_chunk_tokens,
            self._order.batch_width,
        )
        outcomes = self._runner.run(chunks, self._sequences)
        return [n for chunk in chunks for n in self._settle(chunk, outcomes.get(chunk.uid))]

    def _settle(self, chunk: Chunk, outcome: Outcome | None) -> Iterator[Notice]:
        if isinstance(outcome, HelexaError):
            yield self._fail(chunk.uid, outcome)
            return
        sequence = self._sequences[chunk.uid]
        in_prompt = sequence.progress.in_prompt
        sequence.computed += chunk.count
        if sequence.scores:
            yield PromptScores(chunk.uid, tuple(sequence.scores))
            sequence.scores.clear()
        if in_prompt:
            yield PrefillProgress(chunk.uid, sequence.computed, len(sequence.order.prompt))
        if outcome is None:
            return
        try:
            piece = sequence.next(outcome)
        except Exception as error:
            yield self._fail(chunk.uid, own_fault(error, self._order.device))
            return
        yield piece
        if piece.finish:
            self.abort(chunk.uid)

    def _fail(self, uid: int, error: HelexaError) -> Failed:
        self.abort(uid)
        return Failed(uid, error)


def own_fault(error: Exception, device: str) -> HelexaError:
    """The error as one that ends a single sequence; raises it again if it is more than that."""
    if isinstance(error, HelexaError):
        return error
    if classify(error) == "out_of_memory":
        return out_of_memory(device)
    raise error


def check(order: Add, loaded: LoadedModel) -> None:
    """Refuse what would fail on the device; there a token id out of range poisons the context."""
    if not order.prompt:
        raise InvalidRequest("the prompt is empty")
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


def start(order: Add, loaded: LoadedModel) -> Sequence:
    """The sequence, bounded by the positions that the model knows."""
    max_tokens = order.max_tokens
    if loaded.max_positions:
        max_tokens = min(max_tokens, max(1, loaded.max_positions - len(order.prompt)))
    sampler = Sampler(order.sampling, order.prompt, loaded.vocab_size, loaded.device)
    form = None
    if order.constraint is not None:
        matcher = order.constraint.matcher()
        form = Form(matcher, order.stop_ids, max_tokens, loaded.vocab_size, loaded.device)
    return Sequence(order, max_tokens, sampler, list(order.prompt), form)
