import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from jinja2.exceptions import SecurityError, TemplateError, UndefinedError

from helexa.conversation import Json
from helexa.text.sandbox import Program


def render(
    source: str, *, max_size: int = 100_000, max_seconds: float = 10.0, **variables: Json
) -> str:
    return Program(source).render(variables, max_size=max_size, max_seconds=max_seconds)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ {'a': 'é<&'} | tojson }}", '{"a": "é<&"}'),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        (
            "{% for a in [1, 2, 3] %}{% if a == 2 %}{% continue %}{% endif %}{{ a }}{% endfor %}",
            "13",
        ),
        ("{% generation %}{{ 'said' }}{% endgeneration %}", "said"),
        ("{%- set ns = namespace(a=1) -%}{% set ns.a = ns.a + 1 %}{{ ns.a }}", "2"),
        ("{{ dict(a=1).a }}", "1"),
        ("{{ 'a' ~ 1 ~ none }}", "a1None"),
        ("{{ '%s-%02d' % ('a', 7) }}", "a-07"),
        ("{{ '{{}} {}-{:>3}'.format('a', 7) }}", "{} a-  7"),
        ("{{ ['a', 'b'] | join(', ') }}{{ ', '.join(['a', 'b']) }}", "a, ba, b"),
        ("{{ items | map(attribute='n') | join('+') }}", "1+2"),
        ("{{ 'abc'.replace('b', 'x') }}{{ 'abc' | replace('b', 'y') }}", "axcayc"),
        ("{{ 'a\nb' | indent(2) }}", "a\n  b"),
        ("{{ '-' * 3 }}{{ 2 ** 10 }}{{ 7 % 4 }}", "---10243"),
        (
            "{% macro f(n) %}{% if n %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
            "321",
        ),
        ("{% macro f() %}<{{ caller() }}>{% endmacro %}{% call f() %}in{% endcall %}", "<in>"),
        ("{% set text %}{{ 'kept' }}{% endset %}{{ text }}", "kept"),
        ("{% for a in [1] recursive %}{{ a }}{% else %}none{% endfor %}", "1"),
        ("a\n    {% if true %}\nb\n    {% endif %}\n", "a\nb\n"),
        ("{{ strftime_now('%%') }}", "%"),
    ],
)
def test_the_language_of_chat_templates_is_understood(source: str, text: str) -> None:
    assert render(source, items=[{"n": 1}, {"n": 2}]) == text


PRIVATE = [
    "{{ ''.__class__.__mro__ }}",
    "{{ ''['__class__']['__mro__'] }}",
    "{{ (''|attr('__class__')).__mro__ }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ '{a.__class__.__mro__}'.format_map({'a': ''}) }}",
    "{{ [].append(1) }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update(a=1) }}",
    "{{ range.__globals__['os'] }}",
    "{{ strftime_now.__globals__['os'] }}",
    "{{ raise_exception.__globals__['os'] }}",
    "{{ namespace.__init__.__globals__['os'] }}",
    "{{ namespace(__class__=1) }}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "{{ dict.mro() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context.environment }}",
    "{{ (messages|map(attribute='__class__')|list)[0].__mro__ }}",
    "{{ ''.join.__self__.upper() }}",
    "{{ environment.filters }}",
    "{{ lipsum() }}",
    "{{ cycler('a') }}",
    "{{ joiner() }}",
    "{{ open('/etc/passwd') }}",
    "{{ __import__('os') }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends 'base' %}",
]


@pytest.mark.parametrize("source", PRIVATE)
def test_nothing_behind_a_value_is_reached(source: str) -> None:
    with pytest.raises((SecurityError, UndefinedError, TypeError)):
        render(source, messages=[{}])


