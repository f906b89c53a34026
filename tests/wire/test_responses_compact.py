"""Conversations made short: the request for a summary, its answer, and how it is sent back."""

import orjson
from responses_grammar import check

from helexa.conversation import (
    ChoiceFinished,
    Conversation,
    Finished,
    Json,
    Message,
    Text,
    TextDelta,
    Thinking,
    ToolChoice,
    Usage,
)
from helexa.responses import Responses
from helexa.wire.answer import Answer, Choice
from helexa.wire.exchange import Reply
from helexa.wire.fields import parse_json
from helexa.wire.openai_responses import read_compaction, read_request
from helexa.wire.openai_responses.items import SUMMARY

REPLY = Reply("req_AbC123", "m", 1_700_000_000)
STORY = [
    {"role": "user", "content": "Fix the bug."},
    {"role": "assistant", "content": "Done."},
    {"role": "user", "content": "Now the tests."},
]
DONE = Answer((Choice("The bug is fixed."),), Usage(30, 9))


def read(body: Json) -> Conversation:
    return read_request(parse_json(orjson.dumps(body))).conversation


def test_a_summary_is_asked_for_with_bounds_and_without_calls() -> None:
    tools = [{"type": "function", "name": "f"}]
    request = read_compaction(
        {"model": "m", "input": STORY, "instructions": "Be brief.", "tools": tools,
         "reasoning": {"effort": "high"}, "max_output_tokens": 10**6}
    )  # fmt: skip
    asked = request.conversation
    assert not request.stream
    assert [message.role for message in asked.messages] == [
        "system", "user", "assistant", "user", "user",
    ]  # fmt: skip
    assert asked.max_tokens == 4096
    assert asked.tool_choice == ToolChoice("none")
    assert [tool.name for tool in asked.tools] == ["f"]
    assert asked.thinking == Thinking(enabled=False)


def test_what_the_user_said_stays_and_the_rest_is_a_summary() -> None:
    request = read_compaction({"model": "m", "input": STORY})
    compaction = orjson.loads(request.whole(DONE, REPLY))
    assert compaction["object"] == "response.compaction"
    assert compaction["usage"]["total_tokens"] == 39
    first, second, last = compaction["output"]
    assert [item["content"][0]["text"] for item in (first, second)] == [
        "Fix the bug.",
        "Now the tests.",
    ]
    assert last["type"] == "compaction"
    again = read(
        {"model": "m", "input": [*compaction["output"], {"role": "user", "content": "Go"}]}
    )
    assert [message.parts for message in again.messages] == [
        (Text("Fix the bug."),),
        (Text("Now the tests."),),
        (Text(SUMMARY + "The bug is fixed."),),
        (Text("Go"),),
    ]


def test_only_the_latest_of_what_the_user_said_stays() -> None:
    long = [{"role": "user", "content": f"{i}" * 10_000} for i in range(3)]
    compaction = orjson.loads(read_compaction({"model": "m", "input": long}).whole(DONE, REPLY))
    said, _ = compaction["output"]
    assert said["content"][0]["text"] == "2" * 10_000


def test_a_summary_of_a_summary_holds_it_no_second_time() -> None:
    first = orjson.loads(read_compaction({"model": "m", "input": STORY}).whole(DONE, REPLY))
    again = read_compaction({"model": "m", "input": first["output"]})
    second = orjson.loads(again.whole(DONE, REPLY))
    assert [item["type"] for item in second["output"]] == ["message", "message", "compaction"]


def test_an_item_in_the_input_asks_for_a_summary_too() -> None:
    past = Responses().of("me", lambda: 0.0)
    body = {"model": "m", "input": [*STORY, {"type": "compaction_trigger"}]}
    writer = read_request(body, past).writer(REPLY)
    events = (TextDelta(0, "The bug "), TextDelta(0, "is fixed."), ChoiceFinished(0, "stop"))
    stream = b"".join(map(writer.write, (*events, Finished(Usage(30, 9)))))
    (item,) = check(stream)
    assert item["type"] == "compaction"
    summary = Message("user", (Text(SUMMARY + "The bug is fixed."),))
    assert read({"model": "m", "input": [item]}).messages == (summary,)
    assert past.find("resp_AbC123").messages == (summary,)


def test_a_conversation_that_is_kept_can_be_made_short() -> None:
    past = Responses().of("me", lambda: 0.0)
    read_request({"model": "m", "input": STORY}, past).whole(DONE, REPLY)
    request = read_compaction({"model": "m", "previous_response_id": "resp_AbC123"}, past)
    assert [message.role for message in request.conversation.messages] == [
        "user", "assistant", "user", "assistant", "user",
    ]  # fmt: skip
