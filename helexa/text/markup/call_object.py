"""A call as a JSON object: {"name": ..., "arguments": {...}}, in the variations that models write."""

from collections.abc import Container

import orjson

from helexa.text.markup.json_text import read_key, read_string, read_value, tell_value
from helexa.text.markup.outputs import Arguments, Ended
from helexa.text.markup.source import SPACE, Reading, Source

NAMES = ("name", "function", "tool_name")
ARGUMENTS = ("arguments", "parameters", "args")
KEYS = frozenset((*NAMES, *ARGUMENTS, "type", "id"))


def read_calls(source: Source, offered: Container[str] | None = None) -> Reading[bool]:
    """A call, or a list of calls.  False where it is none: what was taken is text."""
    if (yield from source.peek()) != "[":
        return (yield from read_call(source, offered))
    source.take(1)
    any_read = False
    while (yield from source.skip(SPACE + ",")) == "{":
        if not (yield from read_call(source, offered)):
            return False
        any_read = True
        source.mark()
    yield from source.next("]")
    if any_read:
        source.forget()
    return any_read


def read_call(source: Source, offered: Container[str] | None = None) -> Reading[bool]:
    """One call.  `offered` are the only names that make a call of JSON that nothing else marks."""
    if not (yield from source.next("{")):
        return False
    before, name, early, depth = source.num_calls, "", None, 1
    while depth:
        character = yield from source.skip(SPACE + ",")
        if character == "}":
            source.take(1)
            depth -= 1
            continue
        key = yield from read_key(source)
        character = yield from source.peek()
        if key is None or (offered is not None and key not in KEYS):
            break
        if key in NAMES and character == '"' and not name:
            name = (yield from read_string(source)) or ""
            if not name or (offered is not None and name not in offered):
                break
        elif key == "function" and character == "{":
            source.take(1)
            depth += 1
        elif key in ARGUMENTS and source.num_calls > before:
            yield from read_value(source)  # said twice
        elif key in ARGUMENTS and name:
            yield from source.call(name)
            if not (yield from tell_arguments(source)):
                break
        elif key in ARGUMENTS:
            taken, is_whole = yield from read_value(source)
            early = unquoted("".join(taken))
            if not is_whole:
                break
        else:
            yield from read_value(source)
    if source.num_calls > before:
        return True
    if depth or not name or (offered is not None and early is None):
        return False
    yield from source.call(name)
    yield Arguments(early or "{}")
    yield Ended()
    return True


def tell_arguments(source: Source) -> Reading[bool]:
    """The arguments of a call; whether they are whole."""
    if (yield from source.peek()) in ("{", "["):
        is_whole = yield from tell_value(source)
    else:
        taken, is_whole = yield from read_value(source)
        yield Arguments(unquoted("".join(taken)))
    if is_whole:
        yield Ended()
    return is_whole


def unquoted(text: str) -> str:
    """Arguments that are JSON text in a string, or null, as the JSON text that they mean."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    if value is None or value == "":
        return "{}"
    return value if isinstance(value, str) and value.lstrip().startswith("{") else text
