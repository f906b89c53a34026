"""Sequences that draw together draw what each draws alone."""

import math

import pytest
import torch
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from helexa.engine import sampler
from helexa.engine.form import Masks
from helexa.engine.orders import SamplingParams
from helexa.engine.sampler import Drawn, Sampler, draw_all
from helexa.errors import HelexaError

VOCAB = 700
STEPS = 4


@frozen
class Row:
    """A sequence: what it asks for, its logits' seed and spread, and how it is held to a form."""

    params: SamplingParams
    seed: int
    spread: float
    form: str

    def sampler(self) -> Sampler:
        return Sampler(self.params, [1, 2, self.seed % VOCAB], VOCAB, "cpu")

    def logits(self, step: int) -> torch.Tensor:
        return torch.randn(VOCAB, generator=generator(self.seed + step)) * self.spread

    def masks(self, step: int) -> Masks | None:
        allowed = torch.rand(VOCAB, generator=generator(self.seed - step)) < 0.3
        allowed[[7, 8]] = True
        closing = allowed & (torch.arange(VOCAB) < 350)
        return {
            "free": None,
            "held": Masks(allowed),
            "closing": Masks(allowed, closing),
            "closed": Masks(allowed, allowed),
        }[self.form]


def draw_step(
    logits: torch.Tensor, samplers: list[Sampler], masks: list[Masks | None]
) -> list[Drawn | HelexaError]:
    """What they draw; they go on with it."""
    together = [own.row(mask) for own, mask in zip(samplers, masks, strict=True)]
    drawn = draw_all(logits, together)
    for own, one in zip(samplers, drawn, strict=True):
        if isinstance(one, Drawn):
            own.accept(one.token)
    return drawn


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    params = SamplingParams(
        temperature=draw(st.sampled_from([0.0, 0.3, 1.0, 1.7])),
        top_k=draw(st.sampled_from([0, 0, 1, 5, 300, VOCAB])),
        top_p=draw(st.sampled_from([1.0, 1.0, 0.2, 0.9, 0.999])),
        min_p=draw(st.sampled_from([0.0, 0.0, 0.05])),
        repetition_penalty=draw(st.sampled_from([1.0, 1.0, 1.3])),
        frequency_penalty=draw(st.sampled_from([0.0, 0.0, 0.7])),
        presence_penalty=draw(st.sampled_from([0.0, 0.0, 0.4])),
        logit_bias=draw(st.sampled_from([(), (), ((9, 4.0), (1, -100.0))])),
        seed=draw(st.integers(-5, 5)),
        top_logprobs=draw(st.sampled_from([None, None, 0, 1, 5, 20])),
    )
    form = draw(st.sampled_from(["free", "free", "held", "closing", "closed"]))
    return Row(params, draw(st.integers(100, 2**32)), draw(st.sampled_from([0.3, 3.0, 12.0])), form)


def texts(together: list[Row], dtype: torch.dtype) -> list[list[Drawn | HelexaError]]:
    """What each of the rows draws in some steps."""
    samplers = [row.sampler() for row in together]
    steps = [
        draw_step(
            torch.stack([row.logits(step) for row in together]).to(dtype),
            samplers,
            [row.masks(step) for row in together],
        )
        for step in range(STEPS)
    ]
    return [list(text) for text in zip(*steps, strict=True)]


