from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from helexa.conversation import (
    Conversation,
    Image,
    Json,
    Message,
    Part,
    Reasoning,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from helexa.errors import TemplateRenderFailed
from helexa.text.chat import messages_of
from helexa.text.render import Rendered, render
from helexa.text.template import NOT_VARIABLES, ChatTemplate, fallback, order_of, plain

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


def rendered(
    template: ChatTemplate | None, conversation: Conversation, tokens: Mapping[str, str] = TOKENS
) -> Rendered:
    """What a process would give, rendered in this one."""
    if template is None:
        return plain(conversation)
    found = render(order_of(template, conversation, dict(tokens)))
    return found if isinstance(found, Rendered) else fallback(conversation, found.reason)


def text(template: ChatTemplate | None, *messages: Message, **options: Json) -> str:
    return rendered(template, talk(*messages, **options)).text


CALLED = [
    said("user", "Weather?"),
    said("assistant", ToolCall("c1", "weather", '{"city": "Paris", "days": [1, 2]}')),
    Message("tool", (ToolResult("c1", (Text("sunny"),)),)),
]


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
    brief = said("system", line, f"{line}\nBe brief.")
    found = messages_of(talk(brief, said("user", line), said("system", f"Not {line}")))
    assert [message["content"] for message in found] == [f"Be brief.\n\nNot {line}", line]


@given(cch=st.text("abc123", max_size=8))
def test_prompts_of_a_client_that_bills_begin_alike(cch: str) -> None:
    line = f"x-anthropic-billing-header: cc_version=2; cch={cch};"
    assert text(CHATML, said("system", line, "Be brief."), said("user", "Hi")) == text(
        CHATML, said("system", "Be brief."), said("user", "Hi")
    )


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


@pytest.mark.parametrize("depth", [90, 230, 240, 250, 260, 2000])
def test_arguments_are_rendered_however_deep_they_are(depth: int) -> None:
    deep = '{"a":' * depth + "1" + "}" * depth
    called = said("assistant", ToolCall("c1", "weather", deep))
    assert text(TOOLS, said("user", "?"), called, said("user", "?"))


def test_a_broken_call_is_refused_aloud_when_tools_would_be_lost() -> None:
    broken = [said("user", "?"), said("assistant", ToolCall("c1", "weather", '{"city'))]
    with pytest.raises(TemplateRenderFailed) as refused:
        text(TOOLS, *broken, tools=[WEATHER])
    assert (refused.value.status, refused.value.code) == (422, "template_render_failed")
    assert "pairs" in refused.value.message


def test_a_broken_call_without_tools_gets_the_plain_form() -> None:
    broken = [said("user", "?"), said("assistant", ToolCall("c1", "weather", '{"city'))]
    found = rendered(TOOLS, talk(*broken))
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
    assert (template.reads.tools, template.reads.thinking) == (reads_tools, reads_thinking)


def test_the_word_tools_in_a_text_is_no_tools() -> None:
    assert not ChatTemplate("{{ 'I have no tools' }}{{ messages }}").reads.tools
    assert ChatTemplate(
        "{%- if not tools is defined %}{% set tools = none %}{% endif %}"
    ).reads.tools


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


# -- what templates insist on ---------------------------------------------------------------------------

PARTS = ChatTemplate(
    "{% for m in messages %}{{ m.role }}:"
    "{% for part in m['content'] | selectattr('type', 'equalto', 'text') %}{{ part.text }}{% endfor %};"
    "{% endfor %}"
)
NINE = ChatTemplate(
    "{% for m in messages %}{% for c in m.tool_calls or [] %}"
    "{% if c.id|length != 9 %}{{ raise_exception('ids with length 9!') }}{% endif %}{{ c.id }}"
    "{% endfor %}{% if m.role == 'tool' %}={{ m.tool_call_id }}{% endif %}{% endfor %}"
    "{% if tools %}{% endif %}"
)


def test_a_template_that_wants_parts_gets_parts() -> None:
    assert PARTS.reads.parts
    assert (
        text(PARTS, said("user", "Hi"), said("system", "Be brief.")) == "system:Be brief.;user:Hi;"
    )
    found = rendered(PARTS, talk(said("user", "Hi"), said("assistant", "Hel")))
    assert (found.text, found.continues) == ("user:Hi;assistant:Hel", True)
    assert text(PARTS, said("user", "Hi"), said("assistant")) == "user:Hi;"


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", False),
        (
            "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}",
            True,
        ),
        (
            "{% for m in messages %}{% set c = m['content'] %}"
            "{% for p in c %}{{ p.text }}{% endfor %}{% endfor %}",
            True,
        ),
        (
            "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
            "{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}{% endfor %}",
            False,
        ),
    ],
)
def test_whether_a_template_wants_parts_can_be_seen(source: str, parts: bool) -> None:
    assert ChatTemplate(source).reads.parts == parts


