"""Context limits as arithmetic: the worked values, each term alone, and laws that hold for all of them."""

import math

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from helexa.engine.kv.spans import BLOCK
from helexa.fleet.limits import (
    FIRST_PREFILL_RATE,
    Limit,
    PrefillRate,
    Terms,
    Windows,
    clamp_output,
    kv_elements,
    pool_tokens,
    settled,
    windows_beside,
)

FULL_LAYERS, KV_HEADS, HEAD_DIM, BYTES = 16, 4, 256, 2


def worked(tensor_parallel: int) -> Terms:
    """A large model on cards with 9254 MB free each, with the full reserves, that reads 850 tokens/s."""
    return Terms(
        262_144,
        prefill_limit_seconds=120,
        kv_bytes_per_token=FULL_LAYERS * BYTES * kv_elements(KV_HEADS, HEAD_DIM, tensor_parallel),
        free_mb=9254,
        spare_mb=2048 + 1500,
        prefill_rate=PrefillRate(850.0, measured=True),
    )


def test_the_worked_values_come_out() -> None:
    one, two = worked(1), worked(2)
    assert (one.kv_bytes_per_token, two.kv_bytes_per_token) == (65_536, 32_768)
    assert two.limit == Limit(101_376, 93_184, 8192)
    assert two.binds == "prefill"
    assert one.limit == Limit(91_136, 82_944, 8192)
    assert one.binds == "memory"


def test_more_cards_than_heads_keep_one_head_each() -> None:
    assert kv_elements(4, 256, 8) == kv_elements(4, 256, 4) == 2 * 256


@pytest.mark.parametrize(
    ("change", "context", "binds"),
    [
        ({}, 101_376, "prefill"),
        ({"positions": 32_768}, 32_768, "positions"),
        ({"max_context": 10_000}, 10_000, "max_context"),
        ({"kv_budget_mb": 1000}, 31_744, "kv_budget"),
        ({"free_mb": 4000}, 14_336, "memory"),
        ({"free_mb": 0}, 101_376, "prefill"),
        ({"free_mb": 0, "prefill_rate": None}, 262_144, "positions"),
        ({"prefill_limit_seconds": 0.0}, 182_272, "memory"),
        ({"prefill_rate": PrefillRate()}, 95_232, "prefill"),
        ({"max_prompt_tokens": 5000}, 13_192, "max_prompt_tokens"),
        ({"max_prompt_tokens": 200_000}, 101_376, "prefill"),
    ],
)
def test_the_tightest_term_binds(change: dict[str, object], context: int, binds: str) -> None:
    terms = evolve(worked(2), **change)
    assert (terms.limit.context, terms.binds) == (context, binds)


@pytest.mark.parametrize(
    ("positions", "limit"),
    [
        (131_072, Limit(131_072, 122_880, 8192)),
        (32_768, Limit(32_768, 24_576, 8192)),
        (8192, Limit(8192, 6144, 2048)),
        (1000, Limit(1000, 750, 250)),
        (64, Limit(64, 48, 16)),
        (2, Limit(2, 1, 1)),
        (1, Limit(1, 1, 0)),
    ],
)
def test_a_small_window_leaves_most_of_it_to_the_prompt(positions: int, limit: Limit) -> None:
    assert Terms(positions).limit == limit


def test_what_the_operator_keeps_for_the_answer_gives_way_where_memory_is_short() -> None:
    stated = Terms(32_768, output_reserve=16_000, kv_bytes_per_token=1024, spare_mb=100)
    assert stated.limit == Limit(32_768, 16_768, 16_000)
    assert evolve(stated, free_mb=108).limit == Limit(8192, 4096, 4096)


def test_windows_of_sliding_layers_are_counted_once_for_each_sequence() -> None:
    terms = Terms(100_000, kv_bytes_per_token=1024, kv_window_bytes=10 << 20, free_mb=100)
    assert terms.memory == 90 * 1024
    together = evolve(terms, sequences=6)
    assert together.memory == together.limit.context == pool_tokens(together, 4) == 40 * 1024
    assert windows_beside(together, 40 * 1024, 4, 2) == Windows(4, 20 << 20)
    only_windows = evolve(terms, kv_bytes_per_token=0)
    assert only_windows.memory is None
    assert only_windows.limit.context == 100_000


def test_the_shortest_context_comes_before_windows_and_sequences_before_snapshots() -> None:
    terms = Terms(100_000, kv_bytes_per_token=1024, kv_window_bytes=10 << 20, sequences=16)
    for free_mb, tokens, windows in [
        (500, 340 * 1024, Windows(8, 80 << 20)),  # snapshots get the rest beside a longer context
        (100, 10 * 1024, Windows(8, 10 << 20)),
        (40, 10 * 1024, Windows(3, 0)),
        (15, 5 * 1024, Windows(1, 0)),
        (12, 2 * 1024, Windows(1, 0)),
    ]:
        some = evolve(terms, free_mb=free_mb)
        assert some.memory == tokens
        assert windows_beside(some, pool_tokens(some, 8), 8, 8) == windows


