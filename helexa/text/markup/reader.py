"""Reads an answer that is text with marked-up calls and reasoning in it: every format but harmony."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Protocol

from helexa.conversation import Tool
from helexa.text.markup import harmony, llama_json, mistral, pythonic, sections, tagged
from helexa.text.markup.names import Markup, ToolFormat
from helexa.text.markup.outputs import Arguments, Output, Say, Think
from helexa.text.markup.source import SPACE, Reading, Source
from helexa.text.markup.speech import Speech
from helexa.text.markup.thought import NEWLINES, opens_thinking, read_thought
from helexa.text.stops import Automaton


class Calls(Protocol):
    """How a format marks calls.

    `openers` begin a block of calls wherever they stand, `line_openers` only at the beginning of a
    line.  `read` reads one, its opener first: what it leaves in the source as taken since the last
    mark is no call but text.  `markers` may be single tokens.
    """

    openers: ClassVar[tuple[str, ...]]
    line_openers: ClassVar[tuple[str, ...]]
    markers: ClassVar[tuple[str, ...]]

    def __init__(self, tools: Sequence[Tool]) -> None: ...
    def read(self, source: Source, opener: str) -> Reading[None]: ...


FORMATS: dict[ToolFormat, type[Calls]] = {
    "hermes": tagged.Hermes,
    "qwen_xml": tagged.QwenXml,
    "llama_json": llama_json.LlamaJson,
    "pythonic": pythonic.Pythonic,
    "mistral": mistral.Mistral,
    "deepseek_v3": sections.DeepSeek,
    "deepseek_v31": sections.DeepSeek,
    "glm": tagged.Glm,
    "kimi": sections.Kimi,
}


class MarkupReader:
    """One answer.  How it is cut into pieces makes no difference.

    `tools` are those that were offered: without any there are no calls, and what looks like one is
    text.  `prompt` is the text that the answer goes on with; `continues` says that it ends inside the
    assistant's own words.
    """

    def __init__(
        self, markup: Markup, tools: Sequence[Tool], prompt: str = "", *, continues: bool = False
    ) -> None:
        self._source = Source()
        self._reading: Reading[None]
        if markup.tools == "harmony":
            self._reading = harmony.read_answer(self._source, bool(tools), prompt)
        else:
            calls = FORMATS[markup.tools](tools) if tools else None
            self._reading = read_answer(self._source, markup, calls, prompt, continues)

    @property
    def thinking(self) -> bool:
        """Whether the text has come to where the model thinks."""
        return self._source.thinking

    def push(self, text: str) -> list[Output]:
        self._source.feed(text)
        return list(merged(self._outputs()))

    def finish(self, *, cut: bool = False) -> list[Output]:
        """The text is over: what was held back, as whatever it is.  `cut`: the model wrote no end."""
        self._source.ended, self._source.cut = True, cut
        return list(merged(self._outputs()))

    def _outputs(self) -> Iterator[Output]:
        for output in self._reading:
            if output is None:
                return
            yield output


def merged(outputs: Iterator[Output]) -> Iterator[Output]:
    """Neighbours of one kind as one."""
    last: Output | None = None
    for output in outputs:
        match last, output:
            case Arguments(first), Arguments(second):
                last = Arguments(first + second)
            case Say(first, begin), Say(second, then) if then == begin + len(first):
                last = Say(first + second, begin)
            case Think(first, begin), Think(second, then) if then == begin + len(first):
                last = Think(first + second, begin)
            case None, _:
                last = output
            case _:
                yield last
                last = output
    if last is not None:
        yield last


def read_answer(
    source: Source, markup: Markup, calls: Calls | None, prompt: str, continues: bool
) -> Reading[None]:
    think = markup.think
    speech = Speech(Say, continues=continues)
    if think and opens_thinking(markup, prompt):
        yield from read_thought(source, think)
        speech = Speech(Say, NEWLINES)
    marks = Automaton((*(think or ()), *markup.silent, *openers_of(calls)))
    while opener := (yield from source.until(marks, speech.say)):
        begin = source.position - len(opener)
        if think and opener in think:
            if speech.said:
                yield from speech.say(opener, begin)
            else:
                if opener == think[0]:
                    yield from read_thought(source, think)
                speech.restart(NEWLINES)
        elif opener in markup.silent:
            pass
        elif calls is None or (opener in calls.line_openers and not speech.starts_line):
            yield from speech.say(opener, begin)
        else:
            yield from read_block(source, calls, opener, speech)
    yield from speech.finish()


def openers_of(calls: Calls | None) -> tuple[str, ...]:
    return () if calls is None else (*calls.openers, *calls.line_openers)


def read_block(source: Source, calls: Calls, opener: str, speech: Speech) -> Reading[None]:
    source.back(len(opener))
    source.mark()
    before = source.num_calls
    yield from calls.read(source, opener)
    if source.num_calls > before:
        speech.restart(SPACE)
    begin = source.marked_at
    if text := source.returned():
        yield from speech.say(text, begin)


def markers_of(markup: Markup) -> tuple[str, ...]:
    """The markers that a tokeniser may have as tokens that are no text otherwise."""
    own = harmony.MARKERS if markup.tools == "harmony" else FORMATS[markup.tools].markers
    return (*own, *(markup.think or ()), *markup.silent)
