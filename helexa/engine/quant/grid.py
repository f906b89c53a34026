"""Weights as whole numbers: groups of 32 in a row share a scale and a zero, as in GGUF's blocks.

A plane holds w = (q - 8) * scale + zero with q in 0..15, scale and zero in bfloat16: the formula of
torch's int4 kernels.  An 8-bit weight is 16 * high + low: two planes side by side, which are multiplied
by the same inputs written twice, so that one kernel adds both up.

Weights that lie on such a grid already, as those out of GGUF's Q4_0, Q4_1, Q4_K and Q8_0 do, keep their
whole numbers, whatever float they were stored in meanwhile.  What is rounded is scale and zero, to bfloat16:
at most 2^-8 of each, so 1/32 of a level at the far end of a 4-bit group from the scale, half a level
of an 8-bit one.  Any other weight is rounded to the nearest level: it moves by up to 1/30 of its
group's range, or 1/254 of its group's largest.
"""

import torch
from attrs import frozen
from torch import Tensor

GROUP = 32
TOP = 15  # the highest level of a plane
MIDDLE = 8
# How far, in levels, a weight of a grid may lie off it: float16 or bfloat16 have moved it a little.
ON_GRID = 1 / 16
PROBED_GROUPS = 256


@frozen(eq=False)
class Plane:
    """`levels` uint8 [rows, n] in 0..15; `scales`, `zeros` bfloat16 [rows, n / 32]."""

    levels: Tensor
    scales: Tensor
    zeros: Tensor

    def weight(self, columns: int) -> Tensor:
        """float32 [rows, columns]; n is as many or, with 8-bit weights, twice as many."""
        centred = grouped(self.levels) - MIDDLE
        spread = centred * self.scales.float()[..., None] + self.zeros.float()[..., None]
        return spread.view(len(spread), -1, columns).sum(1)


def fit_4_bit(weight: Tensor) -> Plane:
    """A float weight [rows, columns], columns a multiple of 32, as one plane."""
    groups = grouped(weight)
    levels, distances = nearest(groups, TOP)
    off = distances > ON_GRID
    if lie_on_shorter_grids(rest := groups[off]):
        levels[off] = nearest_of_all(rest)
    return plane_through(levels, groups)


def grouped(weight: Tensor) -> Tensor:
    """float32 [rows, groups, 32]"""
    return weight.float().view(len(weight), -1, GROUP)


def nearest(groups: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """The levels of a grid from the lowest weight of each group, 0, to its highest, `top`.

    And how far the worst weight of each group lies off, in levels.  Where all are one they get 8.
    """
    low, high = torch.aminmax(groups, dim=-1, keepdim=True)
    step = (high - low) / top
    flat = step == 0
    places = (groups - low).div_(step.masked_fill_(flat, 1))
    levels = places.round()
    distances = places.sub_(levels).abs_().amax(-1)
    return levels.masked_fill_(flat, MIDDLE), distances


def lie_on_shorter_grids(groups: Tensor) -> bool:
    """Whether most of these groups use fewer than 16 levels: told from a few of them."""
    if not len(groups):
        return False
    probe = groups[:: max(1, len(groups) // PROBED_GROUPS)]
    distances = torch.stack([nearest(probe, top)[1] for top in range(1, TOP)])
    return bool((distances.amin(0) <= ON_GRID).float().mean() > 0.5)


def nearest_of_all(groups: Tensor) -> Tensor:
    """The levels of the grid, of 2 to 16 levels, that lies nearest to each group."""
    best, distances = nearest(groups, TOP)
    least = distances / TOP  # of the group's range
    for top in range(1, TOP):
        levels, distances = nearest(groups, top)
        better = distances / top < least
        best[better] = levels[better]
        least[better] = distances[better] / top
    return best


def plane_through(levels: Tensor, groups: Tensor) -> Plane:
    """The plane with these levels [rows, groups, 32] that lies nearest to the weights.

    Least squares for the scale, and for the zero once the scale was rounded.
    """
    centred = levels - MIDDLE
    middle, mean = centred.mean(-1), groups.mean(-1)
    deviation = centred - middle[..., None]
    slope = (deviation * groups).sum(-1) / deviation.square().sum(-1).clamp_min(1)
    scales = slope.bfloat16()
    zeros = (mean - scales.float() * middle).bfloat16()
    return Plane(levels.to(torch.uint8).flatten(1), scales, zeros)


def fit_8_bit(weight: Tensor) -> Plane:
    """The same weight in twice the columns, high halves before low ones.

    Whole numbers from -127 to 127 times a scale.
    """
    groups = grouped(weight)
    step = groups.abs().amax(-1, keepdim=True) / 127
    numbers = (groups / step.masked_fill(step == 0, 1)).round_().clamp_(-127, 127)
    slope = (numbers * groups).sum(-1) / numbers.square().sum(-1).clamp_min(1)
    scales = slope.bfloat16()
    shifted = (numbers + 128).to(torch.uint8).flatten(1)
    zeros = torch.zeros_like(scales)
    return Plane(
        torch.cat([shifted >> 4, shifted & 15], 1),
        torch.cat([scales * 16, scales], 1),
        torch.cat([zeros, scales * 8], 1),
    )
