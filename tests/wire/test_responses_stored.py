"""Responses that are kept: who finds them, how long, and how a conversation goes on from them."""

import orjson
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from helexa.conversation import (
    ChoiceFinished,
    Finished,
    Json,
    Message,
    Reasoning,
    Text,
    TextDelta,
    ToolCall,
    ToolResult,
    Usage,
)
from helexa.errors import InvalidRequest, ResponseNotFound
from helexa.responses import AccountResponses, Responses, size_of
from helexa.wire.answer import Answer, Choice
from helexa.wire.exchange import Reply
from helexa.wire.fields import MAX_FIELD_DEPTH, parse_json
from helexa.wire.openai_responses import (
    Past,
    ResponsesRequest,
    Stored,
    read_request,
    write_deleted,
    write_input_items,
)

HELLO = Answer((Choice("Hello", reasoning="hm"),), Usage(3, 2))
CALL = Answer((Choice(calls=(ToolCall("c1", "f", "{}"),), reason="tool_calls"),), Usage(3, 2))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def past(clock: Clock) -> AccountResponses:
    return Responses().of("me", clock)


def read(past: Past | None, **fields: Json) -> ResponsesRequest:
    return read_request(parse_json(orjson.dumps({"model": "m", "input": "hi", **fields})), past)


def answer(request: ResponsesRequest, number: int, said: Answer = HELLO) -> Json:
    return orjson.loads(request.whole(said, Reply(f"req_{number:024}", "m", 1_700_000_000)))


# -- going on ----------------------------------------------------------------------------------------


def test_a_conversation_goes_on_without_the_earlier_instructions(past: AccountResponses) -> None:
    first = answer(read(past, instructions="Be brief."), 1)
    second = read(past, input="more", instructions="Be kind.", previous_response_id=first["id"])
    assert second.conversation.messages == (
        Message("system", (Text("Be kind."),)),
        Message("user", (Text("hi"),)),
        Message("assistant", (Reasoning("hm"), Text("Hello"))),
        Message("user", (Text("more"),)),
    )
    third = read(past, input="and", previous_response_id=answer(second, 2)["id"])
    assert [message.role for message in third.conversation.messages] == [
        "user",
        "assistant",
    ] * 2 + ["user"]


def test_the_result_of_a_tool_goes_on_from_its_call(past: AccountResponses) -> None:
    first = answer(read(past), 1, CALL)
    result = {"type": "function_call_output", "call_id": "c1", "output": "done"}
    again = read(past, input=[result], previous_response_id=first["id"])
    assert again.conversation.messages[1:] == (
        Message("assistant", (ToolCall("c1", "f", "{}"),)),
        Message("tool", (ToolResult("c1", (Text("done"),)),)),
    )


def test_an_id_without_end_is_not_told_again(past: AccountResponses) -> None:
    with pytest.raises(ResponseNotFound) as refusal:
        read(past, previous_response_id="r" * 5000)
    assert len(refusal.value.message) < 300


def test_an_item_is_found_by_its_id(past: AccountResponses) -> None:
    first = answer(read(past), 1)
    references = [{"type": "item_reference", "id": item["id"]} for item in first["output"]]
    references[1].pop("type")
    said = {"role": "user", "content": "more"}
    (turn, _) = read(past, input=[*references, said]).conversation.messages
    assert turn == Message("assistant", (Reasoning("hm"), Text("Hello")))


def test_an_item_of_the_input_is_found_by_its_id(past: AccountResponses) -> None:
    first = answer(read(past), 1)
    (item,) = orjson.loads(past.find(first["id"]).input)
    assert read(past, input=[{"id": item["id"]}]).conversation == read(past).conversation


