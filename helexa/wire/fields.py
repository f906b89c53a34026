"""Reading what a client sent: parsed JSON, its types and ranges, and errors that name the path."""

from typing import NoReturn

import orjson
from attrs import frozen

from helexa.conversation import Json
from helexa.errors import InvalidRequest

MAX_DEPTH = 100  # of JSON that is passed on unread, such as the schema of a tool


def parse_json(body: bytes) -> Json:
    """The JSON object in `body`.

    Lone surrogates, NaN, invalid UTF-8 and nesting beyond 1024 are refused.  Of a duplicate key the
    last one counts; an integer beyond 64 bits becomes a float.
    """
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

    def get(self, key: str) -> Json:
        return self.values.get(key)

    def refuse(self, key: str, must: str) -> NoReturn:
        refuse(self.at(key), must)

    # -- scalars ---------------------------------------------------------------------------------

    def text(self, key: str, most: int | None = None) -> str | None:
        value = self.get(key)
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
        value = self.get(key)
        if value is not None and not isinstance(value, bool):
            self.refuse(key, "must be true or false")
        return value

    def integer(self, key: str, low: int, high: int) -> int | None:
        value = self.get(key)
        return None if value is None else as_integer(value, self.at(key), low, high)

    def number(self, key: str, low: float, high: float, *, above_low: bool = False) -> float | None:
        """A number of [low, high], or of (low, high] if `above_low`."""
        value = self.get(key)
        return None if value is None else as_number(value, self.at(key), low, high, above_low)

    # -- what holds other values -----------------------------------------------------------------

    def array(self, key: str, most: int) -> list[Json] | None:
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            self.refuse(key, "must be a list")
        if len(value) > most:
            self.refuse(key, f"must have at most {most} entries, not {len(value)}")
        return value

    def object(self, key: str) -> "Fields | None":
        value = self.get(key)
        return None if value is None else as_object(value, self.at(key))

    def required_object(self, key: str) -> "Fields":
        return self.object(key) or self.refuse(key, "is required and must be an object")

    def objects(self, key: str, most: int) -> list["Fields"] | None:
        values = self.array(key, most)
        if values is None:
            return None
        return [as_object(value, f"{self.at(key)}[{i}]") for i, value in enumerate(values)]

    def json_object(self, key: str) -> dict[str, Json] | None:
        """An object that is passed on unread, nested no deeper than MAX_DEPTH."""
        found = self.object(key)
        if found is None:
            return None
        if depth(found.values) > MAX_DEPTH:
            self.refuse(key, f"must not be nested deeper than {MAX_DEPTH} levels")
        return found.values


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


def depth(value: Json) -> int:
    """How deep objects and lists are nested in `value`; 0 for a scalar.  Does not recurse."""
    deepest, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        deepest += 1
        level = [
            inner for item in level for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return deepest
