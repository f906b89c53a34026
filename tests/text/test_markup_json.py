"""Calls as JSON objects: between tags, bare, after Llama's tag, after Mistral's."""

import pytest
from markup_reading import PING, called, outputs_of, read

from helexa.conversation import Json
from helexa.text.markup import Arguments, Call, Ended, Say, ToolFormat

PARIS = '{"city": "Paris", "days": 3}'
CALL = f'{{"name": "get_weather", "arguments": {PARIS}}}'
LLAMA_CALL = f'{{"name": "get_weather", "parameters": {PARIS}}}'
COHERE_CALL = f'{{"tool_call_id": "1", "tool_name": "get_weather", "parameters": {PARIS}}}'
WEATHER = ("get_weather", PARIS)
PINGED = ("ping", "{}")


def test_text_stays_as_it_is() -> None:
    text = " A < b, a { b [ c and `x`:\n\n  {1: 2}\n```python\n{}\n```\n\n"
    assert read("hermes", text).text == text


def test_a_call_between_tags() -> None:
    told = read("hermes", f"<tool_call>\n{CALL}\n</tool_call>")
    assert (told.text, told.calls) == ("", called(WEATHER))


def test_arguments_come_as_they_are_generated() -> None:
    text = f'<tool_call>{{"name": "get_weather", "arguments": {PARIS}}}</tool_call>'
    outputs = outputs_of("hermes", text)
    assert outputs[0] == Call("get_weather")
    assert outputs[1:-1] == [Arguments(character) for character in PARIS]
    assert outputs[-1] == Ended()


def test_text_before_between_and_after_calls_is_kept_without_the_space_around_them() -> None:
    block = f"<tool_call>\n{CALL}\n</tool_call>"
    outputs = outputs_of("hermes", [f"First.\n\n{block}\nThen.\n{block}\n{block}\n\nLast."])
    kinds = [output.text if isinstance(output, Say) else output for output in outputs]
    call = [Call("get_weather"), Arguments(PARIS), Ended()]
    assert kinds == ["First.", *call, "Then.", *call, *call, "Last."]


@pytest.mark.parametrize(
    "block",
    [
        f"<tool_call>[{CALL}, {CALL}]</tool_call>",
        f"<tool_call>{CALL}\n{CALL}</tool_call>",
        f"<tool_call>{CALL}, {CALL} </tool_call>",
        f"<tool_call>{CALL}<tool_call>{CALL}",
        f"<tool_call>{CALL}}}</tool_call><tool_call>{CALL}]}}</tool_call>",
        f"<|tool_call|>[{CALL}, {CALL}]<|/tool_call|>",
        f"<TOOLCALL>[{CALL},{CALL}]</TOOLCALL>",
        f"<|START_ACTION|>[{CALL}, {COHERE_CALL}]<|END_ACTION|>",
    ],
)
def test_several_calls_however_they_stand(block: str) -> None:
    told = read("hermes", block)
    assert (told.text, told.calls) == ("", called(WEATHER, WEATHER))


