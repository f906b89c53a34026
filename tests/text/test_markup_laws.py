"""What holds for every format, whatever the model writes."""

import json

import pytest
from growth import in_proportion
from hypothesis import given
from hypothesis import strategies as st
from markup_reading import THINK, fold, outputs_of, pieces_at, read

from helexa.conversation import Json
from helexa.text.markup import Call, Say, Think, ToolFormat, markers_of
from helexa.text.markup.names import Markup

FORMATS: tuple[ToolFormat, ...] = (
    "hermes",
    "qwen_xml",
    "llama_json",
    "pythonic",
    "mistral",
    "deepseek_v3",
    "deepseek_v31",
    "glm",
    "harmony",
    "kimi",
)
PIECES = sorted(
    {
        *(marker for format in FORMATS for marker in markers_of(Markup(format, THINK))),
        *("<function=", "<parameter=", "</parameter>", "</function>", ">", "get_weather", "ping"),
        *("{", "}", "[", "]", "(", ")", '"', "'", '"""', "\\", ":", ",", ";", "=", "\n", " ", "a"),
        *('"name"', '"arguments"', '{"name": "ping", "arguments": {}}', '{"city": "Paris"}'),
        *("```json\n", "```", "null", "None", "3", "\\u00e9", "functions.ping:0", "function"),
        *("analysis", "commentary to=functions.ping", "final", "city", "days", "text ", "😀"),
    }
)
answers = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)
settings = st.fixed_dictionaries(
    {
        "think": st.sampled_from([None, THINK]),
        "prompt": st.sampled_from(["", "<|start|>assistant", "Go on:<think>\n"]),
        "continues": st.booleans(),
        "cut": st.booleans(),
    }
)


@given(st.sampled_from(FORMATS), answers, st.lists(st.integers(0)), settings)
def test_how_an_answer_is_cut_makes_no_difference(
    format: ToolFormat, text: str, cuts: list[int], settings: Json
) -> None:
    whole = outputs_of(format, [text], **settings)
    assert fold(outputs_of(format, pieces_at(text, cuts), **settings)) == fold(whole)
    assert fold(outputs_of(format, text, **settings)) == fold(whole)


@given(st.sampled_from(FORMATS), answers, settings)
def test_what_is_said_is_what_the_model_wrote_where_it_wrote_it(
    format: ToolFormat, text: str, settings: Json
) -> None:
    end = 0
    for output in outputs_of(format, text, **settings):
        if isinstance(output, Say | Think):
            assert text[output.begin :].startswith(output.text)
            assert output.begin >= end
            end = output.begin + len(output.text)


@given(st.sampled_from(FORMATS), answers)
def test_nothing_is_swallowed_where_nothing_is_called(format: ToolFormat, text: str) -> None:
    told = read(format, text)
    if not told.calls and format != "harmony":
        assert told.text == text


@given(
    st.sampled_from(["hermes", "llama_json", "mistral", "deepseek_v3", "deepseek_v31", "kimi"]),
    st.dictionaries(
        st.text(max_size=9),
        st.recursive(st.none() | st.integers() | st.text(max_size=9), st.lists, max_leaves=5),
        max_size=4,
    ),
    st.booleans(),
)
def test_arguments_of_a_finished_call_are_json_if_the_models_were(
    format: ToolFormat, arguments: Json, ascii: bool
) -> None:
    written = json.dumps(arguments, ensure_ascii=ascii)
    call = f'{{"name": "get_weather", "arguments": {written}}}'
    text = {
        "hermes": f"<tool_call>\n{call}\n</tool_call>",
        "llama_json": call,
        "mistral": f"[TOOL_CALLS][{call}]",
        "deepseek_v3": "<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        f"{written}\n```<｜tool▁call▁end｜>",
        "deepseek_v31": f"<｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{written}<｜tool▁call▁end｜>",
        "kimi": "<|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
        f"{written}<|tool_call_end|>",
    }[format]
    assert read(format, text).calls == [["get_weather", written, True]]


LONG = 40_000


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "piece",
    ["word ", "<", "\n", "{", '{"name": "ping", "arguments": ', "<tool_call>", "[ping(", "[", "`"],
)
def test_a_long_answer_takes_time_in_proportion(format: ToolFormat, piece: str) -> None:
    def parse(length: int) -> None:
        pieces = [piece] * (length // len(piece))
        outputs_of(format, pieces, think=THINK, prompt="<|start|>assistant")

    assert in_proportion(parse, LONG // 10)


@pytest.mark.parametrize("format", FORMATS)
def test_arguments_that_come_before_the_name_are_held_in_time_in_proportion(
    format: ToolFormat,
) -> None:
    def parse(length: int) -> bool:
        text = '<tool_call>{"arguments": {"a": "' + "x" * length + '"}, "name": "ping"}</tool_call>'
        return Call("ping") in outputs_of(format, text)

    assert in_proportion(parse, LONG // 10)
    assert parse(LONG) is (format in ("hermes", "qwen_xml", "glm", "llama_json"))
