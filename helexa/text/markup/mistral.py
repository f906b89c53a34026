"""Mistral's calls: [TOOL_CALLS][{...}], later [TOOL_CALLS]name[CALL_ID]id[ARGS]{...} for each."""

from collections.abc import Sequence
from typing import ClassVar

from helexa.conversation import Tool
from helexa.text.markup.call_object import read_calls, tell_arguments
from helexa.text.markup.json_text import MAX_NAME, is_of_name
from helexa.text.markup.source import Reading, Source

TAG, CALL_ID, ARGS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"


class Mistral:
    openers: ClassVar[tuple[str, ...]] = (TAG,)
    line_openers: ClassVar[tuple[str, ...]] = ()
    markers: ClassVar[tuple[str, ...]] = (TAG, CALL_ID, ARGS)

    def __init__(self, tools: Sequence[Tool]) -> None:
        pass  # the format knows all that there is to know

    def read(self, source: Source, opener: str) -> Reading[None]:
        yield from source.next(TAG)
        if (yield from source.skip()) in ("{", "["):
            yield from read_calls(source)
        else:
            yield from read_named(source)


def read_named(source: Source) -> Reading[None]:
    name = yield from source.word(is_of_name, MAX_NAME)
    if (yield from source.next(CALL_ID)):
        yield from source.word(is_of_name, MAX_NAME)
    marked = yield from source.next(ARGS)
    yield from source.skip()
    if name and (marked or (yield from source.starts("{"))):
        yield from source.call(name)
        yield from tell_arguments(source)
