"""Whatever TOML may hold either fits or is a list of mistakes with paths; nothing else comes out."""

from typing import Any

import attrs
import pytest
from attrs import field, frozen
from hypothesis import given
from hypothesis import strategies as st

from helexa.config.checks import not_negative
from helexa.config.schema import Config, RemoteNode
from helexa.config.structure import Mistake, Mistakes, structure

SECTIONS = {section.name: section.type for section in attrs.fields(Config)} | {"nodes": RemoteNode}
OPTIONS = sorted({option.name for kind in SECTIONS.values() for option in attrs.fields(kind)})

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.datetimes()
)
keys = st.one_of(st.sampled_from([*SECTIONS, *OPTIONS, "uuid"]), st.text(max_size=5))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4)
)


@given(st.dictionaries(keys, values, max_size=6))
def test_any_data_fits_or_is_a_list_of_mistakes(data: dict[str, Any]) -> None:
    outcome = outcome_of(data)
    if not isinstance(outcome, Config):
        assert outcome
        assert all(mistake.path for mistake in outcome)


def outcome_of(data: dict[str, Any]) -> Config | list[Mistake]:
    try:
        return structure(data, Config)
    except Mistakes as error:
        return error.found


@frozen
class Inner:
    name: str
    size: int | None = field(default=None, validator=not_negative)


@frozen
class Outer:
    one: Inner
    many: tuple[Inner, ...] = ()
    words: tuple[str, ...] = ()


def test_data_that_fits_becomes_values() -> None:
    data = {"one": {"name": "a"}, "many": [{"name": "b", "size": 2}], "words": ["x"]}
    assert structure(data, Outer) == Outer(Inner("a"), (Inner("b", 2),), ("x",))


def test_every_mistake_has_its_path() -> None:
    data = {"one": {"size": -1}, "many": [{"name": "b", "sise": 2}, 5], "words": ["x", 7], "x": 1}
    with pytest.raises(Mistakes) as caught:
        structure(data, Outer)
    assert {mistake.path for mistake in caught.value.found} == {
        ("one", "name"),
        ("one", "size"),
        ("many", 0, "sise"),
        ("many", 1),
        ("words", 1),
        ("x",),
    }


def test_a_bug_in_a_check_is_not_taken_for_a_mistake() -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    @frozen
    class Broken:
        size: int = field(default=1, validator=broken)

    with pytest.raises(ZeroDivisionError):
        structure({"size": 1}, Broken)
