"""Drawing the next token of one sequence from the model's logits.

The order is the field's: logit bias, penalties, temperature, top-k, top-p, min-p (transformers'
order; each filter sees the distribution that the one before left, renormalised).
"""

from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor

from helexa.engine.form import Masks
from helexa.engine.orders import SamplingParams, Top
from helexa.errors import HelexaError

GREEDY_BELOW = 1e-5  # a temperature under which dividing by it gains nothing but overflows
NUCLEUS_WIDTH = 256  # tokens looked at first for top-p, instead of sorting the whole vocabulary


@frozen
class Drawn:
    """A token; `logprob` and `top` as in `orders.Piece`.

    `redrawn`: another one had been drawn, but the answer was to be closed.
    """

    token: int
    logprob: float | None = None
    top: Top = ()
    redrawn: bool = False


class Sampler:
    """Draws the tokens of one sequence.  Owns its random numbers, so a seed repeats a text.

    Without a seed it takes one from the operating system.
    """

    def __init__(
        self, params: SamplingParams, prompt: Sequence[int], vocab_size: int, device: str
    ) -> None:
        self._params = params
        self._penalties = Penalties(params, prompt, vocab_size, device)
        self._random = torch.Generator(device)
        if params.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(params.seed % 2**64)

    def draw(self, logits: Tensor, masks: Masks | None = None) -> Drawn:
        """From `logits` [vocab] in any float dtype; `masks` tell what may be drawn.

        HelexaError if the logits are not all finite.
        """
        logits = finite(logits.float())
        token, redrawn = self._draw(self._penalties.apply(logits), masks)
        self._penalties.count(token)
        if self._params.top_logprobs is None:
            return Drawn(token, redrawn=redrawn)
        logprob, top = log_probabilities(logits, token, self._params.top_logprobs)
        return Drawn(token, logprob, top, redrawn)

    def _draw(self, logits: Tensor, masks: Masks | None) -> tuple[int, bool]:
        if masks is None:
            return self._choose(logits), False
        token = self._choose(logits.where(masks.allowed, -torch.inf))
        if masks.closing is None or masks.closing[token]:
            return token, False
        return self._choose(logits.where(masks.closing, -torch.inf)), True

    def _choose(self, logits: Tensor) -> int:
        params = self._params
        if params.temperature < GREEDY_BELOW:
            return int(logits.argmax())
        ids, weights = candidates(
            logits, params.temperature, params.top_k, params.top_p, params.min_p
        )
        place = pick(weights, self._random)
        return int(place if ids is None else ids[place])


class Penalties:
    """Logit bias, and what a sequence's own tokens do to their next chance.

    The repetition penalty (arXiv:1909.05858) counts prompt and answer, the frequency and presence
    penalties (OpenAI's definition) the answer alone.  Keeps nothing for what is off.
    """

    def __init__(
        self, params: SamplingParams, prompt: Sequence[int], vocab_size: int, device: str
    ) -> None:
        self._params = params
        self._seen: Tensor | None = None  # bool [vocab]
        self._counts: Tensor | None = None  # float32 [vocab]
        self._bias: Tensor | None = None  # float32 [vocab]
        if params.repetition_penalty != 1:
            self._seen = torch.zeros(vocab_size, dtype=torch.bool, device=device)
            self._seen[torch.tensor(prompt, device=device)] = True
        if params.frequency_penalty or params.presence_penalty:
            self._counts = torch.zeros(vocab_size, dtype=torch.float32, device=device)
        if params.logit_bias:
            self._bias = torch.zeros(vocab_size, dtype=torch.float32, device=device)
            tokens, biases = zip(*params.logit_bias, strict=True)
            self._bias[torch.tensor(tokens, device=device)] = torch.tensor(biases, device=device)

    def apply(self, logits: Tensor) -> Tensor:
        params = self._params
        if self._bias is not None:
            logits = logits + self._bias
        if self._seen is not None:
            penalty = params.repetition_penalty
            punished = torch.where(logits < 0, logits * penalty, logits / penalty)
            logits = torch.where(self._seen, punished, logits)
        if self._counts is not None:
            logits = logits - params.frequency_penalty * self._counts
            logits = logits - params.presence_penalty * (self._counts > 0)
        return logits

    def count(self, token: int) -> None:
        if self._seen is not None:
            self._seen[token] = True
        if self._counts is not None:
            self._counts[token] += 1


def candidates(
    logits: Tensor, temperature: float, top_k: int, top_p: float, min_p: float
) -> tuple[Tensor | None, Tensor]:
    """Which tokens may be drawn: ids (None: all, in order) and their probabilities, not normalised.

    top_k 0, top_p 1 and min_p 0 are off; the likeliest token always stays.
    """
    ids: Tensor | None = None
    # The shift by the maximum keeps a small temperature from overflowing; softmax is blind to it.
    scaled = (logits - logits.max()) / temperature
    if 0 < top_k < len(scaled):
        scaled, ids = scaled.topk(top_k)
    weights = scaled.softmax(-1)
    if top_p < 1:
        weights, picked = nucleus(weights, top_p)
        ids = picked if ids is None else ids[picked]
    if min_p > 0:
        weights = weights.where(weights >= min_p * weights.max(), 0)
    return ids, weights


def nucleus(probabilities: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The fewest likeliest entries that hold `top_p` of the mass, likeliest first, and their places."""
    width = NUCLEUS_WIDTH
    while True:
        top, places = probabilities.topk(min(width, len(probabilities)))
        mass = top.cumsum(-1)
        if width >= len(probabilities) or mass[-1] >= top_p:
            break
        width *= 16
    count = int((mass - top < top_p).sum().clamp(min=1))
    return top[:count], places[:count]


def pick(weights: Tensor, random: torch.Generator) -> Tensor:
    """A place in `weights`, with a chance in proportion to them.

    One random number against the running sum, in float64 so that the least weights count too:
    `torch.multinomial` draws one for every entry, which takes 14 times as long for 49 152 of them.
    """
    mass = weights.cumsum(-1, dtype=torch.float64)
    point = torch.rand(1, dtype=torch.float64, device=weights.device, generator=random) * mass[-1]
    return torch.searchsorted(mass, point, right=True).clamp(max=len(mass) - 1)


def finite(logits: Tensor) -> Tensor:
    low, high = logits.aminmax()  # both NaN if any is
    if not torch.isfinite(high - low):
        raise HelexaError(
            "the model computed something that is not a number: its weights are damaged, or its "
            'number format is too narrow for it (try dtype = "fp32")'
        )
    return logits


def log_probabilities(logits: Tensor, token: int, num_top: int) -> tuple[float, Top]:
    """Of the token and of the `num_top` likeliest ones, under the model's own distribution."""
    ((_, logprob, top),) = scores(logits[None], [token], num_top)
    return logprob, top


def scores(logits: Tensor, tokens: Sequence[int], num_top: int) -> list[tuple[int, float, Top]]:
    """Each token with its log-probability by its row of `logits` [tokens, vocab], and the likeliest."""
    logs = finite(logits.float()).log_softmax(-1)
    own = logs.gather(-1, torch.tensor(tokens, device=logs.device)[:, None])[:, 0]
    values, ids = logs.topk(min(num_top, logs.shape[-1]))
    rows = zip(ids.tolist(), values.tolist(), strict=True)
    tops = (tuple(zip(row, value, strict=True)) for row, value in rows)
    return list(zip(tokens, own.tolist(), tops, strict=True))
