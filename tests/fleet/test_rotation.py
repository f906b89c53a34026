"""How long loaded models are protected, and how long failures are remembered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.errors import ServiceUnavailable
from helexa.fleet.backoff import LONGEST_SECONDS, Failure, failed
from helexa.fleet.rotation import longest_wait, protected_until, rests_until

times = st.floats(0, 1e6)


@pytest.mark.parametrize(
    ("waiting_since", "asked_at", "serving_since", "until"),
    [
        (100, 0, 10, 120),  # long there: protected from when somebody began to wait
        (100, 90, 150, 170),  # its turn began while the other waited already: a whole turn
        (100, 110, 150, 120),  # asked for later, found room: no longer than before
    ],
)
def test_a_model_is_protected_for_one_turn(
    waiting_since: float, asked_at: float, serving_since: float, until: float
) -> None:
    assert protected_until(waiting_since, asked_at, serving_since, 20) == until


@given(times, times, times, times)
def test_who_was_asked_for_later_never_makes_anybody_wait_longer(
    waiting_since: float, later: float, serving_since: float, turn: float
) -> None:
    asked_at = waiting_since + 1 + later
    assert protected_until(waiting_since, asked_at, serving_since, turn) == waiting_since + turn


@given(times, times, times, st.booleans())
def test_an_idle_model_never_stays_beyond_its_turn(
    last_used: float, reload_seconds: float, until: float, came_back: bool
) -> None:
    assert rests_until(last_used, reload_seconds, until, came_back) <= max(until, last_used)


def test_an_idle_model_leaves_at_once_unless_two_go_to_and_fro() -> None:
    assert rests_until(50, 30, 100, came_back=False) == 50
    assert rests_until(50, 30, 100, came_back=True) == 80
    assert rests_until(50, 30, 60, came_back=True) == 60


def test_the_bound_counts_a_turn_for_each_other_model() -> None:
    assert longest_wait(1, 20, 5, 10, 6) == 16
    assert longest_wait(3, 20, 5, 10, 6) == 2 * (20 + 10 + 6) + 16
    assert longest_wait(2, 20, 50, 10, 6) == 50 + 10 + 6 + 16


def test_each_failure_doubles_the_rest() -> None:
    failure: Failure | None = None
    rests = []
    for _ in range(9):
        failure = failed(failure, ServiceUnavailable("torn"), 100)
        rests.append(failure.rest(100))
    assert rests == [5, 10, 20, 40, 80, 160, 300, 300, 300]


@given(st.integers(1, 10**6), times)
def test_no_rest_is_longer_than_the_longest(count: int, now: float) -> None:
    before = Failure(ServiceUnavailable("torn"), count, now)
    assert failed(before, ServiceUnavailable("torn"), now).rest(now) <= LONGEST_SECONDS * 1.001
