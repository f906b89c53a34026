"""How large, deep and branching may be what a client sends to be compiled.

The compiler's own limits bound its work, but not its stack, so that depth is bounded here; a trial in
a child process (`trial`) is the last line.
"""

from collections.abc import Iterator

from helexa.conversation import Json
from helexa.errors import InvalidRequest

MAX_BYTES = 1024 * 1024  # of all that goes into one grammar
MAX_DEPTH = 100  # of JSON values within one another
MAX_VALUES = 20_000  # in one schema: keywords, names, entries of enumerations
MAX_PROPERTIES = 1000  # of one object
MAX_STRING = 64 * 1024  # characters of a name, a word or a pattern in a schema
MAX_TEXT = 64 * 1024  # characters of a pattern or a grammar that is the whole form
MAX_MULTIPLE = 10_000  # `multipleOf` without its decimal point


def check_schema(schema: Json, param: str) -> None:
    """InvalidRequest, which names the keyword, for a schema that is too large to be compiled."""
    if not isinstance(schema, dict | bool):
        raise InvalidRequest(f"{param} must be a JSON schema: an object", param=param)
    for num_values, (depth, value) in enumerate(walk(schema), 1):
        if num_values > MAX_VALUES:
            raise InvalidRequest(f"{param} holds more than {MAX_VALUES} values", param=param)
        if depth > MAX_DEPTH:
            raise InvalidRequest(f"{param} is nested deeper than {MAX_DEPTH} levels", param=param)
        if isinstance(value, dict):
            check_object(value, param)
        elif isinstance(value, str) and len(value) > MAX_STRING:
            raise InvalidRequest(
                f"{param} holds a text of more than {MAX_STRING} characters", param=param
            )


def check_object(value: dict[str, Json], param: str) -> None:
    for keyword in ("properties", "required", "patternProperties", "dependentRequired"):
        entries = value.get(keyword)
        if isinstance(entries, dict | list) and len(entries) > MAX_PROPERTIES:
            raise InvalidRequest(
                f"{param}: '{keyword}' has more than {MAX_PROPERTIES} entries", param=param
            )
    multiple = value.get("multipleOf")
    if isinstance(multiple, int | float) and significant(multiple) > MAX_MULTIPLE:
        raise InvalidRequest(
            f"{param}: 'multipleOf' must have a value of few digits, {MAX_MULTIPLE} at most without "
            "the decimal point",
            param=param,
        )


def significant(number: float) -> int:
    """The digits of a number without its point and exponent."""
    digits = repr(abs(number)).partition("e")[0].replace(".", "").strip("0")
    if isinstance(number, int):
        return abs(number)
    return int(digits) if digits.isdecimal() else 0


def walk(value: Json) -> Iterator[tuple[int, Json]]:
    """Every value within `value`, itself first, with its depth.  No recursion: it may be deep."""
    waiting = [(1, value)]
    while waiting:
        depth, value = waiting.pop()
        yield depth, value
        if isinstance(value, dict):
            waiting += [(depth + 1, each) for each in value.values()]
        elif isinstance(value, list):
            waiting += [(depth + 1, each) for each in value]


def check_text(text: str, most: int, param: str) -> None:
    if len(text) > most:
        raise InvalidRequest(f"{param} has more than {most} characters", param=param)
