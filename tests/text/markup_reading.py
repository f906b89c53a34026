"""Reads marked-up answers in any pieces, and folds what came of them."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from attrs import define, field

from helexa.conversation import Json, Tool
from helexa.text.markup import (
    Arguments,
    Call,
    Ended,
    Markup,
    MarkupReader,
    Output,
    Say,
    Think,
    ToolFormat,
)

THINK = ("<think>", "</think>")


def schema_of(properties: dict[str, Json]) -> Json:
    return {"type": "object", "properties": properties}


WEATHER = Tool(
    "get_weather",
    "The weather in a city",
    schema_of({"city": {"type": "string"}, "days": {"type": "integer"}}),
)
PING = Tool("ping", None, schema_of({}))
TOOLS = (WEATHER, PING)


@define
class Told:
    """All that was told: text, thoughts, and calls as [name, arguments, whether they are whole]."""

    text: str = ""
    thought: str = ""
    calls: list[list[str | bool]] = field(factory=list)


def fold(outputs: Iterable[Output]) -> Told:
    told = Told()
    for output in outputs:
        match output:
            case Say(text):
                told.text += text
            case Think(text):
                told.thought += text
            case Call(name):
                told.calls.append([name, "", False])
            case Arguments(text):
                told.calls[-1][1] += text
            case Ended():
                told.calls[-1][2] = True
    return told


def pieces_at(text: str, cuts: Sequence[int]) -> list[str]:
    marks = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[a:b] for a, b in pairwise(marks)]


def outputs_of(
    format: ToolFormat,
    pieces: Iterable[str],
    *,
    tools: Sequence[Tool] = TOOLS,
    think: tuple[str, str] | None = None,
    prompt: str = "",
    continues: bool = False,
    cut: bool = False,
) -> list[Output]:
    reader = MarkupReader(Markup(format, think), tools, prompt, continues=continues)
    outputs = [output for piece in pieces for output in reader.push(piece)]
    return [*outputs, *reader.finish(cut=cut)]


def read(format: ToolFormat, text: str, **settings: Json) -> Told:
    """The answer in one piece and letter by letter: both must tell the same."""
    whole = fold(outputs_of(format, [text], **settings))
    assert fold(outputs_of(format, text, **settings)) == whole
    return whole


def called(*calls: tuple[str, str]) -> list[list[str | bool]]:
    return [[name, arguments, True] for name, arguments in calls]
