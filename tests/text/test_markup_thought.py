"""Reasoning between markers, and which markup a model has."""

from pathlib import Path

import pytest
from markup_reading import THINK, called, fold, read

from helexa.conversation import Json
from helexa.text.markup import Markup, MarkupReader, ToolFormat, detect, opens_thinking

ANY: Json = {"think": THINK}
SEEDED: Json = {"think": THINK, "prompt": "assistant\n<think>\n"}
CALL = '<tool_call>{"name": "ping", "arguments": {}}</tool_call>'


@pytest.mark.parametrize(
    ("text", "thought", "said"),
    [
        ("<think>\nHm.\n\nYes.\n</think>\n\nHello.\n", "Hm.\n\nYes.", "Hello.\n"),
        ("<think></think>Hello.", "", "Hello."),
        ("\n<think>a</think>b", "a", "b"),
        ("<think>a</think>\n\n  code", "a", "  code"),
        ("<think>cut off", "cut off", ""),
        ("Hello.", "", "Hello."),
        ("</think>\n\nHello.", "", "Hello."),
        ("The tag <think> opens, </think> closes.", "", "The tag <think> opens, </think> closes."),
        ("<think>a</think>b<think>c</think>", "a", "b<think>c</think>"),
        ("<think>a</think>\n<think>b</think>\nc", "ab", "c"),
        ("<think>a < b </thin k></think>c", "a < b </thin k>", "c"),
        ("<thin", "", "<thin"),
    ],
)
@pytest.mark.parametrize("tools", [(), None])
def test_thoughts_are_told_apart_from_words(
    text: str, thought: str, said: str, tools: Json
) -> None:
    settings = ANY if tools is None else ANY | {"tools": tools}
    told = read("hermes", text, **settings)
    assert (told.thought, told.text) == (thought, said)


@pytest.mark.parametrize(
    ("text", "thought", "said"),
    [
        ("Hm.\n</think>\n\nHello.", "Hm.", "Hello."),
        ("<think>\nHm.</think>Hello.", "Hm.", "Hello."),
        ("</think>Hello.", "", "Hello."),
        ("Hm.", "Hm.", ""),
    ],
)
def test_a_prompt_that_opens_a_thought_is_gone_on_with(text: str, thought: str, said: str) -> None:
    told = read("hermes", text, **SEEDED)
    assert (told.thought, told.text) == (thought, said)


def test_a_call_inside_a_thought_is_a_thought_and_one_after_it_is_a_call() -> None:
    told = read("hermes", f"<think>{CALL}</think>\n\n{CALL}", **ANY)
    assert (told.thought, told.text, told.calls) == (CALL, "", called(("ping", "{}")))


def test_a_thought_between_calls_is_a_thought() -> None:
    told = read("hermes", f"<think>a</think>{CALL}\n<think>b</think>\n{CALL}", **ANY)
    assert (told.thought, told.text, len(told.calls)) == ("ab", "", 2)


def test_markers_inside_arguments_are_arguments() -> None:
    block = '<tool_call>{"name": "ping", "arguments": {"a": "<think>x</think>"}}</tool_call>'
    told = read("hermes", block, **ANY)
    assert (told.thought, told.calls) == ("", called(("ping", '{"a": "<think>x</think>"}')))


def test_an_answer_that_continues_a_text_does_not_begin_with_a_thought() -> None:
    told = read("hermes", "<think> is a tag", **ANY, continues=True)
    assert (told.thought, told.text) == ("", "<think> is a tag")


def test_whether_the_model_thinks_is_known_all_along() -> None:
    reader = MarkupReader(Markup("hermes", THINK), ())
    seen = []
    for piece in ("<think>", "Hm", "</think>", "Hello"):
        reader.push(piece)
        seen.append(reader.thinking)
    assert seen == [True, True, False, False]


@pytest.mark.parametrize(
    ("prompt", "opens"),
    [
        ("<think>", True),
        ("assistant\n<think>\n\n", True),
        ("<think>\n\n</think>\n\n", False),
        ("user: what is <think>?\nassistant:", False),
        ("", False),
    ],
)
def test_only_the_end_of_a_prompt_opens_a_thought(prompt: str, opens: bool) -> None:
    assert opens_thinking(Markup("hermes", THINK), prompt) is opens
    assert not opens_thinking(Markup("hermes"), prompt)


# -- which markup a model has --------------------------------------------------------------------------

TOOLS = "{% if tools %}{{ tools | tojson }}{% endif %}"


