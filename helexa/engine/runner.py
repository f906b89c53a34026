"""Computing the chunks of a plan on one loaded model: the sequences of a step together where that can be."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import torch
from attrs import define, field
from torch import Tensor
from transformers import DynamicCache

from helexa.engine.kv.memory import Memory
from helexa.engine.lean.forward import Fused
from helexa.engine.loader import LoadedModel
from helexa.engine.sampler import scores
from helexa.engine.scheduler import Chunk
from helexa.engine.sequence import Sequence
from helexa.errors import HelexaError

SCORED_BYTES = 64 << 20  # of the float32 logits that are there at once where a prompt is scored


class Runner(Protocol):
    """Computes chunks; the scores of prompts that are asked for go into their sequences."""

    @property
    def weights_bytes(self) -> int:
        """That the model takes in the form it is computed in."""

    def run(self, chunks: Iterable[Chunk], sequences: Mapping[int, Sequence]) -> "Outcomes":
        """The logits of those that sample, and the errors of those that failed alone."""

    def whole(self, chunk: Chunk, sequence: Sequence) -> Tensor:
        """The logits of all tokens of a chunk [tokens, vocab]."""

    def forget(self, uid: int) -> None:
        """Free what is kept for a sequence."""


@define(eq=False)
class Outcomes:
    """`uids` name the rows of `logits` [rows, vocab], which are in the model's dtype.

    A sequence with a draft has a row for each token of it beside its first, one behind the other.
    """

    uids: list[int] = field(factory=list)
    logits: Tensor | None = None
    errors: dict[int, HelexaError] = field(factory=dict)

    def add(self, uids: list[int], logits: Tensor) -> None:
        self.uids += uids
        self.logits = logits if self.logits is None else torch.cat((self.logits, logits))


class Together:
    """All chunks in one pass.

    A model with recurrent states runs through the tokens of a row one after the other, so there every
    sequence has a row: the decoding ones together, each text in a pass of its own.
    """

    def __init__(self, loaded: LoadedModel, memory: Memory, fused: Fused | None = None) -> None:
        """`fused` is the model in fewer operations, where there is such a form of it."""
        self._loaded = loaded
        self._memory = memory
        self._fused = fused

    @property
    def weights_bytes(self) -> int:
        return self._fused.nbytes if self._fused else self._loaded.weights_bytes

    @torch.inference_mode()
    def run(self, chunks: Iterable[Chunk], sequences: Mapping[int, Sequence]) -> Outcomes:
        outcomes = Outcomes()
        scored = [c for c in chunks if sequences[c.uid].is_scored]
        others = [c for c in chunks if not sequences[c.uid].is_scored]
        for group in self._groups(others):
            uids = [c.uid for c in group if c.samples for _ in range(1 + c.drafted)]
            logits = self._forward(group, sequences)
            if uids:
                outcomes.add(uids, logits)
        for each in scored:
            score(self.whole, each, sequences[each.uid], width_of(self._loaded), outcomes)
        return outcomes

    def forget(self, uid: int) -> None:
        """All that there is is the memory's."""

    def _groups(self, chunks: list[Chunk]) -> list[list[Chunk]]:
        if not self._memory.layers.is_recurrent:
            return [chunks] if chunks else []
        decode = [c for c in chunks if c.count == 1 and c.start and c.samples]
        return [*([decode] if decode else []), *([c] for c in chunks if c not in decode)]

    def whole(self, chunk: Chunk, sequence: Sequence) -> Tensor:
        return self._forward([chunk], {chunk.uid: sequence}, keep=chunk.count)

    def _forward(
        self, group: list[Chunk], sequences: Mapping[int, Sequence], keep: int = 0
    ) -> Tensor:
        """The logits of the last `keep` tokens, or if 0 of what each that samples is drawn from."""
        memory = self._memory
        tokens = [token for c in group for token in sequences[c.uid].inputs(c)]
        positions = [place for c in group for place in range(c.start, c.start + c.count)]
        ids = torch.tensor([tokens, positions], device=self._loaded.device)
        segments = [memory.segment(c.uid, c.start, c.count) for c in group]
        if self._fused:
            kept = slice(-keep, None) if keep else self._kept(group)
            with memory.layers.passing(segments):
                return self._fused(ids[0], ids[1], memory.layers.layers, kept)
        has_rows = memory.layers.is_recurrent and len(group) > 1
        ids = ids.reshape(2, -1, 1) if has_rows else ids.reshape(2, 1, -1)
        with memory.layers.passing(segments):
            output = self._loaded.model(
                input_ids=ids[0],
                position_ids=ids[1],
                past_key_values=memory.layers,
                use_cache=True,
                logits_to_keep=keep or (1 if has_rows else self._kept(group)),
            )
        logits: Tensor = output.logits
        return logits.reshape(-1, logits.shape[-1])

    def _kept(self, group: list[Chunk]) -> Tensor:
        """Which rows of a pass make logits; of one that samples nothing its last, as some must."""
        ends: list[int] = []
        end = 0
        for c in group:
            end += c.count
            if c.samples:
                ends += range(end - 1 - c.drafted, end)
        return torch.tensor(ends or [end - 1], device=self._loaded.device)


