"""From what TOML holds to frozen attrs values, strictly, with every mistake at once."""

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import attrs
from attrs import frozen
from cattrs import Converter
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError
from cattrs.gen import make_dict_structure_fn, override

from helexa.config.checks import Moment, Prose, Unfit
from helexa.config.lines import KeyPath
from helexa.escape import UNSAFE

T = TypeVar("T")
ABSENT: Any = object()

SIMPLE: dict[type, str] = {
    str: "text in quotes",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


@frozen
class Mistake:
    """One thing that is wrong, and where.  `value` is what stood there, if that is worth showing.

    `follows` are paths that this mistake may be a mere consequence of.
    """

    path: KeyPath
    text: str
    value: Any = ABSENT
    follows: tuple[KeyPath, ...] = ()


@frozen
class Unknown(Mistake):
    """An option or a table that nobody reads; `known` are those that might have been meant."""

    known: tuple[str, ...] = ()


class Mistakes(Exception):
    def __init__(self, found: list[Mistake]) -> None:
        super().__init__(found)
        self.found = found


def structure(data: object, kind: type[T]) -> T:
    """`data` as `kind`, an attrs class; Mistakes if it does not fit."""
    try:
        return converter().structure(data, kind)
    except Exception as error:
        raise Mistakes(list(mistakes(error, ()))) from error


def converter() -> Converter:
    made = Converter(forbid_extra_keys=True)
    for kind, expected in SIMPLE.items():
        made.register_structure_hook(kind, simple(kind, expected))
    made.register_structure_hook(Prose, prose)
    made.register_structure_hook(Moment, moment)
    made.register_structure_hook_factory(is_literal, one_of)
    made.register_structure_hook_factory(is_tuple, lambda kind: row(made, kind))
    made.register_structure_hook_factory(is_union, lambda kind: either(made, kind))
    made.register_structure_hook_factory(attrs.has, lambda kind: table(made, kind))
    return made


def is_literal(kind: Any) -> bool:
    return get_origin(kind) is Literal


def is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple


def is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


Hook = Callable[[Any, Any], Any]


def simple(kind: Any, expected: str) -> Hook:
    def hook(value: Any, _: Any) -> Any:
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:  # a bool is no number here
            raise Unfit(expected, value)
        if kind is float and not math.isfinite(value):
            raise Unfit("a finite number", value)
        if kind is str and UNSAFE.search(value):
            raise Unfit("text without control characters", value)
        return value

    return hook


def prose(value: Any, _: Any) -> Prose:
    if not isinstance(value, str):
        raise Unfit(SIMPLE[str], value)
    return Prose(value)


def moment(value: Any, _: Any) -> Moment:
    """Without a zone it is UTC; a date is its first moment."""
    try:
        found = datetime.fromisoformat(value if isinstance(value, str) else value.isoformat())
    except (ValueError, AttributeError):
        raise Unfit("a date or a time such as 2027-01-31 or 2027-01-31T12:00:00Z", value) from None
    return Moment((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())


def one_of(kind: Any) -> Hook:
    words = get_args(kind)

    def hook(value: Any, _: Any) -> Any:
        if value not in words:
            raise Unfit("one of " + ", ".join(f'"{word}"' for word in words), value)
        return value

    return hook


def row(made: Converter, kind: Any) -> Hook:
    item = get_args(kind)[0]
    what = SIMPLE.get(item, "tables")

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, list):
            raise Unfit(f"a list of {what} in [...]", value)
        return made.structure(value, list[item])  # type: ignore[valid-type]

    return lambda value, _: tuple(hook(value, _))


def either(made: Converter, kind: Any) -> Hook:
    members = [member for member in get_args(kind) if member is not NoneType]

    def hook(value: Any, _: Any) -> Any:
        if len(members) == 1:
            return made.structure(value, members[0])
        expected = []
        for member in members:
            try:
                return made.structure(value, member)
            except Unfit as error:
                expected.append(error.expected.removeprefix("one of "))
        raise Unfit(" or ".join(expected), value)

    return hook


def table(made: Converter, kind: Any) -> Hook:
    """Structures an attrs class; its validators run field by field, so that each one is heard."""
    hooks: dict[str, Any] = {
        field.name: override(struct_hook=checked(made, field)) for field in attrs.fields(kind)
    }
    inner = make_dict_structure_fn(kind, made, _cattrs_forbid_extra_keys=True, **hooks)

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise Unfit("a table", value)
        return inner(value, kind)

    return hook


def checked(made: Converter, field: Any) -> Hook:
    def hook(value: Any, kind: Any) -> Any:
        result = made.structure(value, kind)
        if field.validator is not None:
            field.validator(None, field, result)
        return result

    return hook


def mistakes(error: BaseException, path: KeyPath) -> Iterator[Mistake]:
    """Everything that is wrong, from the tree of exceptions that cattrs makes."""
    if isinstance(error, ClassValidationError):
        inside, others = error.group_exceptions()
        for inner, field in inside:
            yield from mistakes(inner, (*path, field.name))
        for other in others:
            yield from mistakes(other, path)
    elif isinstance(error, IterableValidationError):
        for inner, item in error.group_exceptions()[0]:
            yield from mistakes(inner, (*path, item.index))
    elif isinstance(error, ForbiddenExtraKeysError):
        known = tuple(field.name for field in attrs.fields(error.cl))
        for key in sorted(error.extra_fields):
            yield Unknown((*path, key), "is unknown", known=known)
    elif isinstance(error, Unfit):
        yield Mistake(path, f"expected {error.expected}", error.value)
    elif isinstance(error, KeyError):
        yield Mistake(path, "is missing")
    else:
        raise error
