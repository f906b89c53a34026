"""JSON that another server tells, read forgivingly: what is missing or of a wrong type is its default.

Nothing in it is believed further than it can do harm: texts are short and without control characters,
numbers within bounds, lists not longer than anybody needs.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from attrs import frozen

from helexa.errors import UpstreamMalformed
from helexa.escape import escape
from helexa.wire.fields import MAX_BRACKETS

MOST = 2**53  # of a count
LONGEST_TEXT = 200
LONGEST_LIST = 4096


def parse(body: bytes) -> Any:
    """The JSON of a whole answer; UpstreamMalformed where it is none.

    Everybody waits while it is parsed, and lists and objects cost the most.
    """
    if body.count(b"{") + body.count(b"[") > MAX_BRACKETS:
        raise UpstreamMalformed("its answer has too many lists and objects")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UpstreamMalformed("its answer is not JSON") from None


def parse_object(body: bytes) -> "Told":
    value = parse(body)
    if not isinstance(value, dict):
        raise UpstreamMalformed("its answer is not a JSON object")
    return Told(value)


def parse_objects(body: bytes) -> "Iterator[Told]":
    value = parse(body)
    if not isinstance(value, list):
        raise UpstreamMalformed("its answer is not a JSON list")
    return objects_of(value)


@frozen
class Told:
    """One JSON object."""

    values: Mapping[str, Any]

    def text(self, key: str, default: str = "", most: int = LONGEST_TEXT) -> str:
        value = self.values.get(key)
        return escape(value[:most]) if isinstance(value, str) else default

    def exact(self, key: str) -> str:
        """A text that must be sent back as it is: "" where it is too long for that, or unprintable."""
        text = self.text(key)
        return text if text and text == self.values[key] else ""

    def word(self, key: str, words: tuple[str, ...]) -> str:
        """One of `words`, in any case of letters, else ""."""
        text = self.text(key).lower()
        return text if text in words else ""

    def number(self, key: str, most: float, default: float = 0.0) -> float:
        """From 0 to `most`: what lies beyond is taken for the bound."""
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            return default
        return float(min(max(value, 0), most))

    def count(self, key: str, most: int = MOST) -> int:
        return int(self.number(key, most))

    def flag(self, key: str) -> bool:
        return self.values.get(key) is True

    def has(self, key: str) -> bool:
        return self.values.get(key) is not None

    def object(self, key: str) -> "Told":
        value = self.values.get(key)
        return Told(value if isinstance(value, dict) else {})

    def objects(self, key: str) -> "Iterator[Told]":
        return objects_of(self._list(key))

    def texts(self, key: str) -> Iterator[str]:
        for value in self._list(key)[:LONGEST_LIST]:
            if isinstance(value, str) and value:
                yield escape(value[:LONGEST_TEXT])

    def counts(self, key: str, most: int) -> Iterator[int]:
        for value in self._list(key)[:LONGEST_LIST]:
            if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most:
                yield value

    def _list(self, key: str) -> list[Any]:
        value = self.values.get(key)
        return value if isinstance(value, list) else []


def objects_of(values: list[Any]) -> Iterator[Told]:
    return (Told(value) for value in values[:LONGEST_LIST] if isinstance(value, dict))
