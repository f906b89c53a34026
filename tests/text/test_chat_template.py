from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from helexa.conversation import (
    Conversation,
    Image,
    Json,
    Message,
    Part,
    Reasoning,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)
from helexa.errors import TemplateRenderFailed
from helexa.text.chat import messages_of, tools_of
from helexa.text.template import ChatTemplate, render

TEMPLATES = {
    path.stem: ChatTemplate(path.read_text())
    for path in sorted((Path(__file__).parent / "templates").glob("*.jinja"))
}
CHATML, STRICT, TOOLS = (
    TEMPLATES[name] for name in ("chatml", "strict_turns", "tools_and_thinking")
)
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
WEATHER = Tool(
    "weather", "of a city", {"type": "object", "properties": {"city": {"type": "string"}}}
)


def said(role: str, *parts: Part | str, name: str | None = None) -> Message:
    texts = (Text(part) if isinstance(part, str) else part for part in parts)
    return Message(role, tuple(texts), name)


def talk(*messages: Message, tools: Iterable[Tool] = (), **kwargs: Json) -> Conversation:
    return Conversation("m", messages, tools=tuple(tools), template_kwargs=tuple(kwargs.items()))


def text(template: ChatTemplate | None, *messages: Message, **options: Json) -> str:
    return render(template, talk(*messages, **options), TOKENS).text


CALLED = [
    said("user", "Weather?"),
    said("assistant", ToolCall("c1", "weather", '{"city": "Paris", "days": [1, 2]}')),
    Message("tool", (ToolResult("c1", (Text("sunny"),)),)),
]


# -- the same as transformers ---------------------------------------------------------------------------


def theirs(template: ChatTemplate, conversation: Conversation, **options: Json) -> str:
    messages = messages_of(conversation)
    continues = messages[-1]["role"] == "assistant" and bool(messages[-1]["content"])
    (found,), _ = render_jinja_template(
        [messages],
        tools=tools_of(conversation.tools),
        chat_template=template.source,
        continue_final_message=continues,
        add_generation_prompt=not continues,
        enable_thinking=False,
        **TOKENS,
        **options,
    )
    return found


words = st.text("ab é\n😀<>{}%'\"", min_size=1, max_size=12)
turns = st.builds(
    lambda user, assistant: (said("user", user), said("assistant", assistant)), words, words
)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@given(before=st.lists(turns, max_size=3), last=words, start=st.none() | words)
def test_the_prompt_is_the_one_that_transformers_makes(
    template: ChatTemplate, before: list[tuple[Message, Message]], last: str, start: str | None
) -> None:
    messages = [message for turn in before for message in turn] + [said("user", last)]
    if start is not None:
        messages.append(said("assistant", start))
    conversation = talk(*messages)
    assert render(template, conversation, TOKENS).text == theirs(template, conversation)


def test_tools_calls_and_results_are_rendered_as_transformers_does() -> None:
    thought = said("assistant", Reasoning("hm\n"), "so", ToolCall("c2", "weather", "{}"))
    result = Message("tool", (ToolResult("c2", (Text("rain"),)),))
    conversation = talk(said("system", "Be brief."), *CALLED, thought, result, tools=[WEATHER])
    found = render(TOOLS, conversation, TOKENS).text
    assert found == theirs(TOOLS, conversation)
    assert "<call weather city=Paris days=[\n 1,\n 2\n]></s>\n[tool weather]sunny" in found
    assert "<think>hm</think>so" in found


# -- what the system says --------------------------------------------------------------------------------


def test_all_that_the_system_says_comes_first_as_one_message() -> None:
    found = messages_of(
        talk(said("user", "1"), said("system", "A", "B"), said("developer", "C"), said("user", "2"))
    )
    assert found == [
        {"role": "system", "content": "A\n\nB\n\nC"},
        {"role": "user", "content": "1"},
        {"role": "user", "content": "2"},
    ]


def test_a_system_message_without_words_is_none() -> None:
    assert messages_of(talk(said("system"), said("user", "1")))[0]["role"] == "user"


