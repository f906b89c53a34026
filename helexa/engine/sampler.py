"""Drawing the next tokens of all sequences of a step from the model's logits.

Logit bias and penalties come first, then the form of the answer, then what filters.py does.
"""

from collections import deque
from collections.abc import Sequence
from random import Random

import torch
from attrs import frozen
from torch import Tensor

from helexa.engine.filters import UNSETTLED, Draw, choose, ranked
from helexa.engine.form import Masks
from helexa.engine.orders import SamplingParams, Top
from helexa.engine.penalties import Penalties, Penalty, penalise
from helexa.engine.rows import span, stacked
from helexa.errors import HelexaError

WIDTH = 256  # tokens looked at first for the filters, instead of sorting the whole vocabulary
WIDER = 16  # times as many, where these do not settle it
CACHED_BYTES = 1 << 20  # of float32 logits at once on a CPU: more would leave its cache
MEMORY_BYTES = 256 << 20  # and elsewhere, where calls are what costs time
UNFIT = -2  # instead of a token: the row's logits are not all finite


@frozen
class Drawn:
    """A token; `logprob` and `top` as in `orders.Piece`.

    `redrawn`: another one had been drawn, but the answer was to be closed.
    """

    token: int
    logprob: float | None = None
    top: Top = ()
    redrawn: bool = False


@frozen(eq=False)
class Row:
    """How the token of one row of logits is drawn.

    `points` are its random numbers, the second for the token that is drawn in place of another.
    """

    params: SamplingParams
    penalty: Penalty
    points: tuple[float, float]
    masks: Masks | None = None

    def draw(self, *, again: bool = False) -> Draw:
        return Draw(self.params, self.points[again])


class Sampler:
    """How one sequence draws.  Owns its random numbers, so that a seed repeats a text.

    Without a seed it takes one from the operating system.  The i-th token of an answer has the i-th
    numbers, whenever and however often it is drawn.
    """

    def __init__(
        self, params: SamplingParams, prompt: Sequence[int], vocab_size: int, device: str
    ) -> None:
        self._params = params
        self._penalties = Penalties(params, prompt, vocab_size, device)
        # On the host: a step's numbers go to the device at once.  As a number, -1 would be 1.
        self._random = Random(None if params.seed is None else str(params.seed))
        self._points: deque[tuple[float, float]] = deque()  # of the next tokens

    def row(self, masks: Masks | None = None, ahead: Sequence[int] = ()) -> Row:
        """Of the next token, or of the one that follows if those `ahead` come before it."""
        while len(self._points) <= len(ahead):
            self._points.append((self._random.random(), self._random.random()))
        penalty = self._penalties.after(ahead)
        return Row(self._params, penalty, self._points[len(ahead)], masks)

    def accept(self, token: int) -> None:
        """Go on with a token that was drawn.  Works on the host alone."""
        self._penalties.count(token)
        self._points.popleft()


