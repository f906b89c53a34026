"""What top-k, top-p and min-p leave, against transformers' logits processors, and drawing from it."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from helexa.engine.filters import (
    UNSETTLED,
    Draw,
    choose,
    columns,
    largest,
    last_passing,
    ranked,
)
from helexa.engine.orders import SamplingParams

VOCAB = 700

seeds = st.integers(0, 2**32)
points = st.floats(0, 1, exclude_max=True)
NEARLY_ONE = 1 - 2**-53  # the largest number that Random gives


@st.composite
def params(draw: st.DrawFn) -> SamplingParams:
    return SamplingParams(
        temperature=draw(st.floats(0.1, 2)),
        top_k=draw(st.integers(0, VOCAB + 9)),
        top_p=draw(st.floats(0.05, 1)),
        min_p=draw(st.floats(0, 0.5)),
    )


def logits_of(seed: int, spread: float = 3.0, size: int = VOCAB) -> torch.Tensor:
    return torch.randn(1, size, generator=torch.Generator().manual_seed(seed)) * spread


def passing(logits: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """What the filters leave, as probabilities of the whole vocabulary."""
    temperature, _, top_k, top_p, min_p = columns([Draw(params, 0)], logits)
    weights, ids = ranked((logits / temperature.float()).softmax(-1), logits.shape[-1])
    last = last_passing(weights, weights.double().cumsum(-1), top_k.long(), top_p, min_p)
    kept = weights.where(torch.arange(logits.shape[-1]) <= last, 0)
    return torch.zeros_like(logits).scatter(-1, ids, kept / kept.sum())


@given(seeds, st.floats(0.2, 10), params())
def test_filters_equal_those_of_transformers(
    seed: int, spread: float, params: SamplingParams
) -> None:
    logits = logits_of(seed, spread)
    theirs = LogitsProcessorList([TemperatureLogitsWarper(params.temperature)])
    if params.top_k:
        theirs.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        theirs.append(TopPLogitsWarper(params.top_p))
    if params.min_p:
        theirs.append(MinPLogitsWarper(params.min_p))
    expected = theirs(torch.tensor([[0]]), logits.clone()).softmax(-1)
    ours = passing(logits, params)
    both = (expected > 0) & (ours > 0)
    # Rounding may put the token that lies on a boundary, and a tail that weighs nothing, elsewhere.
    differing = expected.maximum(ours)[~both].sort().values
    assert differing[:-1].sum() < 1e-5
    assert torch.allclose(ours[both], expected[both], rtol=2e-2)


@given(seeds, st.floats(0.01, 0.999))
def test_a_nucleus_is_the_fewest_likeliest_tokens_that_hold_the_mass(
    seed: int, top_p: float
) -> None:
    logits = logits_of(seed, spread=0.5)
    probabilities = logits.softmax(-1)
    kept = probabilities[passing(logits, SamplingParams(top_p=top_p)) > 0].sort().values
    assert kept.sum() >= top_p - 1e-5
    assert kept[1:].sum() <= top_p + 1e-5
    assert kept.min() >= probabilities.topk(len(kept)).values.min()


@given(seeds, params(), points, st.integers(1, VOCAB), st.sampled_from([0.1, 3.0]), st.booleans())
def test_what_is_drawn_hangs_not_on_how_many_tokens_are_looked_at(
    seed: int, params: SamplingParams, point: float, width: int, spread: float, with_ties: bool
) -> None:
    logits = logits_of(seed, spread)
    if with_ties:
        logits = logits.round(decimals=1)
    draws = [Draw(params, point)]
    (token,) = choose(logits, draws, width).tolist()
    assert token in (UNSETTLED, *choose(logits, draws, VOCAB).tolist())
    assert passing(logits, params)[0, token] > 0 or token == UNSETTLED


def test_filters_look_no_wider_than_they_must() -> None:
    logits = logits_of(0)
    for params in (SamplingParams(top_k=8), SamplingParams(top_p=0.3), SamplingParams(min_p=0.3)):
        assert choose(logits, [Draw(params, 0.5)], 9).item() != UNSETTLED
    for params in (SamplingParams(top_k=9), SamplingParams(top_p=1 - 1e-4)):
        assert choose(logits, [Draw(params, 0.5)], 9).item() == UNSETTLED
    assert choose(logits, [Draw(SamplingParams(top_k=VOCAB), 0.5)], VOCAB).item() != UNSETTLED


@pytest.mark.parametrize("filters", [{"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0, "top_k": 1}])
@pytest.mark.parametrize("point", [0, 0.5, NEARLY_ONE])
def test_of_equally_likely_tokens_the_lowest_is_the_likeliest(
    filters: dict[str, float], point: float
) -> None:
    logits = torch.zeros(1, VOCAB)
    logits[0, [11, 300, 690]] = 5
    draw = Draw(SamplingParams(**filters), point)
    assert choose(logits, [draw], 256).item() == 11


@given(seeds, st.integers(1, 5), st.integers(1, 5000), st.integers(1, 300), st.booleans())
@example(0, 1, 4096, 256, False)
@example(0, 2, 4097, 256, True)
def test_the_largest_weights_are_found(
    seed: int, rows: int, size: int, width: int, with_ties: bool
) -> None:
    weights = logits_of(seed, size=rows * size).view(rows, size)
    if with_ties:
        weights = weights.round()
    width = min(width, size)
    places = largest(weights, width)
    assert all(len(set(row)) == width for row in places.tolist())
    found = weights.gather(-1, places).sort(descending=True).values
    assert torch.equal(found, weights.topk(width).values)


@given(st.lists(st.sampled_from([0.0, 1e-30, 1e-3, 0.3, 7.0]), min_size=1, max_size=400), points)
@example([0.0, 1.0, 0.0], NEARLY_ONE)
@example([0.0] * 128 + [0.1] * 3 + [0.0] * 200, NEARLY_ONE)
@example([0.0] * 300 + [0.1], 0.0)
def test_a_place_is_picked_by_the_running_sum_and_never_one_without_weight(
    weights: list[float], point: float
) -> None:
    if not any(weights):
        weights[-1] = 1.0
    logits = torch.tensor([weights]).log()
    (found,) = choose(logits, [Draw(SamplingParams(), point)], len(weights)).tolist()
    assert weights[found] > 0
    total = sum(weights)
    assert sum(weights[:found]) <= point * total + 1e-5 * total
    assert sum(weights[: found + 1]) >= point * total - 1e-5 * total
