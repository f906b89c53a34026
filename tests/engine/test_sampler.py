"""How one sequence draws its tokens, against transformers where it can be."""

import math
from collections import Counter

import pytest
import torch
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

from helexa.engine.orders import SamplingParams
from helexa.engine.penalties import Penalties, penalise
from helexa.engine.sampler import Drawn, Sampler, draw_all, scores
from helexa.errors import HelexaError

VOCAB = 700

seeds = st.integers(0, 2**32)


def logits_of(seed: int, spread: float = 3.0, size: int = VOCAB) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * spread


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
    expected = theirs(torch.tensor([tokens]), logits[None].clone())
    assert torch.equal(penalised(logits, ours), expected[0])


def test_frequency_and_presence_penalties_count_the_answer_and_not_the_prompt() -> None:
    params = SamplingParams(frequency_penalty=0.5, presence_penalty=0.25)
    penalties = Penalties(params, [1, 1, 2], 5, "cpu")
    for token in (3, 3, 4):
        penalties.count(token)
    expected = torch.tensor([0, 0, 0, -2 * 0.5 - 0.25, -0.5 - 0.25])
    assert torch.equal(penalised(torch.zeros(5), penalties), expected)


PENALISED = SamplingParams(
    seed=5,
    repetition_penalty=1.3,
    frequency_penalty=0.5,
    presence_penalty=0.25,
    logit_bias=((3, 2.0),),
)


@given(st.lists(st.integers(0, 9), max_size=8), st.lists(st.integers(0, 9), max_size=8))
def test_a_row_ahead_is_the_row_that_comes_when_the_tokens_before_it_did(
    answered: list[int], ahead: list[int]
) -> None:
    early, late = sampler(PENALISED), sampler(PENALISED)
    for token in answered:
        early.row()
        early.accept(token)
        late.row()
        late.accept(token)
    guessed = early.row(ahead=ahead)
    for token in ahead:
        late.row()
        late.accept(token)
    logits = logits_of(1)[None]
    assert guessed.points == late.row().points
    assert draw_all(logits, [guessed]) == draw_all(logits, [late.row()])
    assert draw_all(logits, [early.row()]) == draw_all(logits, [early.row()])


def test_guesses_that_did_not_come_leave_no_trace() -> None:
    one, other = sampler(PENALISED), sampler(PENALISED)
    for seed in range(20):
        one.row(ahead=[seed, 1, 1])
        logits = logits_of(seed)
        assert draw(one, logits) == draw(other, logits)


def test_logit_bias_is_added_before_all_else() -> None:
    params = SamplingParams(temperature=0, logit_bias=((3, 100.0), (1, -100.0)))
    assert draw(sampler(params), logits_of(0)).token == 3
    banned = int(logits_of(0).argmax())
    params = SamplingParams(temperature=0, logit_bias=((banned, -100.0),))
    assert draw(sampler(params), logits_of(0)).token == int(logits_of(0).topk(2).indices[1])


def test_temperature_zero_takes_the_likeliest() -> None:
    for seed in range(20):
        logits = logits_of(seed)
        assert draw(sampler(SamplingParams(temperature=0)), logits).token == int(logits.argmax())


@pytest.mark.parametrize("temperature", [1e-6, 1e-4, 1e-3])
def test_a_tiny_temperature_does_not_overflow(temperature: float) -> None:
    logits = logits_of(1) * 1000
    params = SamplingParams(temperature=temperature, top_p=0.9, min_p=0.1)
    assert draw(sampler(params), logits).token == int(logits.argmax())


def test_draws_follow_the_distribution() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    drawer = Sampler(SamplingParams(seed=1), [0], 4, "cpu")
    counts = Counter(draw(drawer, probabilities.log()).token for _ in range(4000))
    for token, probability in enumerate(probabilities.tolist()):
        assert counts[token] / 4000 == pytest.approx(probability, abs=0.03)


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
        mixed.append(draw(first, logits_of(seed)).token)
        draw(second, logits_of(seed))
    assert mixed == alone


def test_a_prompt_whose_logits_are_not_numbers_gets_no_scores() -> None:
    logits = logits_of(0, size=5000).repeat(3, 1)
    for damage in (slice(7, 8), slice(3, None), slice(None)):
        logits[1, damage] = -math.inf
        with pytest.raises(HelexaError, match="not a number"):
            scores(logits, [1, 2, 3], 20)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("temperature", [0, 1])
def test_logits_that_are_not_numbers_are_refused(value: float, temperature: float) -> None:
    logits = logits_of(0)
    logits[5] = value
    with pytest.raises(HelexaError, match="not a number"):
        draw(sampler(SamplingParams(temperature=temperature)), logits)


def test_logprobs_are_the_models_own_whatever_the_sampling() -> None:
    logits = logits_of(0)
    plain = logits.double().log_softmax(-1)
    params = SamplingParams(
        temperature=0.3, top_k=5, seed=1, logit_bias=((3, 50.0),), top_logprobs=4
    )
    drawn = draw(sampler(params), logits)
    assert drawn.token == 3
    assert drawn.logprob == pytest.approx(float(plain[3]), abs=1e-5)
    assert [token for token, _ in drawn.top] == plain.topk(4).indices.tolist()
    assert [p for _, p in drawn.top] == pytest.approx(plain.topk(4).values.tolist(), abs=1e-5)


def test_equal_tokens_are_named_by_their_ids() -> None:
    (first, _) = scores(torch.tensor([[1.0, 3.0, 2.0, 3.0, 3.0]] * 2), [1, 2], 5)
    assert [token for token, _ in first[2]] == [1, 3, 4, 2, 0]


def test_logprobs_of_the_whole_vocabulary_sum_to_one() -> None:
    drawn = draw(sampler(SamplingParams(top_logprobs=VOCAB + 1)), logits_of(0).bfloat16())
    assert len(drawn.top) == VOCAB
    assert sum(math.exp(p) for _, p in drawn.top) == pytest.approx(1, abs=1e-5)


def test_logprobs_cost_nothing_unless_asked_for() -> None:
    drawn = draw(sampler(SamplingParams(seed=1)), logits_of(0))
    assert drawn == Drawn(drawn.token)
    alone = draw(sampler(SamplingParams(seed=1, top_logprobs=0)), logits_of(0))
    assert alone.token == drawn.token
    assert alone.logprob is not None
    assert alone.top == ()


def sampler(params: SamplingParams) -> Sampler:
    return Sampler(params, [1, 2], VOCAB, "cpu")


def draw(drawer: Sampler, logits: torch.Tensor) -> Drawn:
    (drawn,) = draw_all(logits[None], [drawer.row()])
    if isinstance(drawn, HelexaError):
        raise drawn
    drawer.accept(drawn.token)
    return drawn


def penalised(logits: torch.Tensor, penalties: Penalties) -> torch.Tensor:
    changed = logits[None].clone()
    penalise(changed, [penalties.after([])])
    return changed[0]


def draws(params: SamplingParams) -> list[int]:
    drawer = sampler(params)
    return [draw(drawer, logits_of(seed)).token for seed in range(20)]