@torch.inference_mode()
def draw_all(logits: Tensor, rows: Sequence[Row]) -> list[Drawn | HelexaError]:
    """A token for each row of `logits` [n, vocab] in any float dtype.

    Its masks tell what may be drawn.  A row that is not all finite gets the error, alone.  What a row
    draws hangs on it and its own logits, never on the other rows.
    """
    limit = CACHED_BYTES if logits.device.type == "cpu" else MEMORY_BYTES
    count = max(1, limit // (4 * logits.shape[-1]))
    parts = [slice(start, start + count) for start in range(0, len(rows), count)]
    return [drawn for at in parts for drawn in draw_part(logits[at], rows[at])]


def draw_part(logits: Tensor, rows: Sequence[Row]) -> list[Drawn | HelexaError]:
    logits = logits.float()
    shaped = shape(logits, rows)
    draws = [row.draw() for row in rows]
    # Synchronises with the device once, unless a row needs a second look.
    tokens = settle(choose(shaped, draws, WIDTH).where(finite(logits), UNFIT), shaped, draws)
    redrawn = close(shaped, rows, tokens)
    found = [redrawn.get(row, token) for row, token in enumerate(tokens)]
    chances = log_probabilities(logits, rows, found)
    return [
        not_finite() if token == UNFIT else Drawn(token, *chances[row], row in redrawn)
        for row, token in enumerate(found)
    ]


def shape(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """The float32 `logits` after bias, penalties and masks; the same tensor where there are none."""
    penalties = [row.penalty for row in rows]
    some = stacked(None if row.masks is None else row.masks.allowed for row in rows)
    if some is None and not any(penalty.is_on for penalty in penalties):
        return logits
    shaped = logits.clone()
    penalise(shaped, penalties)
    if some is not None:
        held, allowed = some
        shaped[held] = shaped[held].where(allowed, -torch.inf)
    return shaped


def settle(first: Tensor, logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """The tokens that `choose` found `first`; where UNSETTLED, by looking wider."""
    tokens: list[int] = first.tolist()
    width = WIDTH
    while rows := [row for row, token in enumerate(tokens) if token == UNSETTLED]:
        width *= WIDER
        found = choose(logits[span(rows)], [draws[row] for row in rows], width).tolist()
        for row, token in zip(rows, found, strict=True):
            tokens[row] = token
    return tokens


def close(logits: Tensor, rows: Sequence[Row], tokens: Sequence[int]) -> dict[int, int]:
    """Other tokens, by row, for those that close nothing where the answer is to be closed."""
    closing = {
        place: row.masks.closing
        for place, row in enumerate(rows)
        if row.masks is not None and row.masks.closing is not None and tokens[place] != UNFIT
    }
    if not closing:
        return {}
    drawn = torch.tensor([tokens[place] for place in closing], device=logits.device)
    closes = torch.stack(list(closing.values())).gather(-1, drawn[:, None])[:, 0].tolist()
    left = [place for place, is_closed in zip(closing, closes, strict=True) if not is_closed]
    if not left:
        return {}
    held = logits[left].where(torch.stack([closing[place] for place in left]), -torch.inf)
    draws = [rows[place].draw(again=True) for place in left]
    return dict(zip(left, settle(choose(held, draws, WIDTH), held, draws), strict=True))


def log_probabilities(
    logits: Tensor, rows: Sequence[Row], tokens: Sequence[int]
) -> list[tuple[float | None, Top]]:
    """Those of the tokens and the likeliest, under the model's own distribution, where asked for."""
    found: list[tuple[float | None, Top]] = [(None, ())] * len(tokens)
    asked: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        if row.params.top_logprobs is not None and tokens[place] != UNFIT:
            asked.setdefault(row.params.top_logprobs, []).append(place)
    for num_top, places in asked.items():
        scored = scores(logits[span(places)], [tokens[place] for place in places], num_top)
        for place, (_, logprob, top) in zip(places, scored, strict=True):
            found[place] = logprob, top
    return found


def scores(logits: Tensor, tokens: Sequence[int], num_top: int) -> list[tuple[int, float, Top]]:
    """Each token with its log-probability by its row of `logits` [tokens, vocab], and the likeliest.

    HelexaError if the logits are not all finite.
    """
    logits = logits.float()
    logs = logits.log_softmax(-1)
    own = logs.gather(-1, torch.tensor(tokens, device=logs.device)[:, None])
    values, ids = ranked(logs, min(num_top, logs.shape[-1]))
    columns = (finite(logits)[:, None], own, values, ids)
    table = torch.cat([column.double() for column in columns], -1).tolist()
    scored = []
    for token, (is_finite, logprob, *top) in zip(tokens, table, strict=True):
        if not is_finite:
            raise not_finite()
        half = len(top) // 2
        likeliest = zip(map(int, top[half:]), top[:half], strict=True)
        scored.append((token, logprob, tuple(likeliest)))
    return scored


def finite(logits: Tensor) -> Tensor:
    """Which rows of `logits` [n, vocab] are all finite, as bool [n]."""
    return logits.amax(-1) - logits.amin(-1) < torch.inf  # both are NaN if any is


def not_finite() -> HelexaError:
    return HelexaError(
        "the model computed something that is not a number: its weights are damaged, or its "
        'number format is too narrow for it (try dtype = "fp32")'
    )
