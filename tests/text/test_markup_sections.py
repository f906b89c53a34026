"""Calls in sections of special tokens: DeepSeek V3 and V3.1, Kimi K2."""

import pytest
from markup_reading import PING, TOOLS, called, read

from helexa.conversation import Json
from helexa.text.markup import ToolFormat

PARIS = '{"city": "Paris"}'
WEATHER = ("get_weather", PARIS)
PINGED = ("ping", "{}")


def v3(*calls: tuple[str, str]) -> str:
    each = (
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{arguments}\n```<｜tool▁call▁end｜>"
        for name, arguments in calls
    )
    return "<｜tool▁calls▁begin｜>" + "\n".join(each) + "<｜tool▁calls▁end｜>"


def v31(*calls: tuple[str, str]) -> str:
    each = (
        f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{arguments}<｜tool▁call▁end｜>"
        for name, arguments in calls
    )
    return "<｜tool▁calls▁begin｜>" + "".join(each) + "<｜tool▁calls▁end｜>"


def kimi(*calls: tuple[str, str]) -> str:
    each = (
        f"<|tool_call_begin|>functions.{name}:{i}<|tool_call_argument_begin|>{arguments}<|tool_call_end|>"
        for i, (name, arguments) in enumerate(calls)
    )
    return "<|tool_calls_section_begin|>" + "".join(each) + "<|tool_calls_section_end|>"


FORMS = [("deepseek_v3", v3), ("deepseek_v31", v31), ("kimi", kimi)]


@pytest.mark.parametrize(("format", "form"), FORMS)
def test_text_and_a_section_of_calls(format: ToolFormat, form: Json) -> None:
    told = read(format, "I look.\n\n" + form(WEATHER, PINGED, WEATHER))
    assert (told.text, told.calls) == ("I look.", called(WEATHER, PINGED, WEATHER))


@pytest.mark.parametrize(("format", "form"), FORMS)
def test_arguments_of_many_lines_and_brackets(format: ToolFormat, form: Json) -> None:
    arguments = '{\n  "html": "<div>{x}</div>",\n  "n": [1, {"a": null}]\n}'
    assert read(format, form(("f", arguments))).calls == called(("f", arguments))


@pytest.mark.parametrize(("format", "form"), FORMS)
def test_arguments_that_are_no_json_are_passed_as_they_are(format: ToolFormat, form: Json) -> None:
    told = read(format, form(("f", '{"city": "Paris"'), PINGED, ("g", "words")))
    assert [call[0] for call in told.calls] == ["f", "ping", "g"]
    assert told.calls[0][2] is told.calls[2][2] is False
    assert str(told.calls[0][1]).startswith('{"city": "Paris"')
    assert told.calls[1] == ["ping", "{}", True]


@pytest.mark.parametrize(("format", "form"), FORMS)
def test_a_section_without_calls_is_text(format: ToolFormat, form: Json) -> None:
    for text in (form(), "say " + form()[:10], form() + " more"):
        told = read(format, text)
        assert (told.text, told.calls) == (text, [])


@pytest.mark.parametrize(("format", "form"), FORMS)
def test_a_call_that_breaks_off_keeps_what_was_written(format: ToolFormat, form: Json) -> None:
    text = form(WEATHER)
    text = text[: text.index("Paris") + 3]
    assert read(format, text, cut=True).calls == [["get_weather", '{"city": "Par', False]]


@pytest.mark.parametrize(("format", "form"), FORMS)
def test_ends_that_are_left_out_do_no_harm(format: ToolFormat, form: Json) -> None:
    whole = form(WEATHER, PINGED)
    end = "<|tool_call_end|>" if format == "kimi" else "<｜tool▁call▁end｜>"
    section = "<|tool_calls_section_end|>" if format == "kimi" else "<｜tool▁calls▁end｜>"
    for text in (whole.replace(section, ""), whole.replace(end, ""), whole[: whole.rindex(end)]):
        told = read(format, text)
        assert (told.text, told.calls) == ("", called(WEATHER, PINGED))


@pytest.mark.parametrize(
    "text",
    [
        v3(WEATHER).replace("<｜tool▁calls▁begin｜>", ""),
        v3(WEATHER).replace("```json\n", "```\n"),
        v3(WEATHER).replace("\n```<", "\n```\n<"),
        v3(WEATHER).replace("\n```<", "<"),
    ],
)
def test_deepseek_leaves_out_this_and_that(text: str) -> None:
    assert read("deepseek_v3", text).calls == called(WEATHER)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ("functions.get_weather:0", "get_weather"),
        ("functions.get_weather:12 ", "get_weather"),
        ("get_weather:0", "get_weather"),
        ("functions.get_weather", "get_weather"),
        ("functions.a.b:0", "a.b"),
        ("functions.a:b:0", "a:b"),
        ("0", "0"),
    ],
)
def test_the_head_of_kimis_calls_holds_the_name(head: str, name: str) -> None:
    text = f"<|tool_call_begin|>{head}<|tool_call_argument_begin|> {PARIS} <|tool_call_end|>"
    section = f"<|tool_calls_section_begin|>{text}<|tool_calls_section_end|>"
    ((found, arguments, is_whole),) = read("kimi", section, tools=TOOLS).calls
    assert (found, str(arguments).strip(), is_whole) == (name, PARIS, True)


def test_kimis_number_alone_is_the_only_tool() -> None:
    text = "<|tool_call_begin|>0<|tool_call_argument_begin|><|tool_call_end|>"
    assert read("kimi", text, tools=(PING,)).calls == called(("ping", "{}"))