def test_without_windows_or_a_bound_nothing_is_taken_from_sequences_and_snapshots() -> None:
    assert windows_beside(Terms(1000), 1000, 8, 8) == Windows(8, None)
    assert windows_beside(Terms(1000, kv_window_bytes=100), 1000, 8, 8) == Windows(8, 800)


def test_a_device_without_room_leaves_the_least_limit_there_is() -> None:
    assert evolve(worked(1), free_mb=100).limit == Limit(1, 1, 0)


@st.composite
def some_terms(draw: st.DrawFn) -> Terms:
    count, size = st.integers(0, 300_000), st.integers(0, 40_000)
    rate = st.builds(PrefillRate, st.floats(0.1, 20_000), st.booleans())
    return Terms(
        draw(st.integers(1, 300_000)),
        draw(count),
        draw(count),
        draw(count),
        draw(size),
        draw(st.floats(0, 600)),
        draw(st.integers(0, 200_000)),
        draw(st.integers(0, 1 << 26)),
        draw(size),
        draw(size),
        draw(size),
        draw(st.none() | rate),
        sequences=draw(st.integers(1, 80)),
    )


@given(some_terms())
def test_every_limit_adds_up_and_leaves_room_for_a_prompt(terms: Terms) -> None:
    limit = terms.limit
    assert limit.context == limit.input + limit.output
    assert limit.input >= 1
    assert limit.output >= (limit.context > 1)
    assert limit.context <= min(terms.bounds.values()) or limit.context == 1
    assert terms.binds in {*terms.bounds, "max_prompt_tokens"}


@given(some_terms(), st.integers(1, 64))
def test_the_pool_holds_what_is_promised_and_no_more_than_can_be_used(
    terms: Terms, batch_width: int
) -> None:
    tokens = pool_tokens(terms, batch_width)
    if not terms.kv_bytes_per_token:
        assert tokens == 0
        return
    one = rounded_to_blocks(terms.limit.context)
    assert one <= tokens <= batch_width * one
    assert tokens % BLOCK == 0
    windows = windows_beside(terms, tokens, batch_width, max_snapshots=8)
    assert 1 <= windows.batch_width <= batch_width
    if terms.kv_mb is None or tokens == one:
        return
    whole = tokens * terms.kv_bytes_per_token + windows.batch_width * terms.kv_window_bytes
    assert whole + (windows.snapshot_bytes or 0) <= terms.kv_mb << 20


def rounded_to_blocks(tokens: int) -> int:
    return math.ceil(tokens / BLOCK) * BLOCK


def test_the_least_that_a_load_needs_is_4096_tokens_or_the_whole_window() -> None:
    assert worked(1).least_tokens == 4096
    assert evolve(worked(1), free_mb=3600).least_tokens == 4096
    assert Terms(512).least_tokens == 512
    assert Terms(8192, max_context=2000).least_tokens == 2000


# -- the rate --------------------------------------------------------------------------------------


def test_a_rate_is_a_guess_until_the_first_sample_and_forgets_slowly_from_then_on() -> None:
    rate = PrefillRate()
    assert (rate.tokens_per_second, rate.measured) == (FIRST_PREFILL_RATE, False)
    rate = rate.after(1000, 10)
    assert rate == PrefillRate(100, measured=True)
    assert rate.after(2000, 10) == PrefillRate(130, measured=True)


@pytest.mark.parametrize(
    ("tokens", "seconds"), [(0, 1.0), (127, 1.0), (500, 0.0), (500, -1.0), (500, math.inf)]
)
def test_a_sample_that_says_nothing_is_ignored(tokens: int, seconds: float) -> None:
    assert PrefillRate().after(tokens, seconds) == PrefillRate()


# -- estimates and answers -------------------------------------------------------------------------


def test_an_estimate_stays_where_it_is_until_it_changed_for_good() -> None:
    last = worked(1)
    near, far = evolve(last, free_mb=9000), evolve(last, free_mb=7000)
    assert settled(None, near) == near
    assert settled(last, near) == last
    same = evolve(last, free_mb=9255)
    assert settled(last, same) == same
    assert settled(last, far) == far
    told = evolve(near, max_context=90_000)
    assert settled(last, told) == told


@pytest.mark.parametrize(
    ("asked", "prompt", "given_"),
    [(None, 100, 2048), (None, 7000, 1192), (32_000, 6144, 2048), (5, 100, 5), (5, 9000, 1)],
)
def test_an_answer_gets_what_is_left_of_the_window(
    asked: int | None, prompt: int, given_: int
) -> None:
    assert clamp_output(asked, prompt, Terms(8192).limit) == given_