@settings(max_examples=40)
@given(
    st.lists(rows(), min_size=1, max_size=6),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_a_row_of_a_batch_is_the_row_alone(together: list[Row], dtype: torch.dtype) -> None:
    assert texts(together, dtype) == [texts([row], dtype)[0] for row in together]


@settings(max_examples=20)
@given(st.lists(rows(), min_size=1, max_size=6))
def test_what_is_drawn_is_allowed_and_closes_what_is_to_be_closed(together: list[Row]) -> None:
    for row, text in zip(together, texts(together, torch.float32), strict=True):
        for step, drawn in enumerate(text):
            assert isinstance(drawn, Drawn)
            masks = row.masks(step)
            assert masks is None or masks.allowed[drawn.token]
            if masks is None or masks.closing is None:
                assert not drawn.redrawn
            else:
                assert masks.closing[drawn.token]


@settings(max_examples=20)
@given(st.lists(rows(), min_size=2, max_size=6), st.data())
def test_a_row_that_is_not_finite_fails_alone(together: list[Row], data: st.DataObject) -> None:
    bad = data.draw(st.sets(st.integers(0, len(together) - 1), min_size=1))
    value = data.draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    masks = [row.masks(0) for row in together]
    logits = torch.stack([row.logits(0) for row in together])
    expected = draw_step(logits, [row.sampler() for row in together], masks)
    logits[list(bad), 5] = value
    for row, drawn in enumerate(draw_step(logits, [row.sampler() for row in together], masks)):
        if row in bad:
            assert isinstance(drawn, HelexaError)
            assert "not a number" in drawn.message
        else:
            assert drawn == expected[row]


def test_logits_that_are_nothing_but_nan_fail_every_kind_of_row() -> None:
    kinds = [{"temperature": 0.0}, {}, {"top_p": 0.9}, {"top_k": 3}, {"min_p": 0.1}]
    samplers = [Sampler(SamplingParams(**kind), [1], VOCAB, "cpu") for kind in kinds]
    logits = torch.full((len(kinds), VOCAB), torch.nan)
    drawn = draw_all(logits, [own.row() for own in samplers])
    assert all(isinstance(one, HelexaError) for one in drawn)


def test_only_the_row_that_leaves_open_what_it_should_close_is_redrawn() -> None:
    params = SamplingParams(temperature=0)
    logits = torch.zeros(4, VOCAB)
    logits[:, 600] = 3
    logits[:, 10] = 2
    allowed = torch.ones(VOCAB, dtype=torch.bool)
    low = torch.arange(VOCAB) < 350
    masks = [None, Masks(allowed, low), Masks(allowed), Masks(allowed, ~low)]
    samplers = [Sampler(params, [1], VOCAB, "cpu") for _ in masks]
    assert draw_step(logits, samplers, masks) == [
        Drawn(600),
        Drawn(10, redrawn=True),
        Drawn(600),
        Drawn(600),
    ]


def test_many_rows_are_drawn_in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    together = [
        Row(SamplingParams(temperature=i % 3 / 2, top_p=0.5 + i % 2 / 2, seed=i), 50 + i, 3, "free")
        for i in range(12)
    ]
    expected = texts(together, torch.float32)
    monkeypatch.setattr(sampler, "CACHED_BYTES", 4 * VOCAB * 5)
    assert texts(together, torch.float32) == expected


def test_a_batch_of_none_draws_nothing() -> None:
    assert draw_all(torch.zeros(0, VOCAB), []) == []


def test_the_logits_are_left_as_they_were() -> None:
    params = SamplingParams(logit_bias=((3, 5.0),), repetition_penalty=2, presence_penalty=1)
    logits = torch.randn(2, VOCAB, generator=generator(1))
    before = logits.clone()
    masks = Masks(torch.arange(VOCAB) < 5)
    draw_step(logits, [Sampler(params, [1], VOCAB, "cpu") for _ in range(2)], [None, masks])
    assert torch.equal(logits, before)


def test_a_failure_leaves_every_sampler_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "CACHED_BYTES", 4 * VOCAB)  # a row is a part
    logits = torch.randn(3, VOCAB, generator=generator(1))
    params = SamplingParams(seed=1, repetition_penalty=1.2)
    samplers = [Sampler(params, [1], VOCAB, "cpu") for _ in range(3)]
    others = [Sampler(params, [1], VOCAB, "cpu") for _ in range(3)]
    expected = draw_step(logits, others, [None] * 3)
    with pytest.raises(RuntimeError, match="size"):
        draw_step(logits, samplers, [None, None, Masks(torch.ones(VOCAB + 1, dtype=torch.bool))])
    assert draw_step(logits, samplers, [None] * 3) == expected


def test_a_mask_bounds_what_is_drawn_and_leaves_the_rest_as_likely() -> None:
    logits = torch.tensor([[9.0, 1.0, 2.0, 8.0]])
    masks = [Masks(torch.tensor([False, True, True, False]))]
    samplers = [Sampler(SamplingParams(seed=1), [0], 4, "cpu")]
    drawn = [draw_step(logits, samplers, masks)[0] for _ in range(2000)]
    tokens = [one.token for one in drawn if isinstance(one, Drawn)]
    assert set(tokens) == {1, 2}
    assert tokens.count(2) / 2000 == pytest.approx(0.731, abs=0.04)


def test_draws_follow_the_distribution_of_each_row() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.1, 0.1, 0.1, 0.7]]).log()
    samplers = [
        Sampler(SamplingParams(seed=1), [0], 4, "cpu"),
        Sampler(SamplingParams(seed=2, min_p=0.01), [0], 4, "cpu"),
    ]
    drawn = [draw_step(logits, samplers, [None, None]) for _ in range(1500)]
    for row, expected in enumerate(logits.exp()):
        tokens = [step[row].token for step in drawn if isinstance(step[row], Drawn)]
        counts = torch.bincount(torch.tensor(tokens), minlength=4) / len(tokens)
        assert torch.allclose(counts, expected, atol=0.04)
