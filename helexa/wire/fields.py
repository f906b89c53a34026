"""Reading what a client sent: parsed JSON, its types and ranges, and errors that name the path."""

from typing import NoReturn

import orjson
from attrs import frozen

from helexa.conversation import Json
from helexa.errors import InvalidRequest

# Of JSON that is passed on unread, such as the schema of a tool.
MAX_DEPTH = 100
MAX_JSON_BYTES = 1024 * 1024

# Of a whole field.  It may be told again some levels further in, and orjson writes no more than 254.
MAX_FIELD_DEPTH = 200
WRITTEN_DEPTH = 254

MAX_BRACKETS = 500_000  # in a body: of every list and object, and of what stands in texts


def parse_json(body: bytes) -> Json:
    """The JSON object in `body`.

    Lone surrogates, NaN, invalid UTF-8 and nesting beyond 1024 are refused.  Of a duplicate key the
    last one counts; an integer beyond 64 bits becomes a float.  Everybody waits while a body is parsed,
    so one with very many lists and objects, which cost the most, is refused unread.
    """
    if body.count(b"{") + body.count(b"[") > MAX_BRACKETS:
        raise InvalidRequest(
            f"The body has too many lists and objects: more than {MAX_BRACKETS} opening brackets."
        )
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be a JSON object.")
    return value


def refuse(path: str, must: str) -> NoReturn:
    raise InvalidRequest(f"`{path}` {must}.", param=path)


@frozen
class Fields:
    """One JSON object of a request.  `path` says where it stands; the body itself has the path "".

    A field that is missing or null reads as None; a wrong type or range is an InvalidRequest whose
    `param` is the path of the field.  Unknown fields are never looked at.
    """

    values: dict[str, Json]
    path: str = ""

    def at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def has(self, key: str) -> bool:
        return self.values.get(key) is not None

    def lacks(self, keys: frozenset[str]) -> bool:
        """Whether not one of `keys` is there."""
        return keys.isdisjoint(self.values)

    def get(self, key: str) -> Json:
        return self.values.get(key)

    def refuse(self, key: str, must: str) -> NoReturn:
        refuse(self.at(key), must)

    # -- scalars ---------------------------------------------------------------------------------

    def text(self, key: str, most: int | None = None) -> str | None:
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            self.refuse(key, "must be a string")
        if most is not None and len(value) > most:
            self.refuse(key, f"must have at most {most} characters")
        return value

    def required_text(self, key: str, most: int | None = None) -> str:
        value = self.text(key, most)
        if value is None:
            self.refuse(key, "is required and must be a string")
        return value

    def flag(self, key: str) -> bool | None:
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            self.refuse(key, "must be true or false")
        return value

    def integer(self, key: str, low: int, high: int) -> int | None:
        value = self.values.get(key)
        return None if value is None else as_integer(value, self.at(key), low, high)

    def number(self, key: str, low: float, high: float, *, above_low: bool = False) -> float | None:
        """A number of [low, high], or of (low, high] if `above_low`."""
        value = self.values.get(key)
        return None if value is None else as_number(value, self.at(key), low, high, above_low)

    # -- what holds other values -----------------------------------------------------------------

    def array(self, key: str, most: int) -> list[Json] | None:
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            self.refuse(key, "must be a list")
        if len(value) > most:
            self.refuse(key, f"must have at most {most} entries, not {len(value)}")
        return value

    def object(self, key: str) -> "Fields | None":
        value = self.values.get(key)
        return None if value is None else as_object(value, self.at(key))

    def required_object(self, key: str) -> "Fields":
        return self.object(key) or self.refuse(key, "is required and must be an object")

    def texts(self, key: str, most: int) -> list[str] | None:
        values = self.array(key, most)
        for i, value in enumerate(values or ()):
            if not isinstance(value, str):
                refuse(f"{self.at(key)}[{i}]", "must be a string")
        return values

    def objects(self, key: str, most: int) -> list["Fields"] | None:
        values = self.array(key, most)
        if values is None:
            return None
        return [as_object(value, f"{self.at(key)}[{i}]") for i, value in enumerate(values)]

    def json_object(self, key: str) -> dict[str, Json] | None:
        """An object that is passed on unread, within MAX_DEPTH and MAX_JSON_BYTES."""
        found = self.object(key)
        if found is None:
            return None
        self.bound(key, MAX_JSON_BYTES, MAX_DEPTH)
        return found.values

    def bound(self, key: str, most_bytes: int, most_levels: int = MAX_FIELD_DEPTH) -> None:
        """Refuse a value whose JSON is larger, or nested deeper."""
        value = self.values.get(key)
        if value is None:
            return
        size = size_within(value, most_levels)
        if size is None:
            self.refuse(key, f"must not be nested deeper than {most_levels} levels")
        if size > most_bytes:
            self.refuse(key, f"must have at most {most_bytes} bytes as JSON, not {size}")


def as_object(value: Json, path: str) -> Fields:
    if not isinstance(value, dict):
        refuse(path, "must be an object")
    return Fields(value, path)


def as_integer(value: Json, path: str, low: int, high: int) -> int:
    """JSON knows one kind of number: 2.0 is the integer 2."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        refuse(path, f"must be an integer from {low} to {high}")
    return value


def as_number(value: Json, path: str, low: float, high: float, above_low: bool = False) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or (above_low and value == low):
        begin = f"above {low}" if above_low else f"from {low}"
        refuse(path, f"must be a number {begin} to {high}")
    return float(value)


def size_within(value: Json, most_levels: int) -> int | None:
    """The bytes of `value` as JSON; None if lists and objects are nested deeper in it.

    orjson counts the levels: so many lists stand around `value` that those left are `most_levels`.
    """
    around = WRITTEN_DEPTH - most_levels
    for _ in range(around):
        value = [value]
    try:
        return len(orjson.dumps(value)) - 2 * around
    except orjson.JSONEncodeError:
        return None
