"""How long steps take, as measured: what bounds texts beside streams, and what drafts cost."""

from collections.abc import Sequence

from attrs import define, field

from helexa.average import smoothed
from helexa.engine.scheduler import Chunk

LEAST_TEXT = 8  # tokens of texts in a step that say something about their speed
LEAST_COST = 0.01  # of a step, for a drafted position: less cannot be told from noise
# Of a cost, in every step without drafts: one that was measured badly is tried again.
FORGOTTEN = 0.005


@define
class Pace:
    """Smoothed seconds: of a step that only decodes, and of a token of text beyond such a step.

    `plain` are those of a step that only decodes and drafts nothing, by how many sequences decode;
    `extra` what a drafted position adds to it.
    """

    step: float | None = None
    token: float | None = None
    plain: dict[int, float] = field(factory=dict)
    extra: dict[int, float] = field(factory=dict)

    def cost(self, decoding: int) -> float | None:
        """Of a drafted position, as a part of a step; None until such a step was seen without drafts.

        What was never tried, or long ago, is taken to cost next to nothing: then it is tried.
        """
        if decoding not in self.plain:
            return None
        return max(LEAST_COST, self.extra.get(decoding, 0.0) / self.plain[decoding])

    def measure(self, chunks: Sequence[Chunk], seconds: float) -> None:
        """A step that computed `chunks` took so many `seconds`."""
        texts = sum(chunk.count for chunk in chunks if chunk.is_text)
        decoding = sum(not chunk.is_text for chunk in chunks)
        if not texts:
            self._decoded(decoding, sum(chunk.drafted for chunk in chunks), seconds)
        elif texts > LEAST_TEXT:
            beside = (self.step or 0.0) if decoding else 0.0
            self.token = smoothed(self.token, max(seconds - beside, seconds / 4) / texts)

    def _decoded(self, decoding: int, drafted: int, seconds: float) -> None:
        self.step = smoothed(self.step, seconds)
        if not drafted:
            self.plain[decoding] = smoothed(self.plain.get(decoding), seconds)
            if decoding in self.extra:
                self.extra[decoding] *= 1 - FORGOTTEN
        elif decoding in self.plain:
            plain = self.plain[decoding]
            more = min(max(0.0, seconds - plain) / drafted, plain)
            self.extra[decoding] = smoothed(self.extra.get(decoding), more)
