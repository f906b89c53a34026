"""Which rule of a script model fits what was said last."""

from hypothesis import given
from hypothesis import strategies as st

from helexa.conversation import Conversation, Message, Part, Role, Text, ToolCall, ToolResult
from helexa.fleet.script import NO_RULE, Rule, Rules, choose, last_turn


def rule(when: str, say: str = "") -> Rule:
    return Rule(say or when, when)  # type: ignore[arg-type]


def said(role: Role, *parts: Part | str) -> Message:
    return Message(role, tuple(Text(part) if isinstance(part, str) else part for part in parts))


def result(text: str) -> ToolResult:
    return ToolResult("call_1", (Text(text),))


def turn(*messages: Message) -> str:
    return last_turn(Conversation("m", messages))


def test_the_first_rule_that_fits_wins() -> None:
    rules = Rules((rule("a+b"), rule("b"), rule("", "else"), rule("c")))
    assert [choose(rules, text).say for text in ("xaab", "xb", "c", "")] == [
        "a+b",
        "b",
        "else",
        "else",
    ]


def test_without_a_rule_that_fits_the_model_says_so() -> None:
    assert choose(Rules(), "x") == choose(Rules((rule("y"),)), "x") == NO_RULE
    assert NO_RULE.say == "No rule of this script model fits the last turn."


def test_a_pattern_sees_characters_and_lines() -> None:
    assert choose(Rules((rule("^.é$"),)), "né") != NO_RULE
    assert choose(Rules((rule("^b$"),)), "a\nb") == NO_RULE
    assert choose(Rules((rule("(?m)^b$"),)), "a\nb") != NO_RULE


@given(st.text(st.characters(codec=None), max_size=50), st.text(max_size=5))
def test_whatever_is_said_something_is_answered(text: str, when: str) -> None:
    found = choose(Rules((rule("\\Q" + when.replace("\\E", "") + "\\E", "found"),)), text)
    assert found.say == "found" or found == NO_RULE


def test_a_pattern_that_backtracks_elsewhere_takes_no_time_here() -> None:
    assert choose(Rules((rule("(a|a)*(a|a)*(a|a)*$x"),)), "a" * 100_000) == NO_RULE


def test_the_last_turn_is_the_user_s_or_the_tool_s() -> None:
    call = ToolCall("call_1", "read", "{}")
    first = (said("system", "s"), said("user", "one"))
    assert turn(*first) == "one"
    assert turn(*first, said("assistant", "two")) == "one"
    assert turn(*first, said("assistant", call), said("tool", result("three"))) == "three"
    assert turn(*first, said("user", "two", "three")) == "two\nthree"
    assert turn(said("system", "s")) == turn() == ""


def test_results_and_words_are_one_turn_however_a_dialect_splits_them() -> None:
    call = said("assistant", ToolCall("call_1", "read", "{}"))
    before = (said("user", "zero"), call)
    together = said("user", result("one"), result("two"), "three")
    apart = (said("tool", result("one")), said("tool", result("two")), said("user", "three"))
    assert turn(*before, together) == turn(*before, *apart) == "one\ntwo\nthree"
