"""What is guessed and when it is worth computing, without a model."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helexa.engine import draft
from helexa.engine.draft import FIRST_CHANCE, LENGTHS, MOST_DRAFTED, Drafter, Lookup, Match, worth

texts = st.lists(st.integers(0, 3), max_size=60)


def naive(tokens: list[int], length: int) -> int | None:
    """The place behind the last earlier standing of the n-gram at the end."""
    gram = tokens[-length:]
    if len(gram) < length:
        return None
    places = [
        place for place in range(length, len(tokens)) if tokens[place - length : place] == gram
    ]
    return max(places, default=None)


@given(texts, st.integers(1, 200))
def test_what_is_found_is_what_a_search_finds_unless_it_was_driven_out(
    tokens: list[int], most: int
) -> None:
    lookup = Lookup(tokens, most)
    found = lookup.find()
    for length in LENGTHS:
        place = naive(tokens, length)
        if found is not None and found.length == length:
            assert found.place == place
            return
        if place is not None:
            gram = tuple(tokens[-length:])
            later = [
                tuple(tokens[end - size : end])
                for end in range(place, len(tokens))
                for size in LENGTHS
                if end >= size
            ]
            assert any(other != gram and lookup.slot(other) == lookup.slot(gram) for other in later)
    assert found is None


@given(texts, st.data())
def test_a_text_that_grows_is_searched_as_one_that_is_there_at_once(
    tokens: list[int], data: st.DataObject
) -> None:
    growing: list[int] = []
    lookup = Lookup(growing, 100)
    ends = data.draw(st.lists(st.integers(0, len(tokens)), max_size=9).map(sorted))
    for start, end in pairwise([0, *ends, len(tokens)]):
        growing += tokens[start:end]
        lookup.find()
    assert lookup.find() == Lookup(tokens, 100).find()


def test_a_long_prompt_is_entered_over_some_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draft, "ENTERED_AT_ONCE", 100)
    tokens = [*range(205), 1, 2, 3]
    lookup = Lookup(tokens, 300)
    assert [lookup.find() for _ in range(3)] == [Match(4, 3)] * 3
    tokens[-3:] = [150, 151]
    lookup = Lookup(tokens, 300)
    assert [lookup.find() for _ in range(3)] == [None, Match(152, 2), Match(152, 2)]


def test_the_table_does_not_grow_beyond_its_bound() -> None:
    lookup = Lookup([], 10**9)
    assert len(lookup._places) == draft.MOST_SLOTS


@given(st.lists(st.integers(0, 9), min_size=1), st.data())
def test_a_text_goes_on_as_from_the_place_and_then_repeats_itself(
    tokens: list[int], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(tokens) - 1))
    count = data.draw(st.integers(0, 30))
    guess = Lookup(tokens, 100).continuation(place, count)
    grown = [*tokens, *guess]
    period = len(tokens) - place
    assert guess == [grown[len(tokens) + i - period] for i in range(count)]


# -- learning --------------------------------------------------------------------------------------


def test_the_longest_ngram_guesses() -> None:
    tokens = [1, 2, 3, 4, 5, 6, 9, 3, 4, 7, 2, 3, 4]
    guess, chance = Drafter(tokens, 100).guess(3)
    assert guess == [5, 6, 9]  # as behind 2, 3, 4, and not as behind 3, 4
    assert chance == FIRST_CHANCE


def test_a_text_that_never_repeats_guesses_nothing() -> None:
    assert Drafter([1, 2, 3], 100).guess() == ([], 0.0)
    assert Drafter([], 100).guess() == ([], 0.0)


def test_the_chance_follows_how_often_guesses_come_true_computed_or_not() -> None:
    tokens = [1, 2, 3] * 3
    drafter = Drafter(tokens, 100)
    chances = []
    for _ in range(20):
        guess, chance = drafter.guess()
        chances.append(chance)
        tokens.append(guess[0])
    assert chances == sorted(chances)
    assert chances[-1] > 0.95
    for token in range(100, 140):
        tokens += [1, 2, 3, 1, token]
        _, chance = drafter.guess()
        tokens += [1, 2, 3, 1]
        _, chance = drafter.guess()
    assert chance < 0.05


def test_of_a_guess_only_what_comes_up_to_its_first_mistake_is_learnt_from() -> None:
    tokens = [1, 2, 3, 4, 5, 6, 7, 1, 2, 3]
    drafter = Drafter(tokens, 100)
    drafter.guess()
    tokens += [4, 9, 6, 7]  # right, wrong, and then it does not matter
    before = drafter._chances[3]
    drafter.guess()
    right = before + draft.CHANCE_WEIGHT * (1 - before)
    assert drafter._chances[3] == pytest.approx(right * (1 - draft.CHANCE_WEIGHT))


# -- worth -----------------------------------------------------------------------------------------

WORTH = {
    "nothing while the cost is not known": (1.0, None, 1, 0),
    "nothing that is never right": (0.0, 0.01, 1, 0),
    "all where it is always right and costs less than a step": (1.0, 0.5, 1, MOST_DRAFTED),
    "nothing where a position costs a step": (1.0, 1.0, 1, 0),
    "a few where half are right and positions are cheap": (0.5, 0.05, 1, 3),
    "one where half are right and they are not": (0.5, 0.25, 1, 1),
    "nothing where they cost what they bring": (0.5, 0.5, 1, 0),
    "many where nearly all are right": (0.95, 0.1, 1, MOST_DRAFTED),
    "fewer beside other streams, who wait for it": (0.8, 0.1, 4, 3),
    "nothing beside many": (0.95, 0.1, 12, 0),
    "beside many where positions cost nothing that can be measured": (0.9, 0.01, 32, 8),
}


@pytest.mark.parametrize(
    ("chance", "cost", "decoding", "expected"), WORTH.values(), ids=WORTH.keys()
)
def test_worth(chance: float, cost: float | None, decoding: int, expected: int) -> None:
    assert worth(chance, cost, decoding, MOST_DRAFTED) == expected


chances, costs, counts = st.floats(0, 1), st.floats(0.01, 2), st.integers(1, 64)


def rate(count: int, chance: float, cost: float, decoding: int) -> float:
    """Tokens in the time of a step without drafts."""
    return (decoding + sum(chance**i for i in range(1, count + 1))) / (1 + count * cost)


@given(chances, costs, counts)
def test_what_is_drafted_brings_most(chance: float, cost: float, decoding: int) -> None:
    count = worth(chance, cost, decoding, MOST_DRAFTED)
    best = max(rate(other, chance, cost, decoding) for other in range(MOST_DRAFTED + 1))
    assert rate(count, chance, cost, decoding) == pytest.approx(best)


@settings(max_examples=200)
@given(chances, chances, costs, costs, counts)
def test_better_chances_never_shorten_a_draft_and_costs_and_streams_never_lengthen_it(
    chance: float, other: float, cost: float, dearer: float, decoding: int
) -> None:
    (chance, better), (cost, dearer) = sorted([chance, other]), sorted([cost, dearer])
    count = worth(chance, cost, decoding, MOST_DRAFTED)
    assert worth(better, cost, decoding, MOST_DRAFTED) >= count
    assert worth(chance, dearer, decoding, MOST_DRAFTED) <= count
    assert worth(chance, cost, decoding + 1, MOST_DRAFTED) <= count
