"""The breaker of a node: opened by what requests and looks meet, closed by one that works."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.fleet.breaker import (
    MOST_OUTCOMES,
    RULES,
    Breaker,
    Record,
    Rules,
    allows,
    failed,
    looked,
    sent,
    succeeded,
    unsettled,
)


def fail(breaker: Breaker, now: float, times: int = 1) -> Breaker:
    for _ in range(times):
        breaker = failed(sent(breaker, now), now, now)
    return breaker


def succeed(breaker: Breaker, now: float, times: int = 1) -> Breaker:
    for _ in range(times):
        breaker = succeeded(sent(breaker, now), now, now)
    return breaker


OPEN = fail(Breaker(), 0.0, RULES.failures)


def test_failures_in_a_row_open_it() -> None:
    almost = fail(Breaker(), 0.0, RULES.failures - 1)
    assert (almost.state, allows(almost, 0.0)) == ("closed", True)
    assert (OPEN.state, allows(OPEN, 0.0)) == ("open", False)


def test_a_success_in_between_starts_the_row_anew() -> None:
    breaker = succeed(fail(Breaker(), 0.0, RULES.failures - 1), 0.0)
    assert fail(breaker, 0.0, RULES.failures - 1).state == "closed"


def test_a_share_of_failures_opens_it_once_there_are_enough_of_them() -> None:
    breaker = Breaker()
    for _ in range(RULES.least // 2 - 1):
        breaker = fail(succeed(breaker, 0.0), 0.0)
    assert breaker.state == "closed"
    assert fail(succeed(breaker, 0.0), 0.0).state == "open"


def test_what_is_long_past_does_not_count_as_a_share() -> None:
    breaker = Breaker()
    for at in range(200):
        breaker = succeed(breaker, at * RULES.window_seconds / 2)
        breaker = fail(breaker, at * RULES.window_seconds / 2)
    assert breaker.state == "closed"


def test_after_its_time_one_request_goes_there_and_decides() -> None:
    assert not allows(OPEN, RULES.first_seconds - 0.001)
    assert allows(OPEN, RULES.first_seconds)
    probing = sent(OPEN, 2.0)
    assert (probing.state, allows(probing, 2.0)) == ("half-open", False)
    assert succeeded(probing, 2.0, 3.0).state == "closed"
    assert failed(probing, 2.0, 3.0).state == "open"


def test_it_is_open_for_longer_each_time_its_probe_fails() -> None:
    breaker, waits = OPEN, []
    for _ in range(8):
        now = breaker.retry_at
        breaker = fail(breaker, now)
        waits.append(breaker.retry_at - now)
    assert waits == [4, 8, 16, 32, 60, 60, 60, 60]


def test_a_probe_that_tells_nothing_lets_another_one_through() -> None:
    probing = sent(OPEN, 2.0)
    assert not allows(probing, 2.0 + RULES.probe_seconds - 0.1)
    again = sent(probing, 2.0 + RULES.probe_seconds)
    assert not allows(again, 2.0 + RULES.probe_seconds)
    assert succeeded(again, 2.0, 20.0).state == "closed"  # the first one ends well after all


def test_a_client_that_leaves_with_the_probe_lets_the_next_request_be_it() -> None:
    left = unsettled(sent(OPEN, 2.0), 2.0)
    assert (left.state, allows(left, 2.0)) == ("half-open", True)
    assert unsettled(Breaker(), 0.0) == Breaker()


@pytest.mark.parametrize("end", [succeeded, failed])
def test_what_was_sent_before_it_opened_tells_nothing_new(
    end: Callable[[Breaker, float, float], Breaker],
) -> None:
    assert end(OPEN, -1.0, 1.0) == OPEN
    probing = sent(OPEN, 2.0)
    assert end(probing, -1.0, 3.0) == probing


def test_a_node_that_is_looked_at_well_may_yet_fail_every_request() -> None:
    breaker = Breaker()
    for at in range(RULES.failures):
        breaker = looked(fail(breaker, at), True, at)
    assert breaker.state == "open"
    assert looked(breaker, True, 100.0) == breaker


def test_looks_that_fail_open_it_and_one_that_works_closes_it_at_once() -> None:
    breaker = Breaker()
    for at in range(RULES.failures):
        breaker = looked(breaker, False, float(at))
    assert breaker.state == "open"
    assert looked(breaker, False, 50.0) == breaker
    assert looked(breaker, True, 50.0).state == "closed"


def test_a_node_that_comes_and_goes_is_left_alone_for_longer_and_longer() -> None:
    breaker, shut = Breaker(), []
    for at in range(400):
        before = breaker.state
        breaker = looked(breaker, at % 2 == 0, float(at))
        if (before, breaker.state) == ("closed", "open"):
            shut.append(breaker.retry_at - at)
    assert shut[:6] == [2, 4, 8, 16, 32, 60]


def test_a_node_that_is_well_for_a_while_begins_anew() -> None:
    breaker = succeed(OPEN, 2.0)
    assert breaker.opened == 1
    assert succeed(breaker, 3.0).opened == 0


Step = tuple[str, float]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ok", "fail", "leave", "look", "no look"]), st.floats(0.0, 40.0)
    ),
    max_size=300,
)


def after(steps: list[Step], rules: Rules = RULES) -> tuple[Breaker, float]:
    """A breaker after requests and looks, of which each comes some seconds after the one before."""
    breaker, now, on_their_way = Breaker(), 0.0, []
    for what, seconds in steps:
        now += seconds
        match what:
            case "ask" if allows(breaker, now, rules):
                breaker = sent(breaker, now)
                on_their_way.append(now)
            case "ok" if on_their_way:
                breaker = succeeded(breaker, on_their_way.pop(0), now, rules)
            case "fail" if on_their_way:
                breaker = failed(breaker, on_their_way.pop(0), now, rules)
            case "leave" if on_their_way:
                breaker = unsettled(breaker, on_their_way.pop(0))
            case "look" | "no look":
                breaker = looked(breaker, what == "look", now, rules)
    return breaker, now


@given(STEPS)
def test_no_node_is_shut_out_for_ever(steps: list[Step]) -> None:
    breaker, now = after(steps)
    assert allows(breaker, now + max(RULES.longest_seconds, RULES.probe_seconds))


@given(STEPS)
def test_what_is_remembered_is_bounded(steps: list[Step]) -> None:
    breaker, _ = after([(what, 0.0) for what, _ in steps] * 3)
    assert len(breaker.requests.outcomes) <= MOST_OUTCOMES
    assert len(breaker.looks.outcomes) <= MOST_OUTCOMES


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 1.0)), max_size=400))
def test_a_record_counts_what_went_wrong_of_what_it_remembers(
    ends: list[tuple[bool, float]],
) -> None:
    record, all_of_them, now = Record(), [], 0.0
    for ok, seconds in ends:
        now += seconds
        record = record.after(ok, now, RULES)
        all_of_them.append((now, ok))
    recent = [one for one in all_of_them if one[0] > now - RULES.window_seconds]
    assert record.outcomes == tuple(recent[-MOST_OUTCOMES:])
    assert record.num_failed == [ok for _, ok in record.outcomes].count(False)


@given(STEPS)
def test_of_a_breaker_that_is_not_closed_one_request_goes_through_at_a_time(
    steps: list[Step],
) -> None:
    breaker, now = after(steps)
    later = max(now, breaker.retry_at)
    if breaker.state != "closed" and allows(breaker, later):
        assert not allows(sent(breaker, later), later)


@given(STEPS.filter(lambda steps: not {"fail", "no look"} & {what for what, _ in steps}))
def test_without_failures_it_stays_closed(steps: list[Step]) -> None:
    assert after(steps)[0].state == "closed"
