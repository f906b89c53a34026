"""Calls between tags: Hermes and Qwen with JSON, Qwen3-Coder and GLM with an element per argument.

Whatever the model should write there, each of the three is read: models confuse them.
"""

from collections.abc import Sequence
from typing import ClassVar

from helexa.conversation import Tool
from helexa.text.markup import bare
from helexa.text.markup.call_object import read_calls
from helexa.text.markup.elements import FUNCTION, read_functions, read_pairs
from helexa.text.markup.source import SPACE, Reading, Source

TAG, CLOSING = "<tool_call>", "</tool_call>"
SEED = "<seed:tool_call>"
TAGS = {
    TAG: CLOSING,
    SEED: "</seed:tool_call>",
    "<tool_calls>": "</tool_calls>",  # what other families write around the same JSON
    "<|tool_call|>": "<|/tool_call|>",
    "<function_call>": "</function_call>",
    "<TOOLCALL>": "</TOOLCALL>",
    "<|START_ACTION|>": "<|END_ACTION|>",
}


class Hermes:
    openers: ClassVar[tuple[str, ...]] = tuple(TAGS)
    line_openers: ClassVar[tuple[str, ...]] = (*bare.OPENERS, FUNCTION)
    markers: ClassVar[tuple[str, ...]] = (*TAGS, *TAGS.values())

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}

    def read(self, source: Source, opener: str) -> Reading[None]:
        if opener in bare.OPENERS:
            yield from bare.read_bare(source, self._tools)
        elif opener == FUNCTION:
            if (yield from read_functions(source, self._tools, self._tools)):
                yield from drop_closing(source, CLOSING)
        else:
            yield from self._read_block(source, opener)

    def _read_block(self, source: Source, opener: str) -> Reading[None]:
        yield from source.next(opener)
        yield from source.skip()
        while (yield from self._read_call(source, TAGS[opener])):
            if (yield from drop_closing(source, TAGS[opener])):
                return

    def _read_call(self, source: Source, closing: str) -> Reading[bool]:
        match (yield from source.peek()):
            case "<":
                return (yield from read_functions(source, self._tools))
            case "{" | "[":
                return (yield from read_calls(source))
            case _:
                return (yield from read_pairs(source, self._tools, closing))


class QwenXml(Hermes):
    openers: ClassVar[tuple[str, ...]] = (TAG, SEED)
    line_openers: ClassVar[tuple[str, ...]] = (FUNCTION,)
    markers: ClassVar[tuple[str, ...]] = (TAG, CLOSING, SEED, TAGS[SEED])


class Glm(Hermes):
    openers: ClassVar[tuple[str, ...]] = (TAG,)
    line_openers: ClassVar[tuple[str, ...]] = ()
    markers: ClassVar[tuple[str, ...]] = (
        TAG,
        CLOSING,
        "<arg_key>",
        "</arg_key>",
        "<arg_value>",
        "</arg_value>",
    )


def drop_closing(source: Source, *closings: str) -> Reading[bool]:
    """Take the tag that closes a block of calls, if it comes next but for brackets too many."""
    source.mark()
    yield from source.skip("}]," + SPACE)
    if (yield from source.next(*closings)):
        source.forget()
        return True
    return False