def test_what_is_nested_as_deep_as_can_be_is_told_again_everywhere(past: AccountResponses) -> None:
    deep: Json = 1
    for _ in range(MAX_FIELD_DEPTH - 2):
        deep = [deep]
    fields = {"input": [{"type": "unknown", "a": deep}, {"role": "user", "content": "hi"}]}
    request = read(past, **fields, tools=[{"type": "unknown", "a": deep}])
    first = answer(request, 1)
    assert first["tools"] == [{"type": "unknown", "a": deep}]
    assert (
        orjson.loads(write_input_items(past.find(first["id"]), order="asc"))["data"][0]["a"] == deep
    )
    writer = request.writer(Reply("req_stream", "m", 0))
    assert b"".join(map(writer.write, (ChoiceFinished(0, "stop"), Finished(Usage(1, 1)))))


def test_a_stream_is_kept_like_a_whole_answer(past: AccountResponses) -> None:
    writer = read(past).writer(Reply("req_stream", "m", 0))
    for event in (TextDelta(0, "Hello"), ChoiceFinished(0, "stop"), Finished(Usage(1, 1))):
        writer.write(event)
    stored = past.find("resp_stream")
    assert stored.messages[-1] == Message("assistant", (Text("Hello"),))
    assert orjson.loads(stored.response)["output"] == orjson.loads(stored.output)


@pytest.mark.parametrize("store", [True, None])
def test_a_response_is_kept_unless_the_client_says_no(
    past: AccountResponses, store: bool | None
) -> None:
    assert answer(read(past, store=store), 1)["store"] is True
    assert answer(read(past, store=False), 2)["store"] is False
    assert answer(read(None), 3)["store"] is False
    past.find(f"resp_{1:024}")
    with pytest.raises(ResponseNotFound):
        past.find(f"resp_{2:024}")


def test_going_on_from_what_is_not_there_says_so(past: AccountResponses) -> None:
    for known in (past, None):
        with pytest.raises(ResponseNotFound) as refusal:
            read(known, previous_response_id="resp_nobody")
        found = refusal.value
        told = (found.status, found.code, found.param)
        assert told == (404, "previous_response_not_found", "previous_response_id")


# -- asked for again ---------------------------------------------------------------------------------


def test_the_items_of_the_input_are_listed_newest_first(past: AccountResponses) -> None:
    said = [{"role": "user", "content": str(i)} for i in range(5)]
    said.append({"type": "function_call_output", "call_id": "c", "output": "x"})
    stored = past.find(answer(read(past, input=said), 1)["id"])
    listed = orjson.loads(write_input_items(stored, limit="2"))
    assert [item["type"] for item in listed["data"]] == ["function_call_output", "message"]
    assert listed["has_more"]
    assert listed["first_id"] == listed["data"][0]["id"]
    rest = orjson.loads(write_input_items(stored, limit="100", after=listed["last_id"]))
    assert [item["content"][0]["text"] for item in rest["data"]] == ["3", "2", "1", "0"]
    assert not rest["has_more"]
    oldest = orjson.loads(write_input_items(stored, order="asc"))["data"][0]
    assert oldest["content"] == [{"type": "input_text", "text": "0"}]


def listed(past: AccountResponses, response: Json) -> list[str]:
    """The texts and types of what a response answers, in the order in which it was said."""
    items = orjson.loads(write_input_items(past.find(response["id"]), order="asc"))["data"]
    return [item["content"][0]["text"] if "role" in item else item["type"] for item in items]


def test_what_a_response_goes_on_from_is_listed_with_its_input(past: AccountResponses) -> None:
    first = answer(read(past, input="one"), 1)
    second = answer(read(past, input="two", previous_response_id=first["id"]), 2, CALL)
    result = {"type": "function_call_output", "call_id": "c1", "output": "done"}
    third = answer(read(past, input=[result], previous_response_id=second["id"]), 3)
    past.forget(first["id"])
    assert listed(past, second) == ["one", "reasoning", "Hello", "two"]
    assert listed(past, third) == [
        *("one", "reasoning", "Hello", "two"),
        *("function_call", "function_call_output"),
    ]


def test_after_a_summary_only_the_summary_is_gone_on_from(past: AccountResponses) -> None:
    first = answer(read(past, input="one"), 1)
    trigger = [{"type": "compaction_trigger"}]
    short = answer(read(past, input=trigger, previous_response_id=first["id"]), 2)
    assert listed(past, short) == ["one", "reasoning", "Hello", "compaction_trigger"]
    last = answer(read(past, input="two", previous_response_id=short["id"]), 3)
    assert listed(past, last) == [*(item["type"] for item in short["output"]), "two"]