@pytest.mark.parametrize(
    ("source", "format"),
    [
        ("", "hermes"),
        (TOOLS, "hermes"),
        (f"{TOOLS} answer within <tool_call></tool_call>", "hermes"),
        (f"{TOOLS} <tool_call>\n<function=a>\n<parameter=b>", "qwen_xml"),
        (f"{TOOLS} <tool_call>{{function-name}}\n<arg_key>", "glm"),
        (f"{TOOLS} Environment: ipython <|python_tag|>", "llama_json"),
        (
            f'{TOOLS} {{"name": f, "parameters": dictionary of argument name and its value}}',
            "llama_json",
        ),
        (f"{TOOLS} <|python_start|>[f(a=1)]<|python_end|>", "pythonic"),
        (f"{TOOLS} [func_name1(params_name1=params_value1)]", "pythonic"),
        (f"{TOOLS} <|tool_call_start|>[f()]<|tool_call_end|>", "pythonic"),
        (f"{TOOLS} <|tool_list_start|>[]<|tool_list_end|>", "pythonic"),
        (f"{TOOLS} [AVAILABLE_TOOLS] [TOOL_CALLS]", "mistral"),
        (f"{TOOLS} <｜tool▁calls▁begin｜>function<｜tool▁sep｜>\n```json", "deepseek_v3"),
        (f"{TOOLS} <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>", "deepseek_v31"),
        (f"{TOOLS} <|tool_calls_section_begin|>", "kimi"),
        (f"{TOOLS} <|start|><|channel|>analysis<|message|>", "harmony"),
        ("<|start|><|channel|>analysis<|message|>", "harmony"),
        # A template that does not read tools gets the generic preamble, which asks for hermes' form.
        ("<｜tool▁calls▁begin｜> {{ message.tool_calls }}", "hermes"),
    ],
)
def test_a_template_tells_how_calls_are_written(source: str, format: ToolFormat) -> None:
    assert detect(source, lambda _: False).tools == format


@pytest.mark.parametrize(
    ("source", "tokens", "think"),
    [
        ("{{ '<think>' }}", (), ("<think>", "</think>")),
        ("{{ content.split('</think>')[-1] }}", (), ("<think>", "</think>")),
        ("[THINK]", (), ("[THINK]", "[/THINK]")),
        ("<seed:think>", (), ("<seed:think>", "</seed:think>")),
        ("<|START_THINKING|>", (), ("<|START_THINKING|>", "<|END_THINKING|>")),
        ("◁think▷", (), ("◁think▷", "◁/think▷")),
        (
            "Here is my thought process:",
            (),
            ("Here is my thought process:", "Here is my response:"),
        ),
        ("{{ messages }}", ("<think>",), ("<think>", "</think>")),
        ("{{ messages }}", ("<other>",), None),
        ("", ("<think>",), None),
        ("<|channel|><|message|>", ("<think>",), None),
    ],
)
def test_markers_of_thoughts_are_found_in_the_template_or_among_the_tokens(
    source: str, tokens: tuple[str, ...], think: tuple[str, str] | None
) -> None:
    assert detect(source, tokens.__contains__).think == think


def test_markers_around_what_is_said_are_no_text() -> None:
    think = ("<|START_THINKING|>", "<|END_THINKING|>")
    source = f"{TOOLS} {think[0]} <|START_RESPONSE|> <|END_RESPONSE|>"
    markup = detect(source, lambda _: False)
    assert markup.silent == ("<|START_RESPONSE|>", "<|END_RESPONSE|>")
    text = f"{think[0]}Hm.{think[1]}<|START_RESPONSE|>It is sunny.<|END_RESPONSE|>"
    for pieces in ([text], list(text)):
        reader = MarkupReader(markup, ())
        told = fold([o for piece in pieces for o in reader.push(piece)] + reader.finish())
        assert (told.thought, told.text) == ("Hm.", "It is sunny.")


def test_tokens_are_asked_only_where_the_template_leaves_it_open() -> None:
    def refuse(token: str) -> bool:
        raise AssertionError(token)

    assert detect(f"{TOOLS}<think>", refuse) == Markup("hermes", ("<think>", "</think>"))


def test_the_templates_of_the_tests() -> None:
    templates = Path(__file__).parent / "templates"
    found = {
        path.stem: detect(path.read_text(), lambda _: False) for path in templates.glob("*.jinja")
    }
    assert found["chatml"] == Markup("hermes", None)
    assert found["tools_and_thinking"].think == THINK
