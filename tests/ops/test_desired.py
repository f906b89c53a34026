"""Which models come back: pure transitions."""

from hypothesis import given
from hypothesis import strategies as st

from helexa.desired import Desired, DesiredModel, at_start

NOTHING = Desired()


def ids(models: tuple[DesiredModel, ...]) -> list[str]:
    return [model.id for model in models]


def test_what_was_loaded_comes_back() -> None:
    left = NOTHING.loading("a").loaded("a").loading("b").loaded("b")
    assert ids(at_start(left, ["c"]).to_load) == ["a", "b"]


def test_preload_counts_only_where_nothing_was_left() -> None:
    assert ids(at_start(None, ["a", "b", "a"]).to_load) == ["a", "b"]
    assert at_start(NOTHING, ["a"]).to_load == ()


def test_what_was_unloaded_stays_away() -> None:
    assert at_start(NOTHING.loading("a").loaded("a").gone("a"), []).to_load == ()


def test_what_a_load_named_comes_back_with_it() -> None:
    left = NOTHING.loading("a", "hf:o/a", ("GPU-1",)).loaded("a")
    (model,) = at_start(left, []).to_load
    assert (model.source, model.devices) == ("hf:o/a", ("GPU-1",))


def test_a_new_model_whose_load_fails_is_forgotten() -> None:
    assert NOTHING.loading("a").failed("a") == NOTHING


def test_a_wanted_model_whose_load_fails_is_tried_again_at_the_next_start() -> None:
    wanted = at_start(None, ["a"])
    assert ids(at_start(wanted.loading("a").failed("a"), []).to_load) == ["a"]


def test_a_load_that_ended_the_process_is_tried_once_more_and_then_given_up() -> None:
    second = at_start(NOTHING.loading("a"), [])
    assert ids(second.to_load) == ["a"]
    third = at_start(second.loading("a"), [])
    assert third.to_load == ()
    assert ids(third.given_up) == ["a"]
    assert "ended the process 2 times" in third.given_up[0].failed


def test_only_loads_in_a_row_count() -> None:
    second = at_start(NOTHING.loading("a"), [])
    left = second.loading("a").loaded("a").loading("a")
    assert ids(at_start(left, []).to_load) == ["a"]


def test_giving_up_is_remembered_over_more_starts_and_leaves_others_alone() -> None:
    left = NOTHING.loading("b").loaded("b")
    for _ in range(2):
        left = at_start(left.loading("a"), [])
    later = at_start(at_start(left, []), [])
    assert (ids(later.to_load), ids(later.given_up)) == (["b"], ["a"])


def test_somebody_who_asks_gives_a_model_both_its_tries_again() -> None:
    left = NOTHING
    for _ in range(2):
        left = at_start(left.loading("a"), [])
    asked = left.loading("a", asked=True)
    assert asked.given_up == ()
    assert ids(at_start(asked, []).to_load) == ["a"]


def test_a_process_that_ends_in_order_holds_no_load_against_its_model() -> None:
    left = at_start(None, ["a"])
    for _ in range(5):
        left = at_start(left.loading("a").stopped(), [])
    assert ids(left.to_load) == ["a"]
    assert left.given_up == ()


steps = st.sampled_from(["loading", "loaded", "failed", "gone", "die", "stop"])


@given(st.lists(st.tuples(steps, st.sampled_from("ab")), max_size=20))
def test_after_any_history_a_model_is_loaded_given_up_or_gone_and_never_marked(
    history: list[tuple[str, str]],
) -> None:
    desired = NOTHING
    for step, model in history:
        match step:
            case "die":
                desired = at_start(desired, [])
            case "stop":
                desired = at_start(desired.stopped(), [])
            case _:
                desired = getattr(desired, step)(model)
    started = at_start(desired, [])
    assert not any(model.is_loading for model in started.models)
    assert len(set(ids(started.models))) == len(started.models)
    assert set(ids(started.to_load)) | set(ids(started.given_up)) == set(ids(started.models))
    assert not set(ids(started.to_load)) & set(ids(started.given_up))
