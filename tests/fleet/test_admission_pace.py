"""What requests take, and how long one that comes now would wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.fleet.pace import FIRST_GUESS_SECONDS, Demand, Pace

seconds = st.floats(0.01, 600)


def measured(*times: float, answer_tokens: float = 100) -> Pace:
    pace = Pace()
    for each in times:
        pace = pace.after(each, answer_tokens)
    return pace


def test_the_first_measurement_replaces_the_guess() -> None:
    assert Pace().seconds == FIRST_GUESS_SECONDS
    assert (measured(40.0).seconds, measured(40.0).answer_tokens) == (40.0, 100.0)


def test_the_average_follows_what_is_measured() -> None:
    assert measured(*[2.0] * 10, *[30.0] * 60).seconds == pytest.approx(30, rel=0.01)


def test_a_free_slot_is_no_wait() -> None:
    assert measured(4.0).wait(2, [1.0], ahead=0, slots=1) == 0
    assert measured(4.0).wait(3, [1.0], ahead=1, slots=1) == 0


def test_the_next_slot_is_free_when_its_request_has_taken_the_usual_time() -> None:
    assert measured(10.0, 10.0).wait(2, [3.0, 8.0], ahead=0, slots=1) == pytest.approx(2)
    assert measured(10.0, 10.0).wait(2, [3.0, 8.0], ahead=0, slots=2) == pytest.approx(7)


def test_those_who_go_first_take_the_slots_again_and_again() -> None:
    waits = [measured(10.0).wait(2, [3.0, 8.0], ahead, slots=1) for ahead in range(5)]
    assert waits == pytest.approx([2, 7, 12, 17, 22])


def test_a_free_slot_that_somebody_goes_first_into_is_free_after_the_usual_time() -> None:
    waits = [measured(10.0).wait(2, [3.0], ahead, slots=1) for ahead in range(4)]
    assert waits == pytest.approx([0, 7, 10, 17])


def test_times_that_differ_make_the_wait_longer_than_on_average() -> None:
    even, uneven = measured(4.0, 4.0, 4.0, 4.0), measured(1.0, 7.0, 1.0, 7.0)
    assert uneven.wait(1, [0.0], 3, 1) > even.wait(1, [0.0], 3, 1)


def test_a_request_that_takes_unusually_long_may_take_longer_still() -> None:
    assert measured(1.0, 7.0).wait(1, [60.0], 0, 1) > 3


@given(st.lists(seconds, min_size=1, max_size=30), st.lists(seconds), st.integers(0, 100))
def test_a_wait_is_finite_never_negative_and_grows_with_those_ahead(
    times: list[float], elapsed: list[float], ahead: int
) -> None:
    pace, width = measured(*times), max(1, len(elapsed))
    wait = pace.wait(width, elapsed, ahead, 1)
    assert 0 <= wait <= pace.wait(width, elapsed, ahead + width, 1) < 1e6


def test_a_request_costs_its_prompt_and_answers_as_long_as_they_usually_are() -> None:
    pace = measured(1.0, answer_tokens=50)
    assert pace.cost(Demand(1000, answers=3, max_answer_tokens=32_000)) == 1150
    assert pace.cost(Demand(1000, answers=3, max_answer_tokens=10)) == 1030
    assert pace.cost(Demand(0, answers=1, max_answer_tokens=0)) == 1
