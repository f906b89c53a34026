"""Computing what a plan says, on one loaded model.  Owns the KV caches of its sequences.

In this form every sequence has a cache and a forward pass of its own.  The interface is a whole plan
and its logits, so that passes can be batched behind it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import DynamicCache

from helexa.devices.faults import classify
from helexa.engine.loader import LoadedModel
from helexa.engine.scheduler import Chunk, Plan
from helexa.engine.sequence import Sequence
from helexa.errors import InsufficientVram

Outcome = Tensor | InsufficientVram


class Runner:
    def __init__(self, loaded: LoadedModel) -> None:
        self._model = loaded.model
        self._device = loaded.device
        self._caches: dict[int, DynamicCache] = {}

    @torch.inference_mode()
    def run(self, plan: Plan, sequences: Mapping[int, Sequence]) -> dict[int, Outcome]:
        """Compute the chunks of `plan`.

        For each that samples: the logits [vocab] after its last token, in the model's dtype.  For each
        that found no memory: the error; its cache is then gone.
        """
        outcomes: dict[int, Outcome] = {}
        for chunk in plan:
            outcome = self._compute(chunk, sequences[chunk.uid])
            if outcome is not None:
                outcomes[chunk.uid] = outcome
        return outcomes

    def _compute(self, chunk: Chunk, sequence: Sequence) -> Outcome | None:
        try:
            logits = self._forward(chunk, sequence)
        except Exception as error:
            if classify(error) != "out_of_memory":
                raise
            self.forget(chunk.uid)
            return out_of_memory(self._device)
        return logits if chunk.samples else None

    def _forward(self, chunk: Chunk, sequence: Sequence) -> Tensor:
        """The logits [vocab] of the chunk's last token."""
        cache = self._caches.get(chunk.uid)
        if cache is None:
            # From the config come the kinds of its layers: full, sliding window, recurrent.
            cache = self._caches[chunk.uid] = DynamicCache(config=self._model.config)
        tokens = sequence.tokens[chunk.start : chunk.start + chunk.count]
        output = self._model(
            input_ids=torch.tensor([tokens], device=self._device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[0, -1]
        return logits

    def forget(self, uid: int) -> None:
        """Free the cache of a sequence, if it has one."""
        self._caches.pop(uid, None)


def out_of_memory(device: str) -> InsufficientVram:
    return InsufficientVram(
        f"the memory of device {device} is full: this request found no room in it", retry_after=5
    )
