"""The text of an argument as JSON of the declared types.  What is mistyped is a string."""

from collections.abc import Iterator

import orjson

from helexa.conversation import Json
from helexa.text.markup.json_text import escape
from helexa.text.markup.literals import literal_as_json
from helexa.text.markup.outputs import Arguments, Output
from helexa.text.markup.schema import STRING, Types, type_of
from helexa.text.markup.source import Reading, Source, collected
from helexa.text.stops import Automaton

NULLS = ("null", "none")


def tell_element(source: Source, end: Automaton, types: Types) -> Reading[str]:
    """Take a value up to `end` and tell it; the mark, or "" if the text ends in the middle of it.

    A string comes as it is written, anything else at once.
    """
    if types - {"null"} == STRING:
        string = StringValue(is_nullable="null" in types)
        mark = yield from source.until(end, string.tell)
        yield from string.finish(is_whole=mark != "")
        return mark
    text, mark = yield from collected(source, end)
    yield Arguments(coerced(text, types) if mark else text)
    return mark


class StringValue:
    """A string in pieces, for `Source.until`.  One that may be null waits until it cannot be."""

    def __init__(self, *, is_nullable: bool) -> None:
        self._waits = is_nullable
        self._held = ""
        self._begun = False

    def tell(self, text: str, _: int) -> Iterator[Output]:
        self._held += text
        if self._waits and any(word.startswith(self._held.lower()) for word in NULLS):
            return
        self._waits = False
        yield from self._flush()

    def finish(self, *, is_whole: bool) -> Iterator[Output]:
        if self._waits and is_whole and self._held.lower() in NULLS:
            yield Arguments("null")
            return
        yield from self._flush()
        if is_whole:
            yield Arguments('"')

    def _flush(self) -> Iterator[Output]:
        quote = "" if self._begun else '"'
        self._begun = True
        held, self._held = self._held, ""
        yield Arguments(quote + escape(held))


def coerced(text: str, types: Types) -> str:
    """JSON text of one of `types`, any if there are none; else `text` as a string."""
    word = text.strip()
    lowered = word.lower()
    if lowered in NULLS and "null" in types:
        return "null"
    if lowered in ("true", "false") and (not types or "boolean" in types):
        return lowered
    written, value = parsed(word)
    if written and not isinstance(value, str) and (not types or fits(value, types)):
        return written
    if isinstance(value, float) and value.is_integer() and "integer" in types:
        return word if word.lstrip("-").isdecimal() else str(int(value))
    return f'"{escape(text)}"'


def parsed(word: str) -> tuple[str, Json]:
    """A value with its JSON text, as JSON or as Python writes it; "" if it is neither."""
    try:
        return word, orjson.loads(word)
    except orjson.JSONDecodeError:
        pass
    written = literal_as_json(word) if word.startswith(("{", "[", "(")) else None
    try:
        return (written, orjson.loads(written)) if written else ("", None)
    except orjson.JSONDecodeError:
        return "", None


def fits(value: Json, types: Types) -> bool:
    found = type_of(value)
    return found in types or (found == "integer" and "number" in types)
