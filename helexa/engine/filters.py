"""Drawing a token for each row of logits, out of what the filters of that row leave.

The order is transformers': temperature, top-k, top-p, min-p; each filter sees the distribution that
the one before left, renormalised.  What a row draws hangs on that row alone, whatever is beside it:
of equally likely tokens the lower id comes first, and running sums are float64.
"""

from collections.abc import Callable, Sequence

import torch
from attrs import frozen
from torch import Tensor
from torch.nn.functional import pad

from helexa.engine.orders import SamplingParams
from helexa.engine.rows import span

GREEDY_BELOW = 1e-5  # a temperature under which dividing by it gains nothing but overflows
UNSETTLED = -1  # instead of a token: others than those looked at might pass the filters too
BLOCK = 128  # tokens that are summed up first, instead of a running sum over the whole vocabulary
LINES = 16  # into which a row is laid out to find its largest weights
BELOW_ONE = 1 - 2**-52  # times any number: rounded, too, it is less than that number


@frozen
class Draw:
    """How to draw one token: `point`, uniform in [0, 1), says which of those that pass."""

    params: SamplingParams
    point: float


def choose(logits: Tensor, draws: Sequence[Draw], width: int) -> Tensor:
    """A token for each row of float32 `logits` [rows, vocab], as int64 [rows].

    Filters look at the `width` likeliest tokens; where these do not tell, the row is UNSETTLED.
    """
    ways: dict[Way, list[int]] = {}
    for row, draw in enumerate(draws):
        ways.setdefault(way(draw.params), []).append(row)
    if len(ways) == 1:
        (draw_rows,) = ways
        return draw_rows(logits, draws, width)
    tokens = torch.empty(len(draws), dtype=torch.long, device=logits.device)
    for draw_rows, rows in ways.items():
        at = span(rows)
        tokens[at] = draw_rows(logits[at], [draws[row] for row in rows], width)
    return tokens


def way(params: SamplingParams) -> "Way":
    if params.temperature < GREEDY_BELOW:
        return likeliest
    if params.top_k > 0 or params.top_p < 1 or params.min_p > 0:
        return filtered
    return unfiltered


def likeliest(logits: Tensor, draws: Sequence[Draw], width: int) -> Tensor:
    return logits.argmax(-1)


def unfiltered(logits: Tensor, draws: Sequence[Draw], width: int) -> Tensor:
    temperature, point, *_ = columns(draws, logits)
    return pick((logits / temperature.float()).softmax(-1), point)


def filtered(logits: Tensor, draws: Sequence[Draw], width: int) -> Tensor:
    temperature, point, top_k, top_p, min_p = columns(draws, logits)
    width = min(width, logits.shape[-1])
    weights, ids = ranked((logits / temperature.float()).softmax(-1), width)
    mass = weights.cumsum(-1, dtype=torch.float64)
    last = last_passing(weights, mass, top_k.long(), top_p, min_p)
    tokens = ids.gather(-1, place(mass, point * mass.gather(-1, last)))
    if width < logits.shape[-1]:
        # An equally likely token, or one that top-k still counts, could be beyond those in view.
        is_settled = (weights.gather(-1, last) > weights[:, -1:]) & (top_k <= width)
        tokens = tokens.where(is_settled, UNSETTLED)
    return tokens[:, 0]


Way = Callable[[Tensor, Sequence[Draw], int], Tensor]


def columns(draws: Sequence[Draw], logits: Tensor) -> tuple[Tensor, ...]:
    """Temperature, point, top-k (0: off), top-p (inf: off) and min-p, float64 [rows, 1] each."""
    vocab = logits.shape[-1]
    params = [draw.params for draw in draws]
    table = [
        [row.temperature for row in params],
        [min(draw.point, BELOW_ONE) for draw in draws],
        [row.top_k if row.top_k < vocab else 0 for row in params],
        [row.top_p if row.top_p < 1 else torch.inf for row in params],
        [row.min_p for row in params],
    ]
    settings = torch.tensor(table, dtype=torch.float64, device=logits.device)
    return settings[:, :, None].unbind()


def ranked(weights: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The `width` largest of each row and their ids, the largest first, then the lower id.

    Which of those equal to the last of them are there is left open.
    """
    ids, _ = largest(weights, width).sort()
    top, order = weights.gather(-1, ids).sort(descending=True, stable=True)
    return top, ids.gather(-1, order)


def largest(weights: Tensor, width: int) -> Tensor:
    """The places [rows, width] of the `width` largest of each row, in no order.

    They stand in the `width` columns with the largest maxima, if a row is written in lines of equal
    length: a fifth of the time of `topk` over 150 000 weights on a CPU.
    """
    rows, size = weights.shape
    columns = -(-size // LINES)
    if columns <= width:
        return weights.topk(width, sorted=False).indices
    lines = pad(weights, (0, columns * LINES - size), value=-torch.inf).view(rows, LINES, columns)
    chosen = lines.amax(1).topk(width, sorted=False).indices[:, None, :].expand(-1, LINES, -1)
    within = lines.gather(2, chosen).flatten(1).topk(width, sorted=False).indices
    starts = columns * torch.arange(LINES, device=weights.device)[:, None]
    places = (chosen + starts).flatten(1).gather(-1, within)
    return places.clamp(max=size - 1)  # the padding is among them only where nothing is a number


def last_passing(
    weights: Tensor, mass: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor
) -> Tensor:
    """The rank [rows, 1] of the last token that all filters let pass; the first always does.

    `weights` [rows, width] are ranked, `mass` is their running sum; all of a distribution weighs 1.
    """
    width = weights.shape[-1]
    counted = torch.where(top_k > 0, top_k, width).clamp(max=width)
    total = mass.gather(-1, counted - 1).where(top_k > 0, 1)
    passes = torch.arange(width, device=weights.device) < counted
    passes &= mass - weights < top_p * total
    passes &= weights >= min_p * weights[:, :1]
    return (passes.sum(-1, keepdim=True) - 1).clamp(min=0)


def pick(weights: Tensor, point: Tensor) -> Tensor:
    """A place [rows] in `weights` [rows, n], with a chance in proportion to them; `point` [rows, 1].

    First a block, then a place in it: several times as fast as a running sum over 150 000 weights.
    """
    rows, size = weights.shape
    blocks = pad(weights, (0, -size % BLOCK)).view(rows, -1, BLOCK)
    sums = blocks.sum(-1)
    mass = sums.cumsum(-1, dtype=torch.float64)
    point = point * mass[:, -1:]
    block = place(mass, point)
    rest = (point - (mass - sums).gather(-1, block)).clamp(min=0)
    mass = blocks.gather(1, block[:, :, None].expand(-1, -1, BLOCK))[:, 0].cumsum(
        -1, dtype=torch.float64
    )
    rest = rest.minimum(mass[:, -1:] * BELOW_ONE)  # the two sums differ in their last digits
    return (block * BLOCK + place(mass, rest))[:, 0]


def place(mass: Tensor, point: Tensor) -> Tensor:
    """Where a running sum [rows, n] first exceeds `point` [rows, 1], which lies before its end.

    So never at an entry that adds nothing.
    """
    found = torch.searchsorted(mass, point, right=True)
    return found.clamp(max=mass.shape[-1] - 1)  # beyond it only where nothing is a number
