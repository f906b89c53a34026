"""Calls as Python writes them: [f(a=1, b="x"), g()], as Llama 3.2 and 4 and LFM2 do.

Some of these models are also asked for JSON, so that is read too.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from helexa.conversation import Tool
from helexa.text.markup.call_object import read_call
from helexa.text.markup.json_text import MAX_NAME, escape
from helexa.text.markup.literals import tell_literal
from helexa.text.markup.outputs import Arguments, Ended
from helexa.text.markup.source import SPACE, Reading, Source

LIST, OBJECT = "[", "{"
TAGS = {
    "<|python_start|>": "<|python_end|>",
    "<|tool_call_start|>": "<|tool_call_end|>",
    "<function_calls>": "</function_calls>",
}


class Pythonic:
    openers: ClassVar[tuple[str, ...]] = tuple(TAGS)
    line_openers: ClassVar[tuple[str, ...]] = (LIST, OBJECT)
    markers: ClassVar[tuple[str, ...]] = (*TAGS, *TAGS.values())

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}

    def read(self, source: Source, opener: str) -> Reading[None]:
        """A list of calls; between tags also calls without brackets around them."""
        marked = opener in TAGS
        if marked:
            yield from source.next(opener)
            yield from source.skip()
        if (yield from self._read_calls(source, marked)):
            yield from source.skip(SPACE + "];")
            yield from source.next(*TAGS.values())
            source.forget()

    def _read_calls(self, source: Source, marked: bool) -> Reading[bool]:
        if (yield from source.next(LIST)):
            yield from source.skip()
        if not (yield from source.starts(OBJECT)):
            return (yield from read_python_calls(source, self._tools, only_offered=not marked))
        any_read = False
        while (yield from read_call(source, None if marked else self._tools)):
            any_read = True
            yield from source.skip(SPACE + ",;")
            source.mark()
        return any_read


def read_python_calls(
    source: Source, tools: Mapping[str, Tool], *, only_offered: bool
) -> Reading[bool]:
    """Calls with commas or line breaks between.  False if what was taken is text."""
    any_read = False
    while is_of_name((yield from source.skip())):
        name = (yield from source.word(is_of_name, MAX_NAME)).removesuffix(".call")
        if (only_offered and name not in tools) or not (yield from source.next("(")):
            return False
        yield from source.call(name)
        any_read = True
        if not (yield from tell_arguments(source, tools.get(name))):
            yield from tell_rest(source)
        source.mark()
        yield from source.skip(SPACE + ",")
    return any_read


def tell_arguments(source: Source, tool: Tool | None) -> Reading[bool]:
    """What stands between the parentheses, as a JSON object; whether it is whole."""
    yield Arguments("{")
    before, unnamed = "", positions(tool)
    while (first := (yield from source.skip())) != ")":
        if first.isalpha() or first == "_":
            key = yield from source.word(is_of_name, MAX_NAME)
            yield from source.skip()
            if not (yield from source.next("=")):
                yield Arguments(before + key)
                return False
        elif unnamed:
            key = unnamed.pop(0)
        else:
            return False
        yield Arguments(f'{before}"{escape(key)}": ')
        before = ", "
        if not (yield from tell_literal(source)):
            return False
        if (yield from source.skip()) == ",":
            source.take(1)
        elif not (yield from source.starts(")")):
            return False
    source.take(1)
    yield Arguments("}")
    yield Ended()
    return True


def tell_rest(source: Source) -> Reading[None]:
    """What is no literal goes to the client as it is, up to the end of the call."""
    depth, quote, escapes = 1, "", False
    while depth and (character := (yield from source.peek())):
        source.take(1)
        if quote:
            quote = "" if character == quote and not escapes else quote
            escapes = character == "\\" and not escapes
        elif character in "\"'":
            quote = character
        else:
            depth += (character == "(") - (character == ")")
        if depth:
            yield Arguments(character)


def positions(tool: Tool | None) -> list[str]:
    """The names of arguments that are given by their place."""
    schema = tool.parameters if tool is not None else None
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return list(properties) if isinstance(properties, dict) else []


def is_of_name(character: str) -> bool:
    return character != "" and (character.isalnum() or character in "_-.")
