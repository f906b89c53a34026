"""What templates insist on, each in a short template of its own: nothing of a conversation is lost."""

import pytest

from helexa.conversation import (
    Conversation,
    Json,
    Message,
    Part,
    Reasoning,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from helexa.text.render import Rendered, render
from helexa.text.template import ChatTemplate, order_of

CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = (Tool("weather", "of a city", CITY), Tool("ping", None, None))
LISTED = "{% for t in tools or [] %}<{{ t.function.name }}>{% endfor %}"


def said(role: str, *parts: Part | str) -> Message:
    return Message(role, tuple(Text(part) if isinstance(part, str) else part for part in parts))


def gave(id: str, text: str) -> Message:
    return Message("tool", (ToolResult(id, (Text(text),)),))


def calls(a: str = "a", b: str = "b") -> tuple[ToolCall, ToolCall]:
    return ToolCall(a, "weather", '{"city": "Rome"}'), ToolCall(b, "ping", "{}")


ASKED = (said("system", "Be brief."), said("user", "How is it?"))
LOOP = (*ASKED, said("assistant", "Well.", *calls()), gave("a", "sunny"), gave("b", "pong"))


def text(source: str, *messages: Message, tools: tuple[Tool, ...] = TOOLS, **asked: Json) -> str:
    conversation = Conversation("m", messages, tools=tools, **asked)
    found = render(order_of(ChatTemplate(source), conversation, {}))
    assert isinstance(found, Rendered), found
    return found.text


# -- calls -------------------------------------------------------------------------------------------

ROLES = "{{ m.role }}:{{ m.content }}"
FIRST_CALL = (
    LISTED
    + "{% for m in messages %}"
    + ROLES
    + "{% if m.tool_calls %}{% if m.tool_calls | length > 1"
    " %}{{ raise_exception('one') }}{% endif %}={{ m.tool_calls[0].function.name }}{% endif %};"
    "{% endfor %}"
)
IN_TURN = "assistant:Well.=weather;tool:sunny;assistant:=ping;tool:pong;"


@pytest.mark.parametrize(
    "source",
    [
        FIRST_CALL,
        FIRST_CALL.replace("raise_exception('one')", "''"),
        FIRST_CALL.replace("={{", "{% set c = m.tool_calls[0] %}={{").replace(
            "m.tool_calls[0].function.name", "c.function.name"
        ),
    ],
    ids=["refuses more", "loses more", "by another name"],
)
def test_a_template_of_one_call_a_turn_gets_every_call_with_its_result(source: str) -> None:
    assert text(source, *LOOP) == f"<weather><ping>system:Be brief.;user:How is it?;{IN_TURN}"


def test_results_without_calls_and_calls_without_results_stay() -> None:
    turns = (said("user", "Go"), said("assistant", *calls()), gave("b", "pong"), gave("z", "other"))
    found = text(FIRST_CALL, *turns, said("user", "And?"))
    assert found.endswith(
        "user:Go;assistant:=weather;assistant:=ping;tool:pong;tool:other;user:And?;"
    )


def test_calls_that_a_template_goes_through_stay_together() -> None:
    source = (
        LISTED
        + "{% for m in messages %}"
        + ROLES
        + (
            "{% for c in m.tool_calls or [] %}={{ c.function.name }}{% endfor %}"
            "{% if m.tool_calls and m.tool_calls[0].id %}!{% endif %};{% endfor %}"
        )
    )
    assert "assistant:Well.=weather=ping!;tool:sunny;tool:pong;" in text(source, *LOOP)


KIMI = (
    LISTED + "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}"
    "<|tool_call_begin|>ID<|tool_call_argument_begin|>{% endfor %}"
    "{% if m.role == 'tool' %} for {{ m.tool_call_id }}{% endif %};{% endfor %}"
)
AGAIN = (said("assistant", *calls("c", "d")), gave("c", "rain"), gave("d", "lost"))


def test_ids_name_the_function_where_a_template_tells_it_by_them() -> None:
    found = text(KIMI.replace("ID", "{{ c.id }}"), *LOOP, *AGAIN)
    assert "begin|>functions.weather:0<|" in found
    assert "sunny for functions.weather:0;pong for functions.ping:1;" in found
    assert "rain for functions.weather:2;lost for functions.ping:3;" in found


def test_ids_are_numbered_per_turn_where_the_template_does_so() -> None:
    written = "functions.{{ c.function.name }}:{{ loop.index0 }}"
    found = text(KIMI.replace("ID", written), *LOOP, *AGAIN)
    assert "sunny for functions.weather:0;pong for functions.ping:1;" in found
    assert "rain for functions.weather:0;lost for functions.ping:1;" in found


@pytest.mark.parametrize(
    ("mark", "written"),
    [
        (
            "",
            '<tool_call>\n{"name":"weather","arguments":{"city":"Rome"}}\n</tool_call>\n'
            '<tool_call>\n{"name":"ping","arguments":{}}\n</tool_call>',
        ),
        (
            "<|tool_call|>",
            '<|tool_call|>[{"name":"weather","arguments":{"city":"Rome"}},'
            '{"name":"ping","arguments":{}}]',
        ),
        (
            "<|tool_list_start|>",
            "<|tool_call_start|>[weather(city='Rome'), ping()]<|tool_call_end|>",
        ),
    ],
)
def test_calls_stand_in_the_text_where_a_template_writes_none(mark: str, written: str) -> None:
    source = mark + LISTED + "{% for m in messages %}" + ROLES + ";{% endfor %}"
    assert f"assistant:Well.\n{written};tool:sunny;tool:pong;" in text(source, *LOOP)


# -- thoughts ----------------------------------------------------------------------------------------

THOUGHT = (*ASKED, said("assistant", Reasoning("Hm."), "Well.", *calls()), gave("a", "sunny"))


def test_thoughts_are_parts_of_the_content_where_a_template_looks_for_them_there() -> None:
    source = LISTED + (
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for b in m.content %}{% if b['type'] == 'thinking' %}({{ b.thinking }}){% else %}"
        "{{ b.text }}{% endif %}{% endfor %}{% endif %}{% for c in m.tool_calls or [] %}"
        "={{ c.function.name }}{% endfor %};{% endfor %}"
    )
    assert "How is it?;(Hm.)Well.=weather=ping;sunny;" in text(source, *THOUGHT)
    begun = text(source, *ASKED, said("assistant", Reasoning("Hm."), "Well, it"))
    assert begun.endswith("How is it?;(Hm.)Well, it")


