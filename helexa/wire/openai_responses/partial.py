"""The input of a custom tool, read out of the JSON arguments of a call while they still come."""

import json

import orjson
from attrs import define, field

from helexa.conversation import Json

HIGH_SURROGATES = ("d8", "d9", "da", "db")


@define(eq=False)
class InputReader:
    """Takes the arguments of one call piece by piece.

    Arguments that begin with `{"input": "` give their input as it comes.  Of all others the end decides:
    the string at `input` if they are JSON, else they are the input themselves, as some models write it.
    """

    _arguments: str = field(default="", init=False)
    _begin: int | None = field(default=None, init=False)  # of what was not yet told
    _closed: bool = field(default=False, init=False)
    _told: bool = field(default=False, init=False)

    def push(self, piece: str) -> str:
        """More of the input, perhaps nothing."""
        self._arguments += piece
        if self._begin is None:
            self._begin = find_begin(self._arguments)
        if self._begin is None or self._closed:
            return ""
        end, self._closed = find_end(self._arguments, self._begin)
        text = decode(self._arguments[self._begin : end])
        self._begin = end
        self._told = True
        return text

    def finish(self) -> str:
        """What is left of the input when no more comes."""
        if self._told:
            return ""
        parsed = parse(self._arguments)
        if isinstance(parsed, dict) and isinstance(parsed.get("input"), str):
            return str(parsed["input"])
        return self._arguments


def read_input(arguments: str) -> str:
    reader = InputReader()
    return reader.push(arguments) + reader.finish()


def find_begin(arguments: str) -> int | None:
    """Where the text of the input begins, if the arguments begin with it."""
    rest = arguments
    for token in ("{", '"input"', ":", '"'):
        rest = rest.lstrip(" \t\r\n")
        if not rest.startswith(token):
            return None
        rest = rest[len(token) :]
    return len(arguments) - len(rest)


def find_end(arguments: str, begin: int) -> tuple[int, bool]:
    """How far the string that goes on at `begin` can be decoded, and whether it is closed there."""
    at = begin
    while at < len(arguments):
        if arguments[at] == '"':
            return at, True
        if arguments[at] != "\\":
            at += 1
            continue
        width = escape_width(arguments, at)
        if at + width > len(arguments):
            break
        at += width
    return at, False


def escape_width(arguments: str, at: int) -> int:
    """The characters of the escape at `at`; a pair of surrogates is one escape."""
    if arguments[at + 1 : at + 2] != "u":
        return 2
    is_high = arguments[at + 2 : at + 4].lower() in HIGH_SURROGATES
    return 12 if is_high and "\\u".startswith(arguments[at + 6 : at + 8]) else 6


def decode(escaped: str) -> str:
    """The text of a JSON string, also with line breaks as they are; one that is not valid stands for
    itself."""
    try:
        text = str(json.loads(f'"{escaped}"', strict=False))
    except ValueError:
        return escaped
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def parse(text: str) -> Json:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
