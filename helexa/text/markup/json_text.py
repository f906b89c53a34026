"""JSON as models write it: where a value ends, with the slips mended that have only one meaning."""

from collections.abc import Iterator

import orjson

from helexa.text.markup.outputs import Arguments, Ended, Output, Say
from helexa.text.markup.source import Reading, Source

MAX_NAME = 256  # characters of a key, or of a tool's name
PLAIN = frozenset(" \t\r\n,:-+.0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
ESCAPED = frozenset('"\\/bfnrtu')


def is_of_name(character: str) -> bool:
    """Whether it may stand in a tool's name that nothing puts between quotes."""
    return character.isalnum() or character in "_-.:/"


class JsonText:
    """One JSON value that comes in pieces.

    `done` once it is whole, `broken` where it goes on as no JSON does.  Line breaks in a string are
    escaped, and so is a backslash that escapes nothing (`\\d`): models forget to.
    """

    def __init__(self) -> None:
        self.done = False
        self.broken = False
        self._depth = 0
        self._in_string = False
        self._escapes = False  # a backslash was the last character
        self._is_scalar = False  # a number or a word that stands alone

    def read(self, text: str) -> tuple[str, int]:
        """What of `text` belongs to the value, mended, and how many characters that took."""
        out: list[str] = []
        for i, character in enumerate(text):
            if self._in_string:
                out.append(self._in(character))
            elif not self._outside(character):
                return "".join(out), i
            else:
                out.append(character)
            if self.done:
                return "".join(out), i + 1
        return "".join(out), len(text)

    def _in(self, character: str) -> str:
        if self._escapes:
            self._escapes = False
            return mended(character)
        if character == "\\":
            self._escapes = True
            return ""
        if character == '"':
            self._in_string = False
            self.done = not self._depth
        return character if character >= " " else escape(character)

    def _outside(self, character: str) -> bool:
        """Whether the character, outside of any string, belongs to the value."""
        if self._is_scalar and character in ",:}] \t\r\n":
            self.done = True
            return False
        if character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]" and self._depth:
            self._depth -= 1
            self.done = not self._depth
        elif character not in PLAIN:
            self.broken = True
            return False
        elif not self._depth:
            self._is_scalar = True
        return True


def mended(escaped: str) -> str:
    """A backslash and the character after it."""
    if escaped in ESCAPED:
        return "\\" + escaped
    return escaped if escaped == "'" else "\\\\" + escape(escaped)


def escape(text: str) -> str:
    """`text` as the inside of a JSON string."""
    return orjson.dumps(text)[1:-1].decode()


def read_value(source: Source) -> Reading[tuple[list[str], bool]]:
    """Take a JSON value: its text, and whether it is whole."""
    taken: list[str] = []
    value = JsonText()
    while not value.done and (yield from source.peek()):
        text, count = value.read(source.unread)
        source.take(count)
        taken.append(text)
        if value.broken:
            break
    return taken, value.done


def tell_value(source: Source) -> Reading[bool]:
    """Take a JSON value as arguments, as it comes; whether it is whole."""
    value = JsonText()
    while not value.done and (yield from source.peek()):
        text, count = value.read(source.unread)
        source.take(count)
        if text:
            yield Arguments(text)
        if value.broken:
            break
    return value.done


def read_string(source: Source) -> Reading[str | None]:
    """Take a string of at most MAX_NAME characters; None if there is none."""
    if (yield from source.peek()) != '"':
        return None
    value, taken = JsonText(), ""
    while not value.done and len(taken) < MAX_NAME and (yield from source.peek()):
        taken += value.read(source.take(1))[0]
    try:
        return str(orjson.loads(taken)) if value.done else None
    except orjson.JSONDecodeError:
        return None


def read_key(source: Source) -> Reading[str | None]:
    """Take a member's key, its colon and the white space after that; None if there is none."""
    key = yield from read_string(source)
    if (yield from source.skip()) != ":" or key is None:
        return None
    source.take(1)
    yield from source.skip()
    return key


class JsonArguments:
    """Arguments that are all of the text up to a mark, for `Source.until`.

    What follows a whole value is text, but for a bracket too many or the end of a fence.
    """

    def __init__(self) -> None:
        self._value = JsonText()
        self._is_empty = True
        self._extra = False

    def tell(self, text: str, begin: int) -> Iterator[Output]:
        end = begin + len(text)
        if self._is_empty:
            text = text.lstrip()
        if not text:
            return
        self._is_empty = False
        told, count = text, len(text)
        if not self._value.broken:
            told, count = ("", 0) if self._value.done else self._value.read(text)
        if self._value.broken:
            told, count = told + text[count:], len(text)
        if told:
            yield Arguments(told)
        rest = text[count:] if self._extra else text[count:].lstrip(" \t\r\n`]}")
        if rest:
            self._extra = True
            yield Say(rest, end - len(rest))

    def finish(self, *, cut: bool = False) -> Iterator[Output]:
        """What the end of a call adds.  One without arguments has none of them."""
        if self._is_empty and not cut:
            yield Arguments("{}")
        if self._value.done or (self._is_empty and not cut):
            yield Ended()