class Alone:
    """Each chunk in a pass of its own, with transformers' own cache: for what cannot be batched."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._caches: dict[int, DynamicCache] = {}

    @property
    def weights_bytes(self) -> int:
        return self._loaded.weights_bytes

    @torch.inference_mode()
    def run(self, chunks: Iterable[Chunk], sequences: Mapping[int, Sequence]) -> Outcomes:
        outcomes = Outcomes()
        for each in chunks:
            sequence = sequences[each.uid]
            if sequence.is_scored:
                score(self.whole, each, sequence, width_of(self._loaded), outcomes)
                continue
            logits = self._forward(each, sequence, keep=1)
            if each.samples:
                outcomes.add([each.uid], logits)
        return outcomes

    def forget(self, uid: int) -> None:
        self._caches.pop(uid, None)

    def whole(self, chunk: Chunk, sequence: Sequence) -> Tensor:
        return self._forward(chunk, sequence, keep=chunk.count)

    def _forward(self, chunk: Chunk, sequence: Sequence, keep: int) -> Tensor:
        if chunk.start == 0:
            # From the config come the kinds of its layers: full, sliding window, recurrent.
            self._caches[chunk.uid] = DynamicCache(config=self._loaded.model.config)
        tokens = sequence.tokens[chunk.start : chunk.start + chunk.count]
        output = self._loaded.model(
            input_ids=torch.tensor([tokens], device=self._loaded.device),
            past_key_values=self._caches[chunk.uid],
            use_cache=True,
            logits_to_keep=keep,
        )
        logits: Tensor = output.logits[0]
        return logits


Compute = Callable[[Chunk, Sequence], Tensor]  # the logits of all tokens of a chunk [tokens, vocab]


def score(
    compute: Compute, chunk: Chunk, sequence: Sequence, width: int, outcomes: Outcomes
) -> None:
    """Compute a chunk `width` tokens at a time, and score the tokens that come after its own."""
    prompt, num_top = sequence.order.prompt, sequence.order.prompt_logprobs or 0
    end = chunk.start + chunk.count
    try:
        if not sequence.scored:
            sequence.add_scores([(prompt[0], math.nan, ())])
        for start in range(chunk.start, end, width):
            part = Chunk(chunk.uid, start, min(width, end - start), chunk.samples)
            logits = compute(part, sequence)
            # What was scored before the sequence was preempted is known.
            first = max(start + 1, sequence.scored)
            known = prompt[first : start + part.count + 1]
            if known:
                rows = logits[first - start - 1 :][: len(known)]
                sequence.add_scores(scores(rows, known, num_top))
    except HelexaError as error:
        outcomes.errors[chunk.uid] = error
        return
    if chunk.samples:
        outcomes.add([chunk.uid], logits[-1:])


def width_of(loaded: LoadedModel) -> int:
    return max(1, SCORED_BYTES // (4 * loaded.vocab_size))