def test_ids_of_calls_have_nine_characters_where_a_template_counts_them() -> None:
    short = said("assistant", ToolCall("abcDEF123", "weather", "{}"))
    found = text(NINE, *CALLED, short, said("user", "?"), tools=[WEATHER])
    made, answered = found.removesuffix("abcDEF123").split("=")
    assert made == answered
    assert len(made) == 9
    assert made.isalnum()
    assert text(NINE, *CALLED, tools=[WEATHER]) == f"{made}={made}"
    assert [call["id"] for call in messages_of(talk(*CALLED))[1]["tool_calls"]] == ["c1"]


def test_a_template_that_takes_no_thoughts_beside_content_gets_none() -> None:
    strict = ChatTemplate(
        "{% for m in messages %}{% if m.thinking and m.content %}{{ raise_exception('both') }}"
        "{% endif %}{{ m.role }}:{{ m.content }};{% endfor %}"
    )
    thought = said("assistant", Reasoning("hm"), "so")
    messages = [said("system", "S"), said("user", "1"), thought, said("user", "2")]
    assert text(strict, *messages) == "system:S;user:1;assistant:so;user:2;"


def test_thoughts_stay_where_a_template_takes_them() -> None:
    strict = ChatTemplate(
        "{% for m in messages %}{% if m.thinking and m.content and m.tool_calls %}"
        "{{ raise_exception('all three') }}{% endif %}"
        "{{ m.thinking }}{{ m.content }};{% endfor %}{% if tools %}{% endif %}"
    )
    call = ToolCall("c1", "weather", "{}")
    messages = [said("user", "1"), said("assistant", Reasoning("one"), call)]
    messages += [said("assistant", Reasoning("two"), "text", call), said("user", "2")]
    assert text(strict, *messages) == "1;one;text;2;"


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("c.function.name ~ c.function.arguments", 'weather{"city":"Paris","days":[1,2]}'),
        (
            "c['function']['name'] + c['function']['arguments']",
            'weather{"city":"Paris","days":[1,2]}',
        ),
        ("c.function.arguments", '{"city":"Paris","days":[1,2]}'),
        ("c.function.arguments | tojson", '{"city": "Paris", "days": [1, 2]}'),
        (
            "c.function | tojson",
            '{"name": "weather", "arguments": {"city": "Paris", "days": [1, 2]}}',
        ),
        ("c.function.arguments.city", "Paris"),
        (
            "c.function.arguments if c.function.arguments is string else c.function.arguments|tojson",
            '{"city": "Paris", "days": [1, 2]}',
        ),
    ],
)
def test_arguments_are_text_where_a_template_writes_them_as_they_are(
    written: str, found: str
) -> None:
    template = ChatTemplate(
        "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ " + written + " }}{% endfor %}"
        "{% endfor %}{% if tools %}{% endif %}"
    )
    assert text(template, *CALLED) == found
    named = (
        "{% for m in messages %}{% for c in m.tool_calls or [] %}{% set a = c.function.arguments %}"
    )
    template = ChatTemplate(named + "{{ a }}{% endfor %}{% endfor %}{% if tools %}{% endif %}")
    assert text(template, *CALLED) == '{"city":"Paris","days":[1,2]}'


def test_what_is_said_after_a_result_goes_with_it_where_turns_are_strict() -> None:
    strict = ChatTemplate(
        "{% set turns = messages | rejectattr('tool_calls', 'defined') |"
        " rejectattr('role', 'equalto', 'tool') | list %}{% for m in turns %}"
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('in turn') }}{% endif %}"
        "{% endfor %}{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
        "{% if tools %}{{ tools[0].function.name }}{% endif %}"
    )
    found = text(strict, *CALLED, said("user", "And?"), tools=[WEATHER])
    assert found == "user:Weather?;assistant:;tool:sunny\n\nAnd?;weather"


def test_a_failed_call_says_that_it_failed() -> None:
    def told(text: str, is_error: bool) -> str:
        result = ToolResult("c1", (Text(text),), is_error)
        return str(messages_of(talk(Message("user", (result,))))[0]["content"])

    assert told("no such file", True) == "Error: no such file"
    assert told("<tool_use_error>no such file", True) == "<tool_use_error>no such file"
    assert told("no such file", False) == "no such file"


def test_results_without_calls_are_rendered() -> None:
    lost = Message("tool", (ToolResult("nobody", (Text("sunny"),)),))
    assert "[tool ]sunny" in text(TOOLS, said("user", "?"), lost, tools=[WEATHER])


# -- the end of the prompt -----------------------------------------------------------------------------


def test_an_answer_that_has_begun_is_continued() -> None:
    found = rendered(CHATML, talk(said("user", "Hi"), said("assistant", "Hello, I ")))
    assert found.text.endswith("<|im_start|>assistant\nHello, I ")
    assert found.continues


def test_a_template_that_strips_what_it_shows_is_respected() -> None:
    found = rendered(STRICT, talk(said("user", "Hi"), said("assistant", "Hello ")))
    assert found.text.endswith("<turn>model\nHello")


