"""How tokens are drawn, against transformers' logits processors where those exist."""

import math
from collections import Counter

import pytest
import torch
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from helexa.engine.orders import SamplingParams
from helexa.engine.sampler import Drawn, Penalties, Sampler, candidates, nucleus, pick
from helexa.errors import HelexaError

VOCAB = 700  # wider than the part of it that top-p looks at first

seeds = st.integers(0, 2**32)


def logits_of(seed: int, spread: float = 3.0, size: int = VOCAB) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * spread


def dense(logits: torch.Tensor, **cuts: float) -> torch.Tensor:
    """`candidates` as probabilities of the whole vocabulary."""
    off = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    ids, weights = candidates(logits, **{**off, **cuts})
    probabilities = torch.zeros_like(logits)
    probabilities[torch.arange(len(logits)) if ids is None else ids] = weights / weights.sum()
    return probabilities


@settings(deadline=None)
@given(
    seeds,
    st.floats(0.2, 10),
    st.floats(0.1, 2),
    st.integers(0, VOCAB + 9),
    st.floats(0.05, 1),
    st.floats(0, 0.5),
)
def test_cuts_equal_those_of_transformers(
    seed: int, spread: float, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    logits = logits_of(seed, spread)
    theirs = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        theirs.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        theirs.append(TopPLogitsWarper(top_p))
    if min_p:
        theirs.append(MinPLogitsWarper(min_p))
    expected = theirs(torch.tensor([[0]]), logits[None].clone())[0].softmax(-1)
    ours = dense(logits, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    both = (expected > 0) & (ours > 0)
    # Rounding may put the token that lies on a boundary, and a tail that weighs nothing, elsewhere.
    differing = expected.maximum(ours)[~both].sort().values
    assert differing[:-1].sum() < 1e-5
    assert torch.allclose(ours[both], expected[both], rtol=2e-2)


@settings(deadline=None)
@given(seeds, st.floats(0.1, 3), st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=40))
def test_repetition_penalty_equals_that_of_transformers(
    seed: int, penalty: float, tokens: list[int]
) -> None:
    logits = logits_of(seed)
    half = len(tokens) // 2 + 1
    ours = Penalties(SamplingParams(repetition_penalty=penalty), tokens[:half], VOCAB, "cpu")
    for token in tokens[half:]:
        ours.count(token)
    theirs = RepetitionPenaltyLogitsProcessor(penalty)
    assert torch.equal(ours.apply(logits), theirs(torch.tensor([tokens]), logits[None].clone())[0])


def test_frequency_and_presence_penalties_count_the_answer_and_not_the_prompt() -> None:
    params = SamplingParams(frequency_penalty=0.5, presence_penalty=0.25)
    penalties = Penalties(params, [1, 1, 2], 5, "cpu")
    for token in (3, 3, 4):
        penalties.count(token)
    expected = torch.tensor([0, 0, 0, -2 * 0.5 - 0.25, -0.5 - 0.25])
    assert torch.equal(penalties.apply(torch.zeros(5)), expected)


def test_logit_bias_is_added_before_all_else() -> None:
    params = SamplingParams(temperature=0, logit_bias=((3, 100.0), (1, -100.0)))
    assert sampler(params).draw(logits_of(0)).token == 3
    banned = int(logits_of(0).argmax())
    params = SamplingParams(temperature=0, logit_bias=((banned, -100.0),))
    assert sampler(params).draw(logits_of(0)).token == int(logits_of(0).topk(2).indices[1])


@given(seeds, st.floats(0.01, 0.999))
@settings(deadline=None)
def test_a_nucleus_is_the_fewest_likeliest_tokens_that_hold_the_mass(
    seed: int, top_p: float
) -> None:
    probabilities = logits_of(seed, spread=0.5).softmax(-1)
    kept, places = nucleus(probabilities, top_p)
    assert kept.sum() >= top_p - 1e-5
    assert kept[:-1].sum() <= top_p + 1e-5
    assert torch.equal(probabilities[places], kept)
    assert kept.min() >= probabilities.topk(len(kept)).values.min()


def test_temperature_zero_takes_the_likeliest() -> None:
    for seed in range(20):
        logits = logits_of(seed)
        assert sampler(SamplingParams(temperature=0)).draw(logits).token == int(logits.argmax())


@pytest.mark.parametrize("temperature", [1e-6, 1e-4, 1e-3])
def test_a_tiny_temperature_does_not_overflow(temperature: float) -> None:
    logits = logits_of(1) * 1000
    params = SamplingParams(temperature=temperature, top_p=0.9, min_p=0.1)
    assert sampler(params).draw(logits).token == int(logits.argmax())


def test_draws_follow_the_distribution() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    drawer = Sampler(SamplingParams(seed=1), [0], 4, "cpu")
    counts = Counter(drawer.draw(probabilities.log()).token for _ in range(4000))
    for token, probability in enumerate(probabilities.tolist()):
        assert counts[token] / 4000 == pytest.approx(probability, abs=0.03)


def test_a_token_without_a_chance_is_never_drawn() -> None:
    weights = torch.tensor([0.0, 0.0, 0.5, 0.0, 0.5, 0.0])
    random = torch.Generator().manual_seed(0)
    assert {int(pick(weights, random)) for _ in range(500)} == {2, 4}


@pytest.mark.parametrize("seed", [0, -1, 7, 2**63, -(2**63), 2**70])
def test_a_seed_repeats_its_draws(seed: int) -> None:
    params = SamplingParams(seed=seed)
    assert draws(params) == draws(params)


def test_seeds_and_their_absence_give_different_draws() -> None:
    runs = [draws(SamplingParams(seed=1)), draws(SamplingParams(seed=2))]
    runs += [draws(SamplingParams()), draws(SamplingParams())]
    assert len({tuple(run) for run in runs}) == 4


def test_the_draws_of_one_sequence_leave_another_alone() -> None:
    params = SamplingParams(seed=3)
    alone = draws(params)
    first, second = sampler(params), sampler(evolve(params, seed=4))
    mixed = []
    for seed in range(20):
        mixed.append(first.draw(logits_of(seed)).token)
        second.draw(logits_of(seed))
    assert mixed == alone


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("temperature", [0, 1])
def test_logits_that_are_not_numbers_are_refused(value: float, temperature: float) -> None:
    logits = logits_of(0)
    logits[5] = value
    with pytest.raises(HelexaError, match="not a number"):
        sampler(SamplingParams(temperature=temperature)).draw(logits)


def test_logprobs_are_the_models_own_whatever_the_sampling() -> None:
    logits = logits_of(0)
    plain = logits.double().log_softmax(-1)
    params = SamplingParams(
        temperature=0.3, top_k=5, seed=1, logit_bias=((3, 50.0),), top_logprobs=4
    )
    drawn = sampler(params).draw(logits)
    assert drawn.token == 3
    assert drawn.logprob == pytest.approx(float(plain[3]), abs=1e-5)
    assert [token for token, _ in drawn.top] == plain.topk(4).indices.tolist()
    assert [p for _, p in drawn.top] == pytest.approx(plain.topk(4).values.tolist(), abs=1e-5)


def test_logprobs_of_the_whole_vocabulary_sum_to_one() -> None:
    drawn = sampler(SamplingParams(top_logprobs=VOCAB + 1)).draw(logits_of(0).bfloat16())
    assert len(drawn.top) == VOCAB
    assert sum(math.exp(p) for _, p in drawn.top) == pytest.approx(1, abs=1e-5)


def test_logprobs_cost_nothing_unless_asked_for() -> None:
    drawn = sampler(SamplingParams(seed=1)).draw(logits_of(0))
    assert drawn == Drawn(drawn.token)
    alone = sampler(SamplingParams(seed=1, top_logprobs=0)).draw(logits_of(0))
    assert alone.token == drawn.token
    assert alone.logprob is not None
    assert alone.top == ()


def sampler(params: SamplingParams) -> Sampler:
    return Sampler(params, [1, 2], VOCAB, "cpu")


def draws(params: SamplingParams) -> list[int]:
    drawer = sampler(params)
    return [drawer.draw(logits_of(seed)).token for seed in range(20)]
