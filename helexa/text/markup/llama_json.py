"""Llama 3's calls: {"name": ..., "parameters": {...}}, with `;` between, perhaps after a tag.

Its small models also write them in the middle of a sentence, or as <function=name>{...}</function>.
"""

from collections.abc import Sequence
from typing import ClassVar

from helexa.conversation import Tool
from helexa.text.markup import bare
from helexa.text.markup.call_object import read_calls
from helexa.text.markup.elements import FUNCTION, read_functions
from helexa.text.markup.pythonic import read_python_calls
from helexa.text.markup.source import SPACE, Reading, Source

TAG = "<|python_tag|>"


class LlamaJson:
    openers: ClassVar[tuple[str, ...]] = (TAG, "{")
    line_openers: ClassVar[tuple[str, ...]] = ("[", bare.FENCE, FUNCTION)
    markers: ClassVar[tuple[str, ...]] = (TAG,)

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}

    def read(self, source: Source, opener: str) -> Reading[None]:
        if opener == FUNCTION:
            yield from read_functions(source, self._tools, self._tools)
        elif opener != TAG:
            yield from bare.read_bare(source, self._tools)
        else:
            yield from self._read_tagged(source)

    def _read_tagged(self, source: Source) -> Reading[None]:
        yield from source.next(TAG)
        if (yield from source.skip()) not in ("{", "["):  # name.call(key="value")
            yield from read_python_calls(source, self._tools, only_offered=False)
            return
        while (yield from read_calls(source)):
            yield from source.skip(SPACE + ";")
            source.mark()