@pytest.mark.parametrize(
    "wrong",
    [{"order": "up"}, {"limit": "0"}, {"limit": "x"}, {"limit": "9" * 5000}, {"after": "no"}],
)
def test_a_wrong_parameter_of_a_list_is_named(
    past: AccountResponses, wrong: dict[str, str]
) -> None:
    stored = past.find(answer(read(past), 1)["id"])
    with pytest.raises(InvalidRequest) as refusal:
        write_input_items(stored, **wrong)
    assert refusal.value.param in wrong


def test_a_response_can_be_forgotten(past: AccountResponses) -> None:
    name = answer(read(past), 1)["id"]
    past.forget(name)
    with pytest.raises(ResponseNotFound):
        past.forget(name)
    assert orjson.loads(write_deleted(name)) == {"id": name, "object": "response", "deleted": True}


# -- bounds ------------------------------------------------------------------------------------------


def stored(number: int, size: int = 0) -> Stored:
    made = Stored(f"resp_{number}", (), b"[]", b"[]", b"")
    return evolve(made, response=b"x" * max(0, size - size_of(made)))


def test_nobody_else_finds_a_response(clock: Clock) -> None:
    responses = Responses()
    responses.of("me", clock).keep(stored(1))
    with pytest.raises(ResponseNotFound):
        responses.of("you", clock).find("resp_1")
    with pytest.raises(ResponseNotFound):
        responses.of("you", clock).forget("resp_1")
    assert responses.of("me", clock).find("resp_1") == stored(1)


def test_a_response_is_kept_for_its_time(clock: Clock) -> None:
    past = Responses(max_seconds=60).of("me", clock)
    past.keep(stored(1))
    clock.now = 60
    past.keep(stored(2))
    past.find("resp_1")
    clock.now = 61
    with pytest.raises(ResponseNotFound):
        past.find("resp_1")
    past.find("resp_2")


def test_an_account_that_keeps_much_drives_out_its_own(clock: Clock) -> None:
    responses = Responses(max_bytes=100_000, account_bytes=5_000)
    mine, yours = responses.of("me", clock), responses.of("you", clock)
    yours.keep(stored(0, 2_000))
    for number in range(1, 5):
        mine.keep(stored(number, 2_000))
    assert responses.size == 6_000
    yours.find("resp_0")
    mine.find("resp_3")
    with pytest.raises(ResponseNotFound):
        mine.find("resp_2")


def test_what_is_larger_than_the_bounds_is_not_kept(clock: Clock) -> None:
    responses = Responses(account_bytes=5_000)
    past = responses.of("me", clock)
    past.keep(stored(1, 2_000))
    past.keep(stored(2, 6_000))
    past.find("resp_1")
    assert responses.size == 2_000


steps = st.tuples(
    st.sampled_from("abc"), st.integers(0, 20), st.integers(0, 4_000), st.floats(0, 40)
)


@given(st.lists(steps, max_size=40))
def test_no_bound_is_ever_exceeded(taken: list[tuple[str, int, int, float]]) -> None:
    clock = Clock()
    responses = Responses(max_bytes=8_000, account_bytes=5_000, max_seconds=100)
    for account, number, size, seconds in taken:
        clock.now += seconds
        past = responses.of(account, clock)
        past.keep(stored(number, size))
        past.find(f"resp_{number}")
        assert responses.size <= 8_000
    clock.now += 101
    with pytest.raises(ResponseNotFound):
        responses.of("a", clock).find("resp_0")
    assert responses.size == 0


def test_the_size_counts_every_text() -> None:
    text = "x" * 1_000
    parts = (Text(text), Reasoning(text), ToolCall("c", "f", text), ToolResult("c", (Text(text),)))
    held = evolve(stored(1), messages=(Message("assistant", parts),))
    assert size_of(held) > size_of(stored(1)) + 4_000
