"""Calls in sections of special tokens: DeepSeek V3 and V3.1, Kimi K2."""

from collections.abc import Sequence
from typing import ClassVar

from helexa.conversation import Tool
from helexa.text.markup.json_text import MAX_NAME, JsonArguments
from helexa.text.markup.source import Reading, Source
from helexa.text.stops import Automaton

FENCES = ("```json", "```")


class Sections:
    """A section is a row of calls: begin, head, separator, arguments, end."""

    openers: ClassVar[tuple[str, ...]]
    line_openers: ClassVar[tuple[str, ...]] = ()
    markers: ClassVar[tuple[str, ...]]
    section: ClassVar[tuple[str, str]]
    begin: ClassVar[str]
    separator: ClassVar[str]
    end: ClassVar[str]

    def __init__(self, tools: Sequence[Tool]) -> None:
        marks = (self.end, self.begin, self.section[1])  # the last two where an end is forgotten
        fenced = (f"{before}```{after}{self.end}" for before in ("\n", "") for after in ("\n", ""))
        self._ends = Automaton((*marks, *fenced))
        self._others = marks[1:]
        self._tools = tools

    def read(self, source: Source, opener: str) -> Reading[None]:
        before = source.num_calls
        yield from source.next(self.section[0])
        yield from source.skip()
        while (yield from source.next(self.begin)):
            name = yield from self._read_name(source)
            if not name:
                return
            yield from source.call(name)
            yield from self._tell_arguments(source)
            source.mark()
            yield from source.skip()
        if (yield from source.next(self.section[1])) and source.num_calls > before:
            source.forget()

    def _read_name(self, source: Source) -> Reading[str]:
        head = yield from source.word(is_of_head, MAX_NAME)
        return self._name(head) if (yield from source.next(self.separator)) else ""

    def _name(self, head: str) -> str:
        return head.strip()

    def _tell_arguments(self, source: Source) -> Reading[None]:
        arguments = JsonArguments()
        end = yield from source.until(self._ends, arguments.tell)
        yield from arguments.finish(cut=not end and source.cut)
        if end in self._others:
            source.back(len(end))


class DeepSeek(Sections):
    """V3 names the function after the separator and fences its arguments; V3.1 does neither."""

    section: ClassVar = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
    begin: ClassVar = "<｜tool▁call▁begin｜>"
    separator: ClassVar = "<｜tool▁sep｜>"
    end: ClassVar = "<｜tool▁call▁end｜>"
    openers: ClassVar[tuple[str, ...]] = (section[0], begin)
    markers: ClassVar[tuple[str, ...]] = (*section, begin, separator, end)

    def _read_name(self, source: Source) -> Reading[str]:
        head = yield from super()._read_name(source)
        yield from source.skip()
        if head != "function":
            return head
        name = yield from source.word(lambda character: character not in "\r\n`{<", MAX_NAME)
        yield from source.skip()
        yield from source.next(*FENCES)
        return name.strip()


class Kimi(Sections):
    """The head is the id of a call: functions.name:0."""

    section: ClassVar = ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>")
    begin: ClassVar = "<|tool_call_begin|>"
    separator: ClassVar = "<|tool_call_argument_begin|>"
    end: ClassVar = "<|tool_call_end|>"
    openers: ClassVar[tuple[str, ...]] = (section[0], begin)
    markers: ClassVar[tuple[str, ...]] = (*section, begin, separator, end)

    def _name(self, head: str) -> str:
        name, colon, number = head.strip().rpartition(":")
        if not colon and number.isdecimal() and len(self._tools) == 1:
            return self._tools[0].name  # the number alone
        return (name if colon and number.isdecimal() else head.strip()).removeprefix("functions.")


def is_of_head(character: str) -> bool:
    return character not in "<\r\n"
