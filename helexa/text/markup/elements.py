"""Calls as elements: <function=name> with <parameter=key>, and a name with <arg_key> and <arg_value>.

What stands between the tags becomes JSON by the types that the tool's schema declares.
"""

from collections.abc import Container, Mapping

from helexa.conversation import Tool
from helexa.text.markup.json_text import MAX_NAME, escape, is_of_name, tell_value
from helexa.text.markup.outputs import Arguments, Ended
from helexa.text.markup.schema import types_of
from helexa.text.markup.source import Reading, Source
from helexa.text.markup.values import tell_element
from helexa.text.stops import Automaton

FUNCTION, PARAMETER = "<function=", "<parameter="
NEXT_PARAMETER, END_OF_FUNCTION = "\n<parameter=", "\n</function>"
END_OF_PARAMETER = Automaton(
    # A model may forget to close a parameter.  The line break before a tag is no part of the value.
    ("\n</parameter>", "</parameter>", NEXT_PARAMETER, END_OF_FUNCTION)
)
KEY, END_OF_KEY, VALUE = "<arg_key>", "</arg_key>", "<arg_value>"
END_OF_VALUE = Automaton(("</arg_value>",))
Tools = Mapping[str, Tool]


def read_functions(
    source: Source, tools: Tools, offered: Container[str] | None = None
) -> Reading[bool]:
    """One function with its parameters.  False if it is none: what was taken is text."""
    if not (yield from source.next(FUNCTION)):
        return False
    name = yield from read_name(source)
    if not name or not (yield from source.next(">")):
        return False
    if offered is not None and name not in offered:
        return False
    yield from source.call(name)
    if (yield from source.skip()) == "{":
        yield from tell_object(source)
    else:
        yield from tell_parameters(source, tools.get(name))
    return True


def tell_object(source: Source) -> Reading[None]:
    """All arguments at once, as JSON."""
    if (yield from tell_value(source)):
        yield Ended()
    yield from source.skip()
    yield from source.next("</function>")


def tell_parameters(source: Source, tool: Tool | None) -> Reading[None]:
    before = "{"
    while True:
        source.mark()
        yield from source.skip()
        found = yield from source.next(PARAMETER, "</function>")
        if found != PARAMETER:
            break
        key = yield from read_name(source)
        if not (yield from source.next(">")):
            break
        source.forget()
        yield from source.next("\n")
        yield Arguments(f'{before}"{escape(key)}": ')
        before = ", "
        end = yield from tell_element(source, END_OF_PARAMETER, types_of(tool, key))
        if not end:
            return
        if end in (NEXT_PARAMETER, END_OF_FUNCTION):
            source.back(len(end))
    yield from tell_end(source, before)
    if found:
        source.forget()


def read_pairs(source: Source, tools: Tools, closing: str) -> Reading[bool]:
    """A name, then keys and values.  A name alone is a call if it is that of an offered tool."""
    name = yield from source.word(is_of_name, MAX_NAME)
    yield from source.skip()
    found = yield from source.starts(KEY, closing)
    if not name or not found or (found == closing and name not in tools):
        return False
    yield from source.call(name)
    yield from tell_pairs(source, tools.get(name))
    return True


def tell_pairs(source: Source, tool: Tool | None) -> Reading[None]:
    before = "{"
    while True:
        source.mark()
        yield from source.skip()
        if not (yield from source.next(KEY)):
            break
        key = (yield from source.word(lambda character: character != "<", MAX_NAME)).strip()
        if not (yield from source.next(END_OF_KEY)):
            break
        yield from source.skip()
        if not (yield from source.next(VALUE)):
            break
        source.forget()
        yield Arguments(f'{before}"{escape(key)}": ')
        before = ", "
        if not (yield from tell_element(source, END_OF_VALUE, types_of(tool, key))):
            return
    yield from tell_end(source, before)


def tell_end(source: Source, before: str) -> Reading[None]:
    """The closing brace, unless the text was cut off here: there might be more."""
    if (yield from source.peek()) or not source.cut:
        yield Arguments("{}" if before == "{" else "}")
        yield Ended()
    elif before == "{":
        yield Arguments("{")


def read_name(source: Source) -> Reading[str]:
    name = yield from source.word(lambda character: character not in "<>\r\n", MAX_NAME)
    return name.strip().strip("\"'")
