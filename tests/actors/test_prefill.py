"""How far the prompts of one request are told to be read."""

from hypothesis import given
from hypothesis import strategies as st

from helexa.actors.prefill import Prefill
from helexa.engine.orders import PrefillProgress


def told(done: int, cached: int = 0) -> PrefillProgress:
    return PrefillProgress(1, done, 1000, cached)


notices = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 100), st.integers(0, 100)))


@given(notices)
def test_whatever_the_device_says_a_prompt_counts_once_and_never_goes_back(
    notices: list[tuple[int, int, int]],
) -> None:
    prefill, before = Prefill([100, 100], n=3), 0
    for at, (number, done, cached) in enumerate(notices):
        prefill.moved(number, told(max(done, cached), cached), float(at))
        assert before <= prefill.done <= prefill.total == 200
        assert prefill.cached <= prefill.done
        before = prefill.done


def test_a_sample_is_what_the_first_sequence_computed_after_its_first_notice() -> None:
    prefill = Prefill([1000], n=2)
    assert prefill.sample == (0, 0.0)
    prefill.moved(0, told(300, cached=200), 5.0)
    assert prefill.sample == (0, 0.0)
    prefill.moved(0, told(700, cached=200), 6.0)
    prefill.moved(1, told(1000, cached=999), 9.0)
    prefill.moved(0, told(1000, cached=200), 7.0)
    assert prefill.sample == (700, 2.0)


def test_a_sequence_that_gave_way_to_others_is_no_sample() -> None:
    prefill = Prefill([1000], n=1)
    for at, done in enumerate((300, 600, 300, 1000)):
        prefill.moved(0, told(done), float(at))
    assert prefill.done == 1000
    assert prefill.sample == (0, 0.0)