ENDLESS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a + b %}{% endfor %}{% endfor %}",
    "{% macro a(n) %}{% if n %}{{ a(n-1) }}{{ a(n-1) }}{% endif %}{% endmacro %}{{ a(60) }}",
    "{% macro a() %}{% if 0 %}{% endif %}{% endmacro %}"
    "{% for i in range(99999) %}{% for j in range(99999) %}{{ a() }}{% endfor %}{% endfor %}",
]


@pytest.mark.parametrize("source", ENDLESS)
def test_a_template_that_does_not_end_is_ended(source: str) -> None:
    began = time.monotonic()
    with pytest.raises(SecurityError, match="too long"):
        render(source, max_seconds=0.1)
    assert time.monotonic() - began < 5


HUGE = [
    "{{ 'a' * 10 ** 9 }}",
    "{{ 10 ** 9 * 'a' }}",
    "{{ ([1] * 10 ** 9) | length }}",
    "{{ 9 ** 99999 }}",
    "{% set ns = namespace(x=9**999) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "{% for i in range(99999) %}0123456789{% endfor %}",
    "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% set ns = namespace(x=['']) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% set ns = namespace(x='ab') %}{% for i in range(99) %}"
    "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}",
    "{% set ns = namespace(x='ab') %}{% for i in range(99) %}"
    "{% set ns.x = [ns.x, ns.x] | join %}{% endfor %}",
    "{% macro d(s) %}{{ s }}{{ s }}{% endmacro %}"
    "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = d(ns.x) %}{% endfor %}",
    "{{ ('x' * 90000).join(range(99999) | map('string')) }}",
    "{{ range(99999) | map('string') | join('x' * 90000) }}",
    "{{ 'a' | replace('', 'b' * 90000) | replace('b', 'c' * 90000) }}",
    "{{ ('a' * 90000).replace('a', 'b' * 90000) }}",
    "{{ 'a' | center(10 ** 9) }}",
    "{{ 'a'.ljust(10 ** 9) }}",
    "{{ 'a'.zfill(10 ** 9) }}",
    "{{ ('\\n' * 90000) | indent(9999) }}",
    "{{ ('\\n' * 90000) | indent('x' * 9999) }}",
    "{{ [[1]] | tojson(indent=10 ** 9) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ '{:>{}}'.format(1, 1000000000) }}",
    "{{ '{:>{w}}'.format_map({'w': 1000000000}) }}",
    "{{ ('\\t' * 90000).expandtabs(9999) }}",
]


@pytest.mark.parametrize("source", HUGE)
def test_a_template_that_makes_too_much_is_stopped_before_it_does(source: str) -> None:
    with pytest.raises((SecurityError, UndefinedError, OverflowError, ValueError)):
        render(source)


@pytest.mark.parametrize(
    "source",
    [
        "{% if %}",
        "{{ 'a' | no_such_filter }}",
        "{{" + "(" * 5000 + "1" + ")" * 5000 + "}}",
        "{% if 1 %}" * 200 + "{% endif %}" * 200,
        "a" * 2_000_000,
    ],
    ids=["syntax", "filter", "parentheses", "blocks", "length"],
)
def test_a_source_that_cannot_be_compiled_is_an_ordinary_error(source: str) -> None:
    with pytest.raises(Exception, match=r"."):
        Program(source)


def test_a_template_may_refuse_in_its_own_words() -> None:
    with pytest.raises(TemplateError, match="not today"):
        render("{{ raise_exception('not today') }}")


def test_the_variables_of_a_template_are_known() -> None:
    assert Program(
        "{% if tools %}{% for m in messages %}{{ m.a }}{% endfor %}{% endif %}"
    ).variables == {
        "tools",
        "messages",
    }


def test_many_threads_may_render_one_program() -> None:
    program = Program(
        "{% set ns = namespace(n=0) %}{% for i in range(200) %}{% set ns.n = ns.n + i %}"
        "{% endfor %}{{ ns.n * k }}"
    )
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda k: program.render({"k": k}, max_size=10_000), range(100)))
    assert found == [str(19900 * k) for k in range(100)]
