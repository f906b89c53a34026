"""The compiled attention is attention within what its rounding may cost: any sizes, texts and single tokens
in one call, any numbers.
"""

import ctypes
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from helexa.engine.kv.layers import Segment
from helexa.engine.lean import library, native

TOTAL = 1024

# (begins at, positions before, tokens of the pass) of each sequence, one behind the other in the pool
SINGLE = [(0, 0, 1), (64, 63, 1), (192, 64, 1), (384, 300, 1)]
DRAFTED = [(0, 130, 3), (192, 7, 9)]
TEXTS = [(0, 0, 70), (128, 100, 25), (320, 1, 300)]
MIXED = [(0, 200, 1), (256, 65, 130), (512, 0, 5), (640, 63, 2)]

SHAPES = [(9, 3, 64), (4, 4, 32), (8, 1, 16), (2, 2, 256), (6, 2, 80)]  # heads, groups, dim

Places = list[tuple[int, int, int]]
Shape = tuple[int, int, int]

# As `native.cpp` has them: keys of a block, levels of a weight of 1 and of a column's highest value there.
KEYS, WEIGHT, VALUE = 64, 2**13, 4095
EXPONENT = 1e-4  # of a weight: how far 2^x may be off


@pytest.mark.parametrize("places", [SINGLE, DRAFTED, TEXTS, MIXED])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_attention(places: Places, shape: Shape) -> None:
    check(Inputs(places, shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_sums_of_whole_numbers_fit_whatever_they_are(shape: Shape) -> None:
    """All have the most levels, but for keys that hardly count: a sum too large would have another sign."""
    inputs = Inputs(TEXTS, shape)
    for part in (inputs.states, inputs.keys, inputs.values):
        part.fill_(-1)
    inputs.new_keys[::3], inputs.new_values[::3] = 0, 1
    check(inputs)


def outlying(inputs: "Inputs") -> None:
    """As keys of real models are: some columns many times as large as the others."""
    inputs.new_keys[..., ::7] *= 40
    inputs.keys[..., ::7] *= 40
    inputs.values[..., 3] *= 100


def one_huge_score(inputs: "Inputs") -> None:
    inputs.keys[:, 350] = 300 * inputs.queries[0, 0]


def a_sink(inputs: "Inputs") -> None:
    """Nearly all weight is on the first key, of which there is nothing; the rest is what all others give."""
    inputs.queries[..., 0], inputs.keys[..., 0] = 1, 0
    inputs.keys[:, 320, 0] = 8 * inputs.states.shape[-1] ** 0.5
    inputs.values[:, 320] = 0


def nothing(inputs: "Inputs") -> None:
    """All scores are equal."""
    inputs.queries.zero_()


def next_to_nothing(inputs: "Inputs") -> None:
    for part in (inputs.states, inputs.keys, inputs.values):
        part *= 1e-38


@pytest.mark.parametrize("spoil", [outlying, one_huge_score, a_sink, nothing, next_to_nothing])
@pytest.mark.parametrize("shape", [(9, 3, 64), (2, 2, 256)])
def test_it_is_attention_of_unusual_numbers(
    spoil: Callable[["Inputs"], None], shape: Shape
) -> None:
    inputs = Inputs([*TEXTS, (640, 5, 1)], shape)
    spoil(inputs)
    check(inputs)


@pytest.mark.parametrize("shape", SHAPES)
def test_its_rounding_costs_a_quarter_of_what_bfloat16_does(shape: Shape) -> None:
    inputs = Inputs(TEXTS, shape)
    found, exact = inputs.attended(), inputs.exact()
    for part in (inputs.states, inputs.keys, inputs.values):
        part.copy_(part.bfloat16())
    rounded = inputs.exact()
    assert (found - exact).square().mean().sqrt() < (rounded - exact).square().mean().sqrt() / 4


@pytest.mark.parametrize("part", ["queries", "new_keys", "new_values"])
def test_what_is_not_a_number_reaches_those_who_see_it_and_no_other_sequence(part: str) -> None:
    inputs = Inputs(TEXTS, (9, 3, 64))
    getattr(inputs, part)[80, :, 5] = torch.nan  # in the second of the three
    found, others = inputs.attended(), [*range(70), *range(95, 395)]
    column = 5 if part == "new_values" else slice(None)
    seeing = slice(80, 81) if part == "queries" else slice(80, 95)
    assert found[seeing, :, column].isnan().all()
    assert found[others].isfinite().all()


class Inputs:
    """Random queries, keys and values of a pass, behind what the pool already has."""

    def __init__(self, places: Places, shape: Shape) -> None:
        torch.manual_seed(0)
        self.heads, self.groups, self.dim = shape
        self.segments = [Segment(at, before, count, {}) for at, before, count in places]
        tokens = sum(segment.count for segment in self.segments)
        self.states = torch.randn(tokens, self.heads + 2 * self.groups, self.dim)
        self.keys, self.values = torch.randn(2, self.groups, TOTAL, self.dim)

    @property
    def queries(self) -> Tensor:
        return self.states[:, : self.heads]

    @property
    def new_keys(self) -> Tensor:
        return self.states[:, self.heads : -self.groups]

    @property
    def new_values(self) -> Tensor:
        return self.states[:, -self.groups :]

    def attended(self) -> Tensor:
        """By the kernel, [tokens, heads, dim]; new keys and values are in the pool then."""
        list(library.compiling())
        lib = library.library()
        assert lib is not None
        tokens, width, dim = self.states.shape
        layer = library.Layer(heads=self.heads, groups=self.groups, dim=dim, scaling=dim**-0.5)
        layer.input.rows = width * dim
        laid, result = native.laid(self.segments), self.states.new_empty(tokens, self.heads, dim)
        lib.attend(
            *(ctypes.addressof(layer), self.states.data_ptr()),
            *(self.keys.data_ptr(), self.values.data_ptr(), TOTAL),
            *(laid.data_ptr(), len(self.segments), result.data_ptr()),
        )
        return result

    def seen(self) -> Iterator[tuple[Segment, Tensor, Tensor, Tensor, Tensor]]:
        """Of each sequence and head in float64: queries, keys, values, and what is hidden from the queries.

        First comes a dimension for the heads.
        """
        end = 0
        for segment in self.segments:
            mine = slice(end, end + segment.count)
            end += segment.count
            past = slice(segment.at, segment.at + segment.before + segment.count)
            keys, values = (
                part[:, past].double().repeat_interleave(self.heads // self.groups, 0)
                for part in (self.keys, self.values)
            )
            place = torch.arange(keys.shape[1])
            hidden = place > place[segment.before :, None]
            yield segment, self.queries[mine].double().transpose(0, 1), keys, values, hidden

    def exact(self) -> Tensor:
        """Attention in float64 of what the pool has, [tokens, heads, dim]."""
        results = []
        for _, queries, keys, values, hidden in self.seen():
            scores = (queries @ keys.mT * self.dim**-0.5).masked_fill(hidden, -torch.inf)
            results.append((scores.softmax(-1) @ values).transpose(0, 1))
        return torch.cat(results)

    def bound(self) -> Tensor:
        """How far each number of the kernel may be off.

        Of scores: half a level of a query against the whole key, and the other way round.  Of weights: e to
        twice that, and half a level beside each block's highest, so for a part of at most KEYS / 2 levels of
        what all have.  Of values: half a level of the highest of a column.  Single tokens are not rounded.
        """
        bounds = []
        level = 0.5 / int((2**31 / self.dim) ** 0.5 - 1)
        for segment, queries, keys, values, hidden in self.seen():
            most = values.abs().amax(1, keepdim=True).expand(-1, segment.count, -1)
            if segment.count * self.heads // self.groups < 12:
                bounds.append((most * 1e-5).transpose(0, 1))
                continue
            apart = (
                level * queries.abs().amax(-1, keepdim=True),
                level * keys.abs().amax(-1)[:, None],
            )
            score = apart[0] * (keys.abs().sum(-1)[:, None] + self.dim * apart[1])
            score = score + apart[1] * queries.abs().sum(-1, keepdim=True)
            score = (score * self.dim**-0.5).masked_fill(hidden, 0).amax(-1, keepdim=True)
            weight = torch.expm1(2 * score) + 2 * (KEYS / 2 / WEIGHT + EXPONENT)
            bounds.append((most * (weight.clamp(max=2) + 0.5 / VALUE)).transpose(0, 1))
        return torch.cat(bounds)


def check(inputs: Inputs) -> None:
    keys, values = inputs.keys.clone(), inputs.values.clone()
    found = inputs.attended()
    end = 0
    for segment in inputs.segments:
        place, mine = segment.at + segment.before, slice(end, end + segment.count)
        end += segment.count
        for pool, new in ((keys, inputs.new_keys), (values, inputs.new_values)):
            pool[:, place : place + segment.count] = new[mine].transpose(0, 1)
    assert torch.equal(keys, inputs.keys)
    assert torch.equal(values, inputs.values)
    assert ((found - inputs.exact()).abs() <= inputs.bound() + 1e-30).all()
