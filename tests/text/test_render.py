"""Rendering in this process: the language of templates, what they may not reach, and what is told."""

import resource
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.conversation import Conversation, Json, Message, Text
from helexa.text import render as rendering
from helexa.text.render import Rendered, Unrendered, render
from helexa.text.source import MAX_SOURCE_CHARACTERS, reads_of
from helexa.text.template import ChatTemplate, order_of

HELLO = Conversation("m", (Message("user", (Text("Hi"),)),))


def outcome(source: str, said: str = "Hi", **variables: Json) -> Rendered | Unrendered:
    conversation = Conversation("m", (Message("user", (Text(said),)),))
    return render(order_of(ChatTemplate(source), conversation, variables))


def text(source: str, **variables: Json) -> str:
    found = outcome(source, **variables)
    assert isinstance(found, Rendered), found
    return found.text


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("{{ {'a': 'é<&'} | tojson }}", '{"a": "é<&"}'),
        (
            "{% for a in [1, 2, 3] %}{% if a == 2 %}{% continue %}{% endif %}{{ a }}{% endfor %}",
            "13",
        ),
        ("{% generation %}{{ 'said' }}{% endgeneration %}", "said"),
        ("{%- set ns = namespace(a=1) -%}{% set ns.a = ns.a + 1 %}{{ ns.a }}", "2"),
        ("{{ dict(a=1).a }}{{ 'a' ~ 1 ~ none }}", "1a1None"),
        ("a\n    {% if true %}\nb\n    {% endif %}\n", "a\nb\n"),
        ("{{ strftime_now('%%') }}", "%"),
        ("{{ words[0].n }}{{ messages[0].content }}", "1Hi"),
    ],
)
def test_the_language_of_chat_templates_is_understood(source: str, found: str) -> None:
    assert text(source, words=[{"n": 1}]) == found


PRIVATE = [
    "{{ ''.__class__.__mro__ }}",
    "{{ (''|attr('__class__')).__mro__ }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ messages.append(1) }}",
    "{{ range.__globals__['os'] }}",
    "{{ strftime_now.__globals__['os'] }}",
    "{{ namespace(__class__=1) }}",
    "{{ self.__init__.__globals__ }}",
    "{{ open('/etc/passwd') }}",
    "{{ __import__('os') }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends 'base' %}",
]


@pytest.mark.parametrize("source", PRIVATE)
def test_nothing_behind_a_value_is_reached(source: str) -> None:
    assert isinstance(outcome(source), Unrendered)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% if %}", "TemplateSyntaxError: "),
        ("{{ 'a' | no_such_filter }}", "TemplateAssertionError: "),
        ("{{" + "(" * 5000 + "1" + ")" * 5000 + "}}", "RecursionError: "),
        ("{{ raise_exception('not today') }}", "TemplateError: not today"),
        ("{{ 1 / 0 }}", "ZeroDivisionError: "),
        ("a" * (MAX_SOURCE_CHARACTERS + 1), "ValueError: it has more than"),
        ("{% for i in range(99999) %}{{ 'a' * 100 }}{% endfor %}", "it makes more than 10"),
    ],
)
def test_why_a_template_cannot_be_rendered_is_told(source: str, reason: str) -> None:
    found = outcome(source)
    assert isinstance(found, Unrendered)
    assert found.reason.startswith(reason)


def test_a_template_that_says_much_is_not_quoted_in_full() -> None:
    found = outcome("{{ raise_exception(messages[0].content) }}", said="x" * 10_000)
    assert found == Unrendered(f"TemplateError: {'x' * 285}")


def test_want_of_memory_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Rendered:
        raise MemoryError

    monkeypatch.setattr(rendering, "write_prompt", fail)
    assert outcome("a") == Unrendered("it takes more than 1024 MiB")


@given(st.text(alphabet="{}%#-'\"()[]|. \nabifor0", max_size=60))
def test_no_source_makes_more_of_it_than_a_reason(source: str) -> None:
    assert isinstance(outcome(source), Rendered | Unrendered)


def test_the_clock_runs_while_a_template_is_rendered_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left: list[float] = []
    write = rendering.write_prompt

    def noted(*args: Json) -> Rendered:
        left.append(signal.getitimer(signal.ITIMER_REAL)[0])
        return write(*args)

    monkeypatch.setattr(rendering, "write_prompt", noted)
    outcome("a")
    assert 0 < left[0] <= rendering.MAX_SECONDS
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_a_process_is_bounded_and_spent_when_it_was_large(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = {}
    monkeypatch.setattr(resource, "setrlimit", bounds.__setitem__)
    rendering.begin()
    assert bounds == {
        resource.RLIMIT_AS: (rendering.MAX_BYTES, rendering.MAX_BYTES),
        resource.RLIMIT_CORE: (0, 0),
    }
    monkeypatch.setattr(rendering, "SPENT_BYTES", 1)
    assert rendering.is_spent()
    monkeypatch.setattr(rendering, "SPENT_BYTES", 1 << 60)
    assert not rendering.is_spent()


# -- what is seen without rendering --------------------------------------------------------------------


@given(st.text(alphabet="{}%#-'\"()[]|. \nabifor0", max_size=60) | st.text())
def test_any_source_can_be_looked_at(source: str) -> None:
    reads_of(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ 9 ** 9 ** 9 }}",
        "{{ 'a' * 10 ** 12 }}",
        "{{" + "(" * 50_000,
        "{% if 1 %}" * 20_000,
        "{{ '" + "\\" * 200_000,
        "{#" * 100_000,
        "tools" * MAX_SOURCE_CHARACTERS,
    ],
    ids=["power", "times", "parentheses", "blocks", "escapes", "comments", "length"],
)
def test_looking_at_a_hostile_source_takes_no_time(source: str) -> None:
    reads = reads_of(source)
    assert reads.tools == ("tools" in source)
    assert not reads.parts