@pytest.mark.parametrize(
    ("block", "call"),
    [
        ('{"name": "f", "parameters": {"a": 1}}', ("f", '{"a": 1}')),
        ('{"arguments": {"name": "x"}, "name": "f"}', ("f", '{"name": "x"}')),
        ('{"name": "f"}', ("f", "{}")),
        ('{"name": "f", "arguments": null}', ("f", "{}")),
        ('{"name": "f", "arguments": ""}', ("f", "{}")),
        ('{"name": "f", "arguments": "{\\"a\\": \\"b\\"}"}', ("f", '{"a": "b"}')),
        ('{"name": "f", "arguments": "hello"}', ("f", '"hello"')),
        ('{"id": 7, "type": "function", "name": "f", "arguments": {}}', ("f", "{}")),
        ('{"type": "function", "function": {"name": "f", "arguments": {}}}', ("f", "{}")),
        ('{"name": "f", "arguments": {"a": 1}, "id": "x"}', ("f", '{"a": 1}')),
        ('{"name": "f", "arguments": {"a": 1}, "arguments": {}}', ("f", '{"a": 1}')),
        ('{\n "name" : "f",\n "arguments" :\n {"a": [1, {}]}\n}', ("f", '{"a": [1, {}]}')),
        ('{"name": "f\\u00e9", "arguments": {}}', ("fé", "{}")),
        ('{"name": "f", "arguments": {"a": 1}', ("f", '{"a": 1}')),
    ],
)
def test_an_object_in_the_variations_that_models_write(block: str, call: tuple[str, str]) -> None:
    assert read("hermes", f"<tool_call>\n{block}\n</tool_call>").calls == called(call)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('{"a": "x\ny\tz"}', '{"a": "x\\ny\\tz"}'),
        ('{"a": "\\d+ \\\' \\\n"}', '{"a": "\\\\d+ \' \\\\\\n"}'),
        ('{"a": "\\"</tool_call>\\" {[", "b": "}"}', '{"a": "\\"</tool_call>\\" {[", "b": "}"}'),
        ('{"a": "日本 😀 \\u65e5"}', '{"a": "日本 😀 \\u65e5"}'),
    ],
)
def test_strings_stay_as_they_are_but_for_what_json_forbids(written: str, meant: str) -> None:
    block = f'<tool_call>{{"name": "f", "arguments": {written}}}</tool_call>'
    assert read("hermes", block).calls == called(("f", meant))


def test_a_marked_call_of_an_unknown_tool_is_passed_on() -> None:
    block = '<tool_call>{"name": "nobody", "arguments": {}}</tool_call>'
    assert read("hermes", block).calls == called(("nobody", "{}"))


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>no call</tool_call> and more",
        "<tool_call></tool_call>",
        '<tool_call>{"arguments": {"a": 1}}</tool_call>',
        '<tool_call>{"name": "", "arguments": {}}</tool_call>',
        '<tool_call>{"name": 7, "arguments": {}}</tool_call>',
        "<tool_call>[1, 2]</tool_call>",
        "<tool_call>[]</tool_call>",
        "<tool_call>{name: f}</tool_call>",
        "</tool_call> alone",
        "the tag <tool_call> begins a call",
        '<tool_call>{"name": "f',
        "<tool_call>",
        "<tool",
        '{"name": "' + "x" * 2000,
    ],
)
def test_a_block_that_cannot_be_read_is_text_in_full(text: str) -> None:
    told = read("hermes", text)
    assert (told.text, told.calls) == (text, [])


def test_what_follows_a_readable_call_in_a_list_is_text() -> None:
    told = read("hermes", f"<tool_call>[{CALL}, 5]</tool_call>")
    assert told.calls == called(WEATHER)
    assert "5" in told.text


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("arguments", ['{"city": "Par', '{"city": "Paris"', "{", '{"a": [1,'])
def test_a_call_that_breaks_off_keeps_its_half_written_arguments(arguments: str, cut: bool) -> None:
    text = f'<tool_call>{{"name": "get_weather", "arguments": {arguments}'
    assert read("hermes", text, cut=cut).calls == [["get_weather", arguments, False]]


def test_arguments_that_are_no_json_end_where_the_tag_does() -> None:
    told = read("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1</tool_call>\nSo.')
    assert (told.text, told.calls) == ("So.", [["f", '{"a": 1', False]])


# -- without tags ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        CALL,
        f"\n{CALL}\n",
        LLAMA_CALL,
        f"[{CALL}]",
        f"```json\n{CALL}\n```",
        f"```\n[{CALL}]\n```",
        f"```tool_call\n{CALL}```",
        f"{CALL}\n</tool_call>",
        '<function=get_weather>{"city": "Paris", "days": 3}</function>',
    ],
)
def test_small_models_leave_out_the_tags(text: str) -> None:
    told = read("hermes", text)
    assert (told.text.strip(), told.calls) == ("", called(WEATHER))


