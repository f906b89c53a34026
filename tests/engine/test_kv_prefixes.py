"""Which of what is kept begins like a new prompt."""

from hypothesis import given
from hypothesis import strategies as st

from helexa.engine.kv.prefixes import Held, as_tokens, find, num_shared

few = st.lists(st.integers(1, 3), max_size=8)


def held(tokens: list[int], salt: str = "a", marks: tuple[int, ...] = ()) -> Held:
    return Held(salt, 0, 64, as_tokens(tokens), dict.fromkeys(marks))


@given(few, few)
def test_num_shared_counts_what_both_begin_with(one: list[int], other: list[int]) -> None:
    count = num_shared(as_tokens(one), as_tokens(other))
    assert count == num_shared(as_tokens(other), as_tokens(one))
    assert one[:count] == other[:count]
    assert count in (len(one), len(other)) or one[count] != other[count]


@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=8),
    st.lists(st.tuples(few, st.sampled_from("ab"), st.sets(st.integers(1, 8))), max_size=5),
    st.booleans(),
)
def test_the_longest_that_can_be_used_is_found_and_never_across_salts(
    tokens: list[int], others: list[tuple[list[int], str, set[int]]], needs_mark: bool
) -> None:
    kept = [held(other, salt, tuple(marks)) for other, salt, marks in others]
    source, usable, shared = find(as_tokens(tokens), "a", kept, needs_mark=needs_mark)

    def usable_of(each: Held) -> int:
        same = num_shared(as_tokens(tokens[:-1]), each.tokens)
        return max((n for n in range(same + 1) if not needs_mark or n in each.marks), default=0)

    allowed = [each for each in kept if each.salt == "a"]
    assert usable == max(map(usable_of, allowed), default=0)
    assert usable <= shared < len(tokens)
    if source is None:
        assert usable == 0
        same = [num_shared(as_tokens(tokens[:-1]), each.tokens) for each in allowed]
        assert shared == max(same, default=0)
    else:
        assert source.salt == "a"
        assert 0 < usable == usable_of(source)


def test_the_last_token_of_a_prompt_stays_to_be_computed() -> None:
    same = held([1, 2, 3])
    assert find(as_tokens([1, 2, 3]), "a", [same], needs_mark=False) == (same, 2, 2)
    assert find(as_tokens([1]), "a", [held([1])], needs_mark=False) == (None, 0, 0)


def test_states_are_used_from_where_they_were_kept_alone() -> None:
    marked = held([1, 2, 3, 4, 5], marks=(2, 5))
    assert find(as_tokens([1, 2, 3, 4, 9]), "a", [marked], needs_mark=True) == (marked, 2, 4)
    assert find(as_tokens([1, 9, 9]), "a", [marked], needs_mark=True) == (None, 0, 1)
    longer = held([1, 2, 3, 4], marks=())
    assert find(as_tokens([1, 2, 3, 4, 9]), "a", [longer, marked], needs_mark=True)[0] is marked
