"""Calls as JSON that nothing marks, or only a fence of code: those of offered tools."""

from collections.abc import Container

from helexa.text.markup.call_object import read_calls
from helexa.text.markup.source import SPACE, Reading, Source

FENCE = "```"
CLOSING = "</tool_call>"  # models that forget to open a tag still close it
OPENERS = ("{", "[", FENCE)
MAX_LABEL = 16  # characters after a fence


def read_bare(source: Source, offered: Container[str]) -> Reading[None]:
    """Calls one after the other, perhaps with `;` between them."""
    while (yield from read_one(source, offered)):
        yield from source.skip(SPACE + ";")
        source.mark()


def read_one(source: Source, offered: Container[str]) -> Reading[bool]:
    fence = yield from source.next(FENCE)
    if fence:
        yield from source.word(is_label, MAX_LABEL)
        yield from source.skip()
    if not (yield from read_calls(source, offered)):
        return False
    yield from source.skip()
    yield from source.next(CLOSING, *([FENCE] if fence else []))
    return True


def is_label(character: str) -> bool:
    return character.isalnum() or character in "_-"