def test_text_around_a_bare_call_is_kept() -> None:
    told = read("hermes", f"I look it up:\n\n```json\n{CALL}\n```\n\nOne moment.")
    assert (told.text, told.calls) == ("I look it up:One moment.", called(WEATHER))


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "nobody", "arguments": {}}',
        '{"name": "get_weather"}',
        '{"name": "get_weather", "city": "Paris"}',
        '{"city": "Paris", "name": "get_weather", "arguments": {}}',
        '{"parameters": {}}',
        f"as in {CALL}",
        "[1, 2, 3]",
        f'[{{"name": "nobody", "arguments": {PARIS}}}]',
        "```json\n{}\n```",
        "```python\nprint({})\n```",
        "```",
        "{",
    ],
)
def test_json_that_is_no_call_of_an_offered_tool_is_text(text: str) -> None:
    told = read("hermes", text)
    assert (told.text, told.calls) == (text, [])


def test_without_tools_nothing_is_a_call() -> None:
    text = f"<tool_call>{CALL}</tool_call>\n{CALL}"
    assert read("hermes", text, tools=(), think=("<think>", "</think>")).text == text


# -- Llama 3 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("between", ["; ", ";", " ; ", ";\n", "\n", " "])
@pytest.mark.parametrize("tag", ["", "<|python_tag|>"])
def test_llama_writes_several_calls_in_a_row(between: str, tag: str) -> None:
    text = between.join([tag + LLAMA_CALL, '{"name": "ping", "parameters": {}}', LLAMA_CALL])
    told = read("llama_json", text)
    assert (told.text, told.calls) == ("", called(WEATHER, PINGED, WEATHER))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"Here it is: {LLAMA_CALL} Anything else?", "Here it is:Anything else?"),
        (f"{LLAMA_CALL} I used {{it}}.", "I used {it}."),
        (f'{LLAMA_CALL} with {{"city": "Paris"}}', 'with {"city": "Paris"}'),
        (f"<function=get_weather>{PARIS}</function>", ""),
        (f"<|python_tag|>{CALL}", ""),
    ],
)
def test_llama_calls_in_the_middle_of_a_sentence(text: str, said: str) -> None:
    told = read("llama_json", text)
    assert (told.text, told.calls) == (said, called(WEATHER))


def test_llamas_tag_may_stand_before_python() -> None:
    told = read("llama_json", '<|python_tag|>brave_search.call(query="a b")')
    assert told.calls == called(("brave_search", '{"query": "a b"}'))


@pytest.mark.parametrize("text", ["<|python_tag|>print(1)\nx = 2", "<|python_tag|>", "{a"])
def test_what_is_no_call_of_llama_is_text(text: str) -> None:
    told = read("llama_json", text)
    assert told.text or told.calls


# -- Mistral ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f'[TOOL_CALLS][{CALL}, {{"name": "ping", "arguments": {{}}}}]',
        f'[TOOL_CALLS] [{CALL}, {{"arguments": {{}}, "name": "ping"}}]',
        f"[TOOL_CALLS]get_weather{PARIS}[TOOL_CALLS]ping{{}}",
        f"[TOOL_CALLS]get_weather[ARGS]{PARIS}[TOOL_CALLS]ping[ARGS]{{}}",
        f"[TOOL_CALLS]get_weather[CALL_ID]a1b2c3d4e[ARGS]{PARIS}[TOOL_CALLS]ping[CALL_ID]x[ARGS]{{}}",
        f"[TOOL_CALLS] [{CALL}][TOOL_CALLS]ping[ARGS] {{}}",
    ],
)
def test_mistral_has_had_several_forms(text: str) -> None:
    told = read("mistral", text)
    assert (told.text, told.calls) == ("", called(WEATHER, PINGED))


def test_mistral_says_something_first() -> None:
    told = read("mistral", f"Hello [x] [TOOL_CALLS][{CALL}]\nmore")
    assert (told.text, told.calls) == ("Hello [x]more", called(WEATHER))


@pytest.mark.parametrize("text", ["[TOOL_CALLS] not json at all", "[TOOL_CALLS]", "[TOOL", "[1]"])
def test_what_is_no_call_of_mistral_is_text(text: str) -> None:
    told = read("mistral", text)
    assert (told.text, told.calls) == (text, [])


@pytest.mark.parametrize("format", ["hermes", "llama_json"])
def test_a_tool_without_parameters_can_be_called_by_its_object(format: ToolFormat) -> None:
    text = '{"name": "ping", "parameters": {}}'
    settings: Json = {"tools": (PING,)}
    assert read(format, text, **settings).calls == called(PINGED)
