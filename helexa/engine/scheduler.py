"""What one step of a model computes: values in, a plan out, no torch.

Every running sequence decodes in every step, and prompts are computed in chunks beside it, so that a
long prompt delays the streams that run by one chunk at most.
"""

from collections.abc import Iterable, Iterator, Sequence

from attrs import frozen


@frozen
class Progress:
    """How far a sequence is, in tokens: its KV cache holds `computed` of `prompt + generated`."""

    uid: int
    prompt: int
    computed: int = 0
    generated: int = 0

    @property
    def in_prompt(self) -> bool:
        return self.computed < self.prompt

    @property
    def pending(self) -> int:
        return self.prompt + self.generated - self.computed


@frozen
class Chunk:
    """Compute `count` tokens of a sequence from position `start` on.

    `samples`: the last of them is the last that is known, so its logits give the next one.
    """

    uid: int
    start: int
    count: int
    samples: bool


Plan = tuple[Chunk, ...]


def plan(sequences: Sequence[Progress], prompt_tokens: int, batch_width: int) -> Plan:
    """The chunks of one step, at most one for a sequence.

    `sequences` in the order they came; the first `batch_width` of them run, the others wait for one
    to end.  All that decode come first, then at most `prompt_tokens` of prompts, first come first
    served.
    """
    running = sequences[:batch_width]
    decode = (_chunk(s, s.pending) for s in running if not s.in_prompt)
    return (*decode, *_prefill((s for s in running if s.in_prompt), prompt_tokens))


def _prefill(sequences: Iterable[Progress], budget: int) -> Iterator[Chunk]:
    for sequence in sequences:
        if budget == 0:
            return
        chunk = _chunk(sequence, min(sequence.pending, budget))
        budget -= chunk.count
        yield chunk


def _chunk(sequence: Progress, count: int) -> Chunk:
    return Chunk(sequence.uid, sequence.computed, count, samples=count == sequence.pending)