def test_the_billing_line_of_a_client_is_dropped() -> None:
    line = "x-anthropic-billing-header: cc_version=2; cch=12345;"
    found = messages_of(talk(said("system", line, f"{line}\nBe brief."), said("user", line)))
    assert [message["content"] for message in found] == ["Be brief.", line]


# -- tools --------------------------------------------------------------------------------------------


def test_arguments_are_objects_where_they_parse() -> None:
    def arguments(text: str) -> Json:
        return messages_of(talk(said("assistant", ToolCall("c", "f", text))))[0]["tool_calls"][0][
            "function"
        ]["arguments"]

    assert arguments('{"a": 1}') == {"a": 1}
    assert arguments("") == {}
    assert arguments('{"a": ') == '{"a": '
    assert arguments("[1]") == "[1]"
    assert arguments("[" * 900 + "]" * 900) == "[" * 900 + "]" * 900


def test_a_broken_call_is_refused_aloud_when_tools_would_be_lost() -> None:
    broken = [said("user", "?"), said("assistant", ToolCall("c1", "weather", '{"city'))]
    with pytest.raises(TemplateRenderFailed) as refused:
        text(TOOLS, *broken, tools=[WEATHER])
    assert (refused.value.status, refused.value.code) == (422, "template_render_failed")
    assert "pairs" in refused.value.message


def test_a_broken_call_without_tools_gets_the_plain_form() -> None:
    broken = [said("user", "?"), said("assistant", ToolCall("c1", "weather", '{"city'))]
    found = render(TOOLS, talk(*broken), TOKENS)
    assert found.is_plain
    assert found.text.startswith("user: ?\n\nassistant: <tool_call>")


def test_a_template_that_knows_no_tools_gets_them_as_text() -> None:
    found = text(CHATML, said("system", "Be brief."), *CALLED, tools=[WEATHER])
    assert "<|im_start|>system\nBe brief.\n\nYou can call functions." in found
    assert '{"name":"weather","description":"of a city","parameters":{' in found
    call = '<tool_call>\n{"name":"weather","arguments":{"city":"Paris","days":[1,2]}}\n</tool_call>'
    assert f"<|im_start|>assistant\n{call}<|im_end|>" in found
    assert "<|im_start|>user\n<tool_response>\nsunny\n</tool_response><|im_end|>" in found


def test_calls_of_the_past_are_text_even_when_no_tools_are_left() -> None:
    found = text(CHATML, *CALLED)
    assert "You can call functions" not in found
    assert "<tool_response>\nsunny" in found


@pytest.mark.parametrize(
    ("template", "reads_tools", "reads_thinking"),
    [(CHATML, False, False), (STRICT, False, False), (TOOLS, True, True)],
)
def test_what_a_template_reads_is_known(
    template: ChatTemplate, reads_tools: bool, reads_thinking: bool
) -> None:
    assert (template.reads_tools, template.reads_thinking) == (reads_tools, reads_thinking)


def test_the_word_tools_in_a_text_is_no_tools() -> None:
    assert not ChatTemplate("{{ 'I have no tools' }}{{ messages }}").reads_tools
    assert ChatTemplate(
        "{%- if not tools is defined %}{% set tools = none %}{% endif %}"
    ).reads_tools


# -- strict templates ----------------------------------------------------------------------------------


def test_a_strict_template_gets_user_and_assistant_in_turn() -> None:
    messages = [
        said("system", "Be brief."),
        said("user", "1"),
        said("user", "2"),
        said("assistant", "3"),
    ]
    found = text(STRICT, *messages, said("user", "4"))
    turns = ["user\nBe brief.\n\n1\n\n2", "model\n3", "user\n4"]
    assert found == "<s>" + "".join(f"<turn>{turn}</turn>\n" for turn in turns) + "<turn>model\n"


def test_a_strict_template_gets_tools_too() -> None:
    found = text(STRICT, *CALLED, tools=[WEATHER])
    assert found.startswith("<s><turn>user\nYou can call functions.")
    assert "Weather?" in found
    assert "<tool_response>" in found


# -- the end of the prompt -----------------------------------------------------------------------------


