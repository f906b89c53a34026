"""Results of tools stand in the order of their calls, however a client sends them."""

from hypothesis import given
from hypothesis import strategies as st

from helexa.conversation import Conversation, Message, Text, ToolCall, ToolResult
from helexa.text.chat import messages_of


def called(*ids: str) -> Message:
    return Message("assistant", tuple(ToolCall(id, "f", "{}") for id in ids))


def result(id: str, text: str = "") -> Message:
    return Message("tool", (ToolResult(id, (Text(text or id),)),))


def order(*messages: Message) -> list[str]:
    """What the tools gave, as a template reads it."""
    found = messages_of(Conversation("m", messages))
    return [turn["content"] for turn in found if turn["role"] == "tool"]


@given(st.permutations(["a", "b", "c", "d"]), st.permutations(["a", "b", "c", "d"]))
def test_results_have_the_places_of_their_calls(calls: list[str], results: list[str]) -> None:
    assert order(called(*calls), *map(result, results)) == calls


def test_results_in_one_message_are_put_in_order_too() -> None:
    both = Message("user", tuple(ToolResult(id, (Text(id),)) for id in ("b", "a")))
    assert order(called("a", "b"), both) == ["a", "b"]


def test_ids_may_come_again_in_a_later_turn() -> None:
    first = [called("a", "b"), result("b", "b1"), result("a", "a1")]
    second = [called("b", "a"), result("a", "a2"), result("b", "b2")]
    assert order(*first, *second) == ["a1", "b1", "b2", "a2"]


def test_results_without_calls_come_last_and_stay_as_they_came() -> None:
    assert order(called("a", "b"), *map(result, ("x", "b", "y", "a"))) == ["a", "b", "x", "y"]
    assert order(*map(result, ("y", "x"))) == ["y", "x"]