def test_a_model_that_refuses_not_to_think_is_not_asked_to() -> None:
    source = (
        "{% if enable_thinking is defined and not enable_thinking %}{{ raise_exception('no') }}"
        "{% endif %}{% for m in messages %}" + ROLES + ";{% endfor %}"
    )
    assert text(source, *ASKED, tools=()) == "system:Be brief.;user:How is it?;"


@pytest.mark.parametrize(
    ("thinking", "found"),
    [
        (Thinking(True, budget=512), "512"),
        (Thinking(True), "free"),
        (Thinking(False, budget=512), "0"),
        (Thinking(), "0"),
    ],
)
def test_a_template_may_tell_the_model_its_budget(thinking: Thinking, found: str) -> None:
    source = "{{ thinking_budget | default('free') }}{% if messages %}{% endif %}"
    assert text(source, said("user", ""), tools=(), thinking=thinking) == found


# -- what would be lost or fail ------------------------------------------------------------------------


def test_a_system_message_that_is_lost_is_what_the_user_says_first() -> None:
    source = LISTED + (
        "{% for m in messages %}{% if m.role != 'system' %}" + ROLES + "{% for c in m.tool_calls or"
        " [] %}={{ c.function.name }}{% endfor %};{% elif messages[-1].role == 'user' %}"
        "{{ m.content }};{% endif %}{% endfor %}"
    )
    assert text(source, *ASKED).startswith("<weather><ping>Be brief.;user:How is it?;")
    found = text(source, *LOOP)
    assert found.startswith("<weather><ping>user:Be brief.\n\nHow is it?;assistant:Well.=weather")


def test_tools_that_are_lost_are_told_as_text() -> None:
    source = "{% for m in messages %}" + ROLES + ";{% endfor %}{% if tools %}{% endif %}"
    found = text(source, *ASKED)
    assert found.startswith("system:Be brief.\n\nYou can call functions.")
    assert found.endswith(";user:How is it?;")


def test_results_that_are_lost_are_told_as_text() -> None:
    source = (
        LISTED
        + "{% for m in messages %}{% if m.role != 'tool' %}"
        + ROLES
        + ";{% endif %}{% endfor %}"
    )
    found = text(source, *LOOP)
    assert found.startswith("system:Be brief.\n\nYou can call functions.")
    assert 'assistant:Well.\n<tool_call>\n{"name":"weather"' in found
    assert "user:<tool_response>\npong\n</tool_response>;" in found


@pytest.mark.parametrize(
    ("changed", "system"),
    [
        ("m.content | trim", "  Be brief.\n"),
        ("m.content | tojson", 'Say "a"\nand "b".'),
        ("m.content | replace('/quick', '')", "Be brief and kind and quick. /quick"),
    ],
)
def test_a_template_may_write_the_system_message_in_its_own_way(changed: str, system: str) -> None:
    source = "{% for m in messages %}{{ m.role }}:{{ " + changed + " }};{% endfor %}"
    found = text(source, said("system", system), said("user", "Hi"), tools=())
    assert found.startswith("system:")


def test_arguments_that_are_not_described_are_for_a_template_that_needs_it() -> None:
    source = (
        "{% for t in tools %}{% for name, p in t.function.parameters.properties | items %}"
        "{{ t.function.name + '.' + name + ': ' + p.description }};{% endfor %}"
        "{{ t.function.name }};{% endfor %}{% for m in messages %}" + ROLES + ";{% endfor %}"
    )
    assert text(source, *ASKED).startswith("weather.city: ;weather;ping;system:Be brief.;")


def test_a_turn_in_which_nothing_was_said_is_left_out_where_it_is_refused() -> None:
    source = (
        "{% for m in messages %}{% if m.role == 'assistant' and not m.content %}"
        "{{ raise_exception('empty') }}{% endif %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('in turn') }}{% endif %}" + ROLES + ";{% endfor %}"
    )
    empty = (said("user", "One"), said("assistant", ""), said("user", "Two"))
    assert text(source, *empty, tools=()) == "user:One\n\nTwo;"