def test_an_answer_that_has_begun_is_continued() -> None:
    found = render(CHATML, talk(said("user", "Hi"), said("assistant", "Hello, I ")), TOKENS)
    assert found.text.endswith("<|im_start|>assistant\nHello, I ")
    assert found.continues


def test_a_template_that_strips_what_it_shows_is_respected() -> None:
    found = render(STRICT, talk(said("user", "Hi"), said("assistant", "Hello ")), TOKENS)
    assert found.text.endswith("<turn>model\nHello")


def test_a_beginning_that_the_template_drops_is_said_all_the_same() -> None:
    template = ChatTemplate(
        "{% for m in messages if m.role == 'user' %}U:{{ m.content }} {% endfor %}A:"
    )
    found = render(template, talk(said("user", "Hi"), said("assistant", "Hello")), TOKENS)
    assert found.text == "U:Hi A:Hello"
    assert found.continues


@pytest.mark.parametrize("empty", [said("assistant"), said("assistant", Reasoning("hm"))])
def test_a_beginning_without_a_word_is_no_beginning(empty: Message) -> None:
    assert text(CHATML, said("user", "Hi"), empty) == text(CHATML, said("user", "Hi"))


def test_a_call_at_the_end_is_not_continued() -> None:
    found = render(TOOLS, talk(*CALLED[:2], tools=[WEATHER]), TOKENS)
    assert found.text.endswith("</s>\n[assistant]<think></think>")
    assert not found.continues


# -- what the client tells the template ----------------------------------------------------------------


def test_thinking_is_off_unless_it_is_asked_for() -> None:
    assert text(TOOLS, said("user", "Hi")).endswith("[assistant]<think></think>")
    assert text(TOOLS, said("user", "Hi"), enable_thinking=True).endswith("[assistant]")


def test_special_tokens_are_the_models_own() -> None:
    assert text(STRICT, said("user", "Hi"), bos_token="<evil>").startswith("<s>")


# -- without a template --------------------------------------------------------------------------------


def test_without_a_template_the_prompt_is_plain() -> None:
    found = render(None, talk(said("system", "Be brief."), said("user", "Hi")), TOKENS)
    assert found.text == "system: Be brief.\n\nuser: Hi\n\nassistant:"
    assert found.is_plain


def test_a_plain_prompt_is_continued_too() -> None:
    found = render(None, talk(said("user", "Hi"), said("assistant", "Hel")), TOKENS)
    assert (found.text, found.continues) == ("user: Hi\n\nassistant: Hel", True)


@pytest.mark.parametrize("source", ["{% if %}", "{{ 1 / 0 }}", "{{ messages[9].a.b }}", "{{" * 99])
def test_a_template_that_fails_gives_way_to_the_plain_form(source: str) -> None:
    assert text(ChatTemplate(source), said("user", "Hi")) == "user: Hi\n\nassistant:"


@pytest.mark.parametrize("source", ["{% if tools", "{{ tools }}{{ raise_exception('a\x1b[2J') }}"])
def test_a_template_that_fails_is_told_of_without_control_characters(source: str) -> None:
    with pytest.raises(TemplateRenderFailed) as refused:
        text(ChatTemplate(source), said("user", "Hi"), tools=[WEATHER])
    assert refused.value.message.isprintable()


def test_a_template_may_write_more_than_it_is_given_but_not_without_end() -> None:
    template = ChatTemplate("{% for i in range(99999) %}{{ messages[0].content }}{% endfor %}")
    assert render(template, talk(said("user", "x" * 100)), TOKENS).is_plain
    assert not render(template, talk(said("user", "x")), TOKENS).is_plain


@pytest.mark.parametrize("template", [None, *TEMPLATES.values()])
@pytest.mark.parametrize("messages", [[], [said("system")], [said("assistant")], [said("user")]])
def test_a_conversation_without_a_word_has_a_prompt(
    template: ChatTemplate | None, messages: list[Message]
) -> None:
    assert text(template, *messages)


def test_pictures_are_parts_that_templates_can_count() -> None:
    (turn,) = messages_of(talk(said("user", "what is", Image("data:image/png;base64,AA"))))
    assert turn["content"] == [{"type": "text", "text": "what is"}, {"type": "image"}]
