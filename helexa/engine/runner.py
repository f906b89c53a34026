"""Computing what a plan says, on one loaded model.  Owns the KV caches of its sequences.

In this form every sequence has a cache and a forward pass of its own.  The interface is a whole plan
and its logits, so that passes can be batched behind it.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import DynamicCache

from helexa.devices.faults import classify
from helexa.engine.loader import LoadedModel
from helexa.engine.sampler import scores
from helexa.engine.scheduler import Chunk, Plan
from helexa.engine.sequence import Sequence
from helexa.errors import HelexaError, InsufficientVram

Outcome = Tensor | HelexaError
SCORED_BYTES = 64 << 20  # of the float32 logits that are there at once where a prompt is scored


class Runner:
    def __init__(self, loaded: LoadedModel) -> None:
        self._model = loaded.model
        self._device = loaded.device
        self._vocab_size = loaded.vocab_size
        self._caches: dict[int, DynamicCache] = {}

    @torch.inference_mode()
    def run(self, plan: Plan, sequences: Mapping[int, Sequence]) -> dict[int, Outcome]:
        """Compute the chunks of `plan`.

        For each that samples: the logits [vocab] after its last token, in the model's dtype.  For each
        that failed alone, for want of memory say: the error; its cache is then gone.  Where a prompt is
        scored, its scores go into the sequence.
        """
        outcomes: dict[int, Outcome] = {}
        for chunk in plan:
            outcome = self._compute(chunk, sequences[chunk.uid])
            if outcome is not None:
                outcomes[chunk.uid] = outcome
        return outcomes

    def _compute(self, chunk: Chunk, sequence: Sequence) -> Outcome | None:
        is_scored = sequence.order.prompt_logprobs is not None and sequence.progress.in_prompt
        try:
            logits = (self._score if is_scored else self._forward)(chunk, sequence)
        except HelexaError as error:
            self.forget(chunk.uid)
            return error
        except Exception as error:
            if classify(error) != "out_of_memory":
                raise
            self.forget(chunk.uid)
            return out_of_memory(self._device)
        return logits[-1] if chunk.samples else None

    def _score(self, chunk: Chunk, sequence: Sequence) -> Tensor:
        """The same, and the scores of the tokens that come after those of the chunk."""
        end = chunk.start + chunk.count
        width = max(1, SCORED_BYTES // (4 * self._vocab_size))
        num_top = sequence.order.prompt_logprobs or 0
        if chunk.start == 0:
            sequence.scores.append((sequence.tokens[0], math.nan, ()))
        for start in range(chunk.start, end, width):
            part = Chunk(chunk.uid, start, min(width, end - start), chunk.samples)
            logits = self._forward(part, sequence, keep=part.count)
            known = sequence.tokens[start + 1 : start + part.count + 1]
            sequence.scores += scores(logits[: len(known)], known, num_top) if known else []
        return logits

    def _forward(self, chunk: Chunk, sequence: Sequence, keep: int = 1) -> Tensor:
        """The logits [keep, vocab] of the chunk's last tokens."""
        cache = self._caches.get(chunk.uid)
        if cache is None:
            # From the config come the kinds of its layers: full, sliding window, recurrent.
            cache = self._caches[chunk.uid] = DynamicCache(config=self._model.config)
        tokens = sequence.tokens[chunk.start : chunk.start + chunk.count]
        output = self._model(
            input_ids=torch.tensor([tokens], device=self._device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        logits: Tensor = output.logits[0]
        return logits

    def forget(self, uid: int) -> None:
        """Free the cache of a sequence, if it has one."""
        self._caches.pop(uid, None)


def out_of_memory(device: str) -> InsufficientVram:
    return InsufficientVram(
        f"the memory of device {device} is full: this request found no room in it", retry_after=5
    )
