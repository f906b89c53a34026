"""Answers of nodes that do not speak the client's dialect: asked in one that they do, and read."""

from typing import Any

import orjson
import pytest
from fake_node import answer
from relayed import DONE, HELLO, NUM_TOKENS, chunk, prepared, room, sse, streamed, usage_chunk

from helexa.conversation import (
    ChoiceFinished,
    Finished,
    Progress,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from helexa.errors import InvalidRequest, UpstreamMalformed
from helexa.wire import anthropic
from helexa.wire.exchange import Reply

TOOL = {"name": "weather", "description": "of a place", "input_schema": {"type": "object"}}
CALL = {"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": ""}}
MORE = {"index": 0, "function": {"arguments": '{"place":"sea"}'}}
THINKS_AND_CALLS = sse(
    chunk({"role": "assistant", "content": ""}),
    chunk({"reasoning_content": "Where?"}),
    chunk({"content": "Let me see."}),
    chunk({"tool_calls": [CALL]}),
    chunk({"tool_calls": [MORE]}),
    chunk(finish="tool_calls"),
    usage_chunk(30, 12),
)


async def test_a_messages_client_gets_tools_and_thoughts_from_a_chat_server() -> None:
    asked = prepared(
        "messages", stream=True, tools=[TOOL], thinking={"type": "adaptive"}, system="Be brief."
    )
    async with room(chat=streamed(*THINKS_AND_CALLS, DONE)) as found:
        answered = await found.ask(asked)
        sent = found.node.asked[0].json
    assert sent["model"] == "the-model"
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    assert sent["tools"][0]["function"]["name"] == "weather"
    assert (sent["stream"], sent["stream_options"]) == (True, {"include_usage": True})
    assert sent["max_tokens"] == 100
    assert answered.data == b""
    assert answered.told == [
        Started(NUM_TOKENS),
        ReasoningDelta(0, "Where?"),
        TextDelta(0, "Let me see."),
        ToolCallStarted(0, 0, "call_1", "weather"),
        ToolCallDelta(0, 0, '{"place":"sea"}'),
        ChoiceFinished(0, "tool_calls"),
        Finished(Usage(30, 12)),
    ]


async def test_what_is_read_is_a_whole_stream_of_the_client_s_dialect() -> None:
    async with room(chat=streamed(*THINKS_AND_CALLS, DONE)) as found:
        answered = await found.ask(prepared("messages", stream=True))
    writer = anthropic.StreamWriter(Reply("req_1", "alias", 0))
    written = b"".join(writer.write(event) for event in answered.events)
    kinds = [line for line in written.splitlines() if line.startswith(b"event: ")]
    assert kinds[0] == b"event: message_start"
    assert kinds[-2:] == [b"event: message_delta", b"event: message_stop"]
    assert [kinds.count(b"event: content_block_" + end) for end in (b"start", b"stop")] == [3, 3]


async def test_a_whole_answer_is_read_as_well() -> None:
    message = {"content": "Hello", "reasoning_content": "Hm."}
    body = {"choices": [{"message": message, "finish_reason": "length"}]}
    async with room(chat=answer(body)) as found:
        answered = await found.ask(prepared("responses", max_tokens=40))
        assert found.node.asked[0].json["max_tokens"] == 40
    assert answered.told[:3] == [
        Started(NUM_TOKENS),
        ReasoningDelta(0, "Hm."),
        TextDelta(0, "Hello"),
    ]
    assert answered.usage.prompt_tokens == NUM_TOKENS
    assert 0 < answered.usage.completion_tokens <= 40


async def test_a_neuron_that_knows_responses_alone_is_asked_so() -> None:
    output = [{"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}]
    response = {"id": "r", "status": "completed", "output": output}
    usage = {"input_tokens": 5, "output_tokens": 1}
    async with room(
        "neuron", dialects=("responses",), responses=answer({**response, "usage": usage})
    ) as found:
        answered = await found.ask(prepared("chat"))
        assert found.node.asked[-1].json["store"] is False
    assert answered.told[1:] == [
        TextDelta(0, "Hi"),
        ChoiceFinished(0, "stop"),
        Finished(Usage(5, 1)),
    ]


async def test_a_request_with_memory_of_ours_is_put_in_words_that_say_it_all() -> None:
    async with room("helexa", chat=streamed(*HELLO, DONE)) as found:
        answered = await found.ask(prepared("responses", stream=True, passes=False))
        assert found.node.asked[0].path == "/v1/chat/completions"
    assert TextDelta(0, "Hello") in answered.told


async def test_an_upstream_may_be_said_to_know_more_dialects() -> None:
    message = {"content": [], "stop_reason": "end_turn", "usage": {"input_tokens": 1}}
    async with room(dialects=("messages",), messages=answer(message)) as found:
        answered = await found.ask(
            prepared("messages", wishes=(("anthropic-beta", "b"), ("x-include-thinking", "true")))
        )
        headers = found.node.asked[0].headers
    assert orjson.loads(answered.data) == message
    assert headers["anthropic-beta"] == "b"
    assert headers["anthropic-version"]
    assert "x-include-thinking" not in headers


async def test_a_node_that_cannot_be_asked_such_a_thing_refuses_in_words() -> None:
    async with room("neuron") as found:
        with pytest.raises(InvalidRequest) as refusal:
            await found.ask(prepared("completions"))
        assert refusal.value.param == "prompt"
    async with room("openai", dialects=("completions",)) as found:
        with pytest.raises(InvalidRequest, match="it speaks completions"):
            await found.ask(prepared("chat"))


@pytest.mark.parametrize(
    "given",
    [
        answer(b"<html>"),
        answer({"choices": []}),
        streamed(b"data: {nonsense\n\n"),
        streamed(b"data: [1]\n\n"),
        streamed(*HELLO[:2], b"data: []\n\n"),
        streamed(*HELLO[:3]),
    ],
)
@pytest.mark.parametrize("dialect", ["chat", "messages"])
async def test_garbage_is_the_upstream_s_mistake(given: Any, dialect: Any) -> None:
    is_whole = given.__qualname__.startswith("answer")
    async with room(chat=given) as found:
        with pytest.raises(UpstreamMalformed):
            await found.ask(prepared(dialect, stream=not is_whole, stream_options={}))


async def test_what_waits_is_told_also_where_the_answer_is_read() -> None:
    async with room("neuron", chat=streamed(b": prefill 3/9\n\n", *HELLO, DONE)) as found:
        answered = await found.ask(prepared("messages", stream=True))
    assert answered.events[0] == Progress("prefill", 3, 9)
