"""Python literals as JSON, as they come."""

import math
from collections.abc import Iterator

import orjson

from helexa.text.markup.json_text import escape
from helexa.text.markup.outputs import Arguments, Output
from helexa.text.markup.source import Reading, Source
from helexa.text.stops import Automaton

MAX_DEPTH = 64
MAX_WORD = 400  # characters of a number
WORDS = {
    "True": "true",
    "False": "false",
    "None": "null",
    "true": "true",
    "false": "false",
    "null": "null",
}
QUOTES = ('"""', "'''", '"', "'")
ENDS = {quote: Automaton((quote, "\\")) for quote in QUOTES}
ESCAPES = {
    "\n": "",
    "\\": "\\",
    "'": "'",
    '"': '"',
    "0": "\0",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
}
DIGITS = {"x": 2, "u": 4, "U": 8}


def tell_literal(source: Source, depth: int = 0) -> Reading[bool]:
    """Take a literal and tell it as JSON; False where it is none, or the text ends within."""
    match (yield from source.skip()):
        case '"' | "'":
            return (yield from tell_string(source))
        case "[" | "(" if depth < MAX_DEPTH:
            return (yield from tell_sequence(source, depth))
        case "{" if depth < MAX_DEPTH:
            return (yield from tell_mapping(source, depth))
        case _:
            return (yield from tell_word(source))


def tell_string(source: Source) -> Reading[bool]:
    quote = yield from source.next(*QUOTES)
    yield Arguments('"')
    while mark := (yield from source.until(ENDS[quote], tell_escaped)):
        if mark == quote:
            yield Arguments('"')
            return True
        yield from tell_escape(source)
    return False


def tell_escaped(text: str, _: int) -> Iterator[Output]:
    yield Arguments(escape(text))


def tell_escape(source: Source) -> Reading[None]:
    """What stands after a backslash."""
    character = yield from source.peek()
    source.take(1)
    if character in DIGITS:
        digits = yield from source.word(is_hexadecimal, DIGITS[character])
        yield Arguments(escape(character_of(digits) or f"\\{character}{digits}"))
    else:
        yield Arguments(escape(ESCAPES.get(character, "\\" + character)))


def is_hexadecimal(character: str) -> bool:
    return character in "0123456789abcdefABCDEF"


def character_of(digits: str) -> str:
    code = int(digits or "110000", 16)
    return chr(code) if code < 0x110000 and not 0xD800 <= code < 0xE000 else ""


def tell_sequence(source: Source, depth: int) -> Reading[bool]:
    closing = "]" if source.take(1) == "[" else ")"
    yield Arguments("[")
    before = ""
    while (yield from source.skip()) != closing:
        yield Arguments(before)
        before = ", "
        if not (yield from tell_literal(source, depth + 1)):
            return False
        if (yield from source.skip()) == ",":
            source.take(1)
        elif not (yield from source.starts(closing)):
            return False
    source.take(1)
    yield Arguments("]")
    return True


def tell_mapping(source: Source, depth: int) -> Reading[bool]:
    source.take(1)
    yield Arguments("{")
    before = ""
    while (yield from source.skip()) != "}":
        yield Arguments(before)
        before = ", "
        if not (yield from tell_key(source)) or (yield from source.skip()) != ":":
            return False
        source.take(1)
        yield Arguments(": ")
        if not (yield from tell_literal(source, depth + 1)):
            return False
        if (yield from source.skip()) == ",":
            source.take(1)
        elif not (yield from source.starts("}")):
            return False
    source.take(1)
    yield Arguments("}")
    return True


def tell_key(source: Source) -> Reading[bool]:
    if (yield from source.peek()) in ('"', "'"):
        return (yield from tell_string(source))
    word = yield from source.word(is_of_word, MAX_WORD)
    yield Arguments(f'"{constant(word)}"')
    return constant(word) != ""


def tell_word(source: Source) -> Reading[bool]:
    word = yield from source.word(is_of_word, MAX_WORD)
    yield Arguments(constant(word) or word)
    return constant(word) != ""


def constant(word: str) -> str:
    """A number or a constant as JSON; "" if it is none."""
    return WORDS.get(word) or number(word)


def is_of_word(character: str) -> bool:
    return character.isalnum() or character in "+-._"


def number(word: str) -> str:
    """A number as Python writes it, in JSON; "" if it is none."""
    try:
        orjson.loads(word)
    except orjson.JSONDecodeError:
        pass
    else:
        return word
    for read in (lambda: int(word, 0), lambda: float(word)):
        try:
            value = read()
        except ValueError:
            continue
        return str(value) if math.isfinite(value) else ""
    return ""


def literal_as_json(text: str) -> str | None:
    """A whole Python literal as JSON text, or None."""
    source = Source()
    source.feed(text)
    source.ended = True
    told: list[str] = []
    reading = tell_literal(source)
    while True:
        try:
            output = next(reading)
        except StopIteration as stop:
            return "".join(told) if stop.value and not source.unread.strip() else None
        if isinstance(output, Arguments):
            told.append(output.text)
