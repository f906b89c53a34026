import pytest
from growth import in_proportion
from hypothesis import given
from hypothesis import strategies as st

from helexa.text.stops import StopMatcher

some_texts = st.text("abc", max_size=30)
some_stops = st.lists(st.text("abc", min_size=1, max_size=5), max_size=4)


def run(stops: list[str], pieces: list[str]) -> tuple[list[str], str | None]:
    matcher = StopMatcher(stops)
    told = [matcher.push(piece)[0] for piece in pieces]
    if matcher.stopped is None:
        told.append(matcher.finish())
    return told, matcher.stopped


def by_definition(stops: list[str], text: str) -> tuple[str, str | None]:
    """The text before the stop string that is complete first, the longest of several."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            longest = max(ending, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(some_stops, some_texts)
def test_the_text_ends_before_the_first_stop_string(stops: list[str], text: str) -> None:
    told, stopped = run(stops, [text])
    assert ("".join(told), stopped) == by_definition(stops, text)


@given(some_stops, st.lists(st.text("abc", max_size=4), max_size=12))
def test_how_the_text_is_cut_makes_no_difference(stops: list[str], pieces: list[str]) -> None:
    told, stopped = run(stops, pieces)
    assert ("".join(told), stopped) == by_definition(stops, "".join(pieces))


@given(some_stops, some_texts)
def test_only_what_may_begin_a_stop_string_is_held_back(stops: list[str], text: str) -> None:
    matcher = StopMatcher(stops)
    told, stopped = "", None
    for end, letter in enumerate(text, 1):
        more, stopped = matcher.push(letter)
        told += more
        if stopped is not None:
            return
        beginnings = {stop[:n] for stop in stops for n in range(1, len(stop))}
        held = max((len(b) for b in beginnings if text[:end].endswith(b)), default=0)
        assert told == text[: end - held]


def test_nothing_comes_after_a_stop_string() -> None:
    matcher = StopMatcher(["END"])
    assert matcher.push("so E") == ("so ", None)
    assert matcher.push("ND and more") == ("", "END")
    assert matcher.push("and more") == ("", "END")
    assert matcher.finish() == ""


def test_what_was_held_back_for_nothing_is_told_at_the_end() -> None:
    matcher = StopMatcher(["\n\nUser:"])
    assert matcher.push("bye\n\nUs") == ("bye", None)
    assert matcher.finish() == "\n\nUs"


@pytest.mark.parametrize("stops", [["a" * 255 + "b"], ["ab" * 128, "b" * 99], ["x"]])
def test_the_work_is_in_proportion_to_the_text(stops: list[str]) -> None:
    def match(num_letters: int) -> None:
        matcher = StopMatcher(stops)
        for _ in range(num_letters):
            matcher.push("a")

    assert in_proportion(match, 8_000)
