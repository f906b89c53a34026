"""What is learnt of how long steps take, from steps of made-up lengths."""

import pytest

from helexa.average import smoothed
from helexa.engine.draft import MOST_DRAFTED, worth
from helexa.engine.pace import LEAST_COST, Pace
from helexa.engine.scheduler import Chunk


def decodes(count: int, drafted: int = 0) -> list[Chunk]:
    """So many sequences that decode; the first has a draft."""
    chunks = [Chunk(uid, 10, 1, True) for uid in range(count)]
    return [Chunk(0, 10, 1 + drafted, True, drafted=drafted), *chunks[1:]]


def text(count: int) -> Chunk:
    return Chunk(99, 0, count, False)


def test_an_average_forgets_and_begins_with_what_comes_first() -> None:
    assert smoothed(None, 5.0) == 5.0
    assert smoothed(10.0, 20.0) == 13.0
    assert smoothed(0.5, True, weight=0.1) == 0.55


def test_nothing_is_known_at_first() -> None:
    pace = Pace()
    assert (pace.step, pace.token, pace.cost(1)) == (None, None, None)


def test_a_step_that_only_decodes_is_measured_with_drafts_or_without() -> None:
    pace = Pace()
    pace.measure(decodes(3), 0.010)
    pace.measure(decodes(3, drafted=4), 0.020)
    assert pace.step == pytest.approx(0.013)
    assert pace.token is None


def test_a_token_of_text_takes_what_a_step_takes_longer() -> None:
    pace = Pace()
    pace.measure([text(100)], 0.1)
    assert pace.token == pytest.approx(0.001)
    pace.measure(decodes(2), 0.05)
    pace.measure([*decodes(2, drafted=3), text(100)], 0.25)
    assert pace.token == pytest.approx(0.7 * 0.001 + 0.3 * 0.002)
    pace.measure([text(8)], 9.0)  # the overhead of a step
    assert pace.token == pytest.approx(0.7 * 0.001 + 0.3 * 0.002)


def test_a_draft_costs_what_its_step_takes_longer_than_one_of_as_many_without() -> None:
    pace = Pace()
    pace.measure(decodes(1), 0.010)
    pace.measure(decodes(4), 0.020)
    assert pace.cost(1) == LEAST_COST  # tried, as nothing is known
    pace.measure(decodes(1, drafted=5), 0.015)
    assert pace.cost(1) == pytest.approx(0.1)
    assert pace.cost(4) == LEAST_COST
    pace.measure(decodes(4, drafted=2), 0.030)
    assert pace.cost(4) == pytest.approx(0.25)
    assert pace.cost(1) == pytest.approx(0.1)


def test_without_a_step_to_compare_with_nothing_is_learnt() -> None:
    pace = Pace()
    pace.measure(decodes(2, drafted=5), 0.015)
    assert pace.cost(2) is None


@pytest.mark.parametrize("seconds", [0.001, 0.010, 60.0])
def test_a_cost_is_never_below_what_can_be_told_nor_above_a_step(seconds: float) -> None:
    pace = Pace()
    pace.measure(decodes(1), 0.010)
    pace.measure(decodes(1, drafted=1), seconds)
    assert pace.cost(1) == (1.0 if seconds > 1 else LEAST_COST)


def test_a_cost_that_keeps_drafts_off_is_forgotten_in_time() -> None:
    pace = Pace()
    pace.measure(decodes(1), 0.010)
    pace.measure(decodes(1, drafted=1), 60.0)  # the machine did something else
    steps = 0
    while not worth(0.8, pace.cost(1), 1, MOST_DRAFTED):
        pace.measure(decodes(1), 0.010)
        steps += 1
    assert 20 < steps < 500


def test_drafts_are_on_for_one_stream_and_off_for_many_where_rows_cost() -> None:
    """A packed layer's time grows with its rows: 10 ms for one stream, 2 ms for each row more."""
    pace = Pace()
    for decoding in (1, 8):
        plain = 0.008 + 0.002 * decoding
        pace.measure(decodes(decoding), plain)
        pace.measure(decodes(decoding, drafted=4), plain + 4 * 0.002)
    assert worth(0.9, pace.cost(1), 1, MOST_DRAFTED) >= 3
    assert worth(0.6, pace.cost(8), 8, MOST_DRAFTED) == 0