def test_a_beginning_that_the_template_drops_is_said_all_the_same() -> None:
    template = ChatTemplate(
        "{% for m in messages if m.role == 'user' %}U:{{ m.content }} {% endfor %}A:"
    )
    found = rendered(template, talk(said("user", "Hi"), said("assistant", "Hello")))
    assert found.text == "U:Hi A:Hello"
    assert found.continues


@pytest.mark.parametrize("empty", [said("assistant"), said("assistant", Reasoning("hm"))])
def test_a_beginning_without_a_word_is_no_beginning(empty: Message) -> None:
    assert text(CHATML, said("user", "Hi"), empty) == text(CHATML, said("user", "Hi"))


def test_a_call_at_the_end_is_not_continued() -> None:
    found = rendered(TOOLS, talk(*CALLED[:2], tools=[WEATHER]))
    assert found.text.endswith("</s>\n[assistant]<think></think>")
    assert not found.continues


# -- what the client tells the template ----------------------------------------------------------------


THINKS = ChatTemplate(
    "{{ enable_thinking }} {{ thinking }} {{ reasoning_effort }}{% if messages %}{% endif %}"
)


@pytest.mark.parametrize(
    ("thinking", "found"),
    [
        (Thinking(), "False False "),
        (Thinking(enabled=False), "False False "),
        (Thinking(enabled=True), "True True "),
        (Thinking(enabled=True, effort="high"), "True True high"),
        (Thinking(enabled=False, effort="none"), "False False none"),
        (Thinking(shown=True), "False False "),
    ],
)
def test_thinking_is_off_unless_it_is_asked_for(thinking: Thinking, found: str) -> None:
    assert rendered(THINKS, evolve(talk(said("user", "Hi")), thinking=thinking)).text == found


def test_a_client_may_use_the_templates_own_words() -> None:
    assert text(THINKS, said("user", "Hi"), thinking="deep") == "False deep "


@pytest.mark.parametrize(
    "name",
    sorted(NOT_VARIABLES),
)
def test_a_client_cannot_change_what_is_rendered(name: str) -> None:
    asked = talk(said("user", "Hi"), tools=[WEATHER])
    for value in ("evil", True, [], None):
        found = rendered(TOOLS, evolve(asked, template_kwargs=((name, value),)))
        assert found == rendered(TOOLS, asked)


def test_documents_are_for_templates_that_read_them() -> None:
    template = ChatTemplate(
        "{% for d in documents or [] %}{{ d.text }}{% endfor %}{% if messages %}{% endif %}"
    )
    assert text(template, said("user", "Hi"), documents=[{"text": "one"}]) == "one"
    assert text(template, said("user", "Hi")) == ""


def test_a_client_that_forbids_calls_gets_no_tools() -> None:
    asked = talk(said("user", "Hi"), tools=[WEATHER])
    found = rendered(TOOLS, evolve(asked, tool_choice=ToolChoice("none"))).text
    assert found == text(TOOLS, said("user", "Hi"))
    broken = ChatTemplate("{{ raise_exception('no') }}")
    assert rendered(broken, evolve(asked, tool_choice=ToolChoice("none"))).is_plain


def test_prompts_begin_alike_whichever_tool_must_be_called() -> None:
    asked = talk(said("user", "Hi"), tools=[WEATHER])
    found = rendered(TOOLS, evolve(asked, tool_choice=ToolChoice("required", ("weather",)))).text
    assert found == rendered(TOOLS, asked).text


def test_special_tokens_are_the_models_own() -> None:
    assert text(STRICT, said("user", "Hi"), bos_token="<evil>").startswith("<s>")


# -- without a template --------------------------------------------------------------------------------


def test_without_a_template_the_prompt_is_plain() -> None:
    found = rendered(None, talk(said("system", "Be brief."), said("user", "Hi")))
    assert found.text == "system: Be brief.\n\nuser: Hi\n\nassistant:"
    assert found.is_plain


def test_a_plain_prompt_is_continued_too() -> None:
    found = rendered(None, talk(said("user", "Hi"), said("assistant", "Hel")))
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
    assert rendered(template, talk(said("user", "x" * 100))).is_plain
    assert not rendered(template, talk(said("user", "x"))).is_plain


@pytest.mark.parametrize("template", [None, *TEMPLATES.values()])
@pytest.mark.parametrize("messages", [[], [said("system")], [said("assistant")], [said("user")]])
def test_a_conversation_without_a_word_has_a_prompt(
    template: ChatTemplate | None, messages: list[Message]
) -> None:
    assert text(template, *messages)


def test_pictures_are_parts_that_templates_can_count() -> None:
    (turn,) = messages_of(talk(said("user", "what is", Image("data:image/png;base64,AA"))))
    assert turn["content"] == [{"type": "text", "text": "what is"}, {"type": "image"}]
