"""Windows: what counts, until when, and what is left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.accounts import windows
from helexa.accounts.amount import NOTHING, Amount, Prices, Used, prices
from helexa.accounts.windows import BALANCE, Cap, Meter, Scope, Window
from helexa.config.checks import Unfit

HOUR = Window("rolling", 3600)
LAST_HOUR = Window("sliding", 3600)
ANN = Scope("lab", "ann")


def tokens(number: int) -> Amount:
    return Amount(number)


def spent(window: Window, *charges: tuple[float, int]) -> Meter:
    """A meter after charges, each at a time."""
    meter = Meter()
    for now, number in charges:
        meter = windows.spend(meter, window, NOTHING, tokens(number), now)
    return meter


def test_a_balance_never_comes_back() -> None:
    meter = spent(BALANCE, (0, 60))
    assert windows.at(meter, BALANCE, 1e9).spent == tokens(60)
    assert windows.reset_seconds(meter, BALANCE, 1e9) is None


def test_a_rolling_window_starts_with_the_first_reservation_and_ends_whole() -> None:
    meter = windows.reserve(Meter(), HOUR, tokens(50), 100)
    assert meter.started_at == 100
    meter = windows.spend(meter, HOUR, tokens(50), tokens(40), 3600)
    assert windows.at(meter, HOUR, 3699).spent == tokens(40)
    assert windows.reset_seconds(meter, HOUR, 3699) == 1
    assert windows.at(meter, HOUR, 3700) == Meter()


def test_what_is_reserved_outlives_the_rolling_window_that_it_began_in() -> None:
    meter = windows.reserve(Meter(), HOUR, tokens(50), 0)
    assert windows.at(meter, HOUR, 4000).reserved == tokens(50)
    meter = windows.spend(meter, HOUR, tokens(50), tokens(50), 4000)
    assert (meter.started_at, meter.spent, meter.reserved) == (4000, tokens(50), NOTHING)


def test_a_sliding_window_lets_go_of_what_is_older_than_itself() -> None:
    meter = spent(LAST_HOUR, (0, 10), (1800, 20))
    assert windows.at(meter, LAST_HOUR, 3600).spent == tokens(30)
    assert windows.at(meter, LAST_HOUR, 3610).spent == tokens(20)
    assert windows.at(meter, LAST_HOUR, 5410).spent == NOTHING


def test_what_was_charged_too_much_comes_off_the_newest_slots() -> None:
    meter = spent(LAST_HOUR, (0, 10), (1800, 20), (1900, -25))
    assert meter.spent == tokens(5)
    assert windows.at(meter, LAST_HOUR, 3610).spent == NOTHING


@pytest.mark.parametrize("window", [BALANCE, HOUR, LAST_HOUR])
def test_nothing_is_ever_taken_back_that_does_not_count_any_more(window: Window) -> None:
    meter = spent(window, (0, 10), (0, -30))
    assert meter.spent == NOTHING


@pytest.mark.parametrize(
    ("window", "now", "asked", "expected"),
    [
        (BALANCE, 0, 90, None),
        (HOUR, 600, 90, 3000.0),
        (HOUR, 600, 101, None),
        (LAST_HOUR, 600, 85, 3010.0),
        (LAST_HOUR, 600, 95, 3110.0),
        (LAST_HOUR, 600, 70, 0.0),
    ],
)
def test_when_there_is_room_again(
    window: Window, now: float, asked: int, expected: float | None
) -> None:
    meter = spent(window, (0, 20), (100, 10))
    cap = Cap(ANN, window, tokens=100)
    assert windows.seconds_until_room(meter, cap, tokens(asked), now) == expected


@given(
    charges=st.lists(st.tuples(st.floats(0, 20_000), st.integers(1, 50)), max_size=30),
    asked=st.integers(1, 100),
)
def test_there_is_room_at_the_time_that_was_promised(
    charges: list[tuple[float, int]], asked: int
) -> None:
    meter, cap = spent(LAST_HOUR, *sorted(charges)), Cap(ANN, LAST_HOUR, tokens=100)
    now = max((at for at, _ in charges), default=0.0)
    meter = windows.at(meter, LAST_HOUR, now)
    seconds = windows.seconds_until_room(meter, cap, tokens(asked), now)
    assert seconds is not None
    later = windows.at(meter, LAST_HOUR, now + seconds + 1e-6)
    assert tokens(asked).fits(windows.room(later, cap))


@given(st.lists(st.tuples(st.floats(0, 20_000), st.integers(1, 50)), max_size=30))
def test_a_sliding_window_counts_everything_of_its_length_and_little_more(
    charges: list[tuple[float, int]],
) -> None:
    charges = sorted(charges)
    now = max((at for at, _ in charges), default=0.0)
    counted = windows.at(spent(LAST_HOUR, *charges), LAST_HOUR, now).spent.tokens
    within = sum(number for at, number in charges if at > now - 3600)
    little_more = sum(number for at, number in charges if at > now - 3610)
    assert within <= counted <= little_more


@pytest.mark.parametrize(("kind", "seconds"), [("balance", 5), ("rolling", 0), ("sliding", 0)])
def test_a_window_without_its_length_is_none(kind: str, seconds: int) -> None:
    with pytest.raises(Unfit):
        Window(kind, seconds)  # type: ignore[arg-type]


def test_prices_are_exact_and_never_below_the_catalogue() -> None:
    found = prices(0.15, 0.6, cache_read=0.0375)
    assert found == Prices(150_000, 600_000, 37_500, 150_000)
    assert found.of(Used(1000, 10, cached=400)).pico_usd == 600 * 150_000 + 400 * 37_500 + 6_000_000
    assert prices(0.0000001, 0).input == 1


@given(
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.builds(Prices, *[st.integers(0, 10**7)] * 4),
)
def test_nothing_costs_more_than_its_bound(
    prompt: int, cached: int, completion: int, prices: Prices
) -> None:
    used = Used(prompt + cached, completion, cached)
    assert prices.of(used).fits(prices.at_most(used.prompt, completion))
