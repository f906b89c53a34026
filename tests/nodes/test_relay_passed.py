"""Answers that pass through a gateway in their own dialect, whole and as streams."""

from contextlib import aclosing
from typing import Any

import orjson
import pytest
from fake_node import answer, chunks, hang
from relayed import (
    DONE,
    HELLO,
    NUM_TOKENS,
    Kind,
    chunk,
    prepared,
    room,
    sse,
    streamed,
    usage_chunk,
)

from helexa.conversation import ChoiceFinished, Finished, Passed, Progress, Started, Usage
from helexa.nodes.asked import Dialect

USAGE = {"prompt_tokens": 5, "completion_tokens": 2}
WHOLE_CHAT = orjson.dumps(
    {
        "id": "chatcmpl-1",
        "choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}],
        "usage": USAGE,
    },
    option=orjson.OPT_INDENT_2,
)
WHOLE_MESSAGE = orjson.dumps(
    {
        "type": "message",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "max_tokens",
        "usage": {"input_tokens": 3, "cache_read_input_tokens": 2, "output_tokens": 2},
    }
)
WHOLE_RESPONSE = orjson.dumps(
    {
        "id": "resp_1",
        "status": "completed",
        "output": [{"type": "function_call", "name": "f", "arguments": "{}"}],
        "usage": {"input_tokens": 5, "output_tokens": 2},
    }
)


@pytest.mark.parametrize(
    ("dialect", "whole", "reason"),
    [
        ("chat", WHOLE_CHAT, "stop"),
        ("completions", WHOLE_CHAT, "stop"),
        ("messages", WHOLE_MESSAGE, "length"),
        ("responses", WHOLE_RESPONSE, "tool_calls"),
    ],
)
async def test_a_whole_answer_passes_byte_for_byte(
    dialect: Dialect, whole: bytes, reason: Any
) -> None:
    async with room("helexa", **{dialect: answer(whole)}) as found:
        answered = await found.ask(prepared(dialect))
    assert answered.data == whole
    assert ChoiceFinished(0, reason) in answered.told
    assert (answered.usage.prompt_tokens, answered.usage.completion_tokens) == (5, 2)


# -- streams -------------------------------------------------------------------------------------------

MESSAGES = sse(
    {"type": "message_start", "message": {"usage": {"input_tokens": 4, "output_tokens": 0}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "!"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"output_tokens": 2},
    },
    {"type": "message_stop"},
    named=True,
)
RESPONSE = {"id": "resp_7", "status": "in_progress", "output": []}
RESPONSES = sse(
    {"type": "response.created", "sequence_number": 0, "response": RESPONSE},
    {"type": "response.in_progress", "sequence_number": 1, "response": RESPONSE},
    {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message"}},
    {"type": "response.output_text.delta", "output_index": 0, "delta": "Hi"},
    {
        "type": "response.completed",
        "response": {
            **RESPONSE,
            "status": "completed",
            "usage": {"input_tokens": 4, "output_tokens": 2},
        },
    },
    DONE,
    named=True,
)
CHAT = [*HELLO, *sse(usage_chunk(4, 2)), DONE]
STREAMS: dict[Dialect, list[bytes]] = {
    "chat": CHAT,
    "completions": CHAT,
    "messages": MESSAGES,
    "responses": RESPONSES,
}
SPLITS = {
    "frame by frame": lambda data: data,
    "at once": lambda data: [b"".join(data)],
    "byte by byte": lambda data: [bytes([byte]) for byte in b"".join(data)],
    "with CRLF": lambda data: [frame.replace(b"\n", b"\r\n") for frame in data],
}


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
@pytest.mark.parametrize("dialect", STREAMS)
async def test_a_stream_passes_byte_for_byte_however_it_is_cut(
    dialect: Dialect, split: Any
) -> None:
    frames = split(STREAMS[dialect])
    async with room("helexa", **{dialect: streamed(*frames)}) as found:
        answered = await found.ask(prepared(dialect, stream=True))
        assert found.trace.node == "gpu"
        assert found.trace.first_token_at is not None
        assert found.node.num_open == 1  # ready for the next request
    assert answered.data == b"".join(frames)
    assert sum(isinstance(event, Started) for event in answered.told) == 1
    assert answered.told[-2:] == [ChoiceFinished(0, "stop"), Finished(Usage(4, 2))]
    assert all(any(isinstance(each, Passed) for each in batch) for batch in answered.batches)


async def test_a_frame_that_is_not_complete_does_not_hold_back_those_before_it() -> None:
    first, second, *_ = CHAT
    async with (
        room(chat=chunks(first + second[:9], end=hang)) as found,
        aclosing(found.generate(prepared(stream=True))) as batches,
    ):
        assert (await anext(batches))[0] == Passed(first)


@pytest.mark.parametrize("wanted", [None, {}, {"include_usage": False}, {"include_usage": True}])
async def test_usage_is_always_asked_for_and_its_chunk_taken_out_where_the_client_did_not(
    wanted: Any,
) -> None:
    async with room(chat=streamed(*CHAT)) as found:
        answered = await found.ask(prepared(stream=True, stream_options=wanted))
        assert found.node.asked[0].json["stream_options"] == {"include_usage": True}
    included = bool(wanted and wanted.get("include_usage"))
    assert answered.data == b"".join(CHAT if included else [*HELLO, DONE])
    assert answered.usage == Usage(4, 2)


async def test_words_that_look_like_the_end_do_not_end_an_answer() -> None:
    said = 'event: error\n\ndata: [DONE]\n\n"finish_reason":"stop" "usage":{} "error":1'
    frames = [HELLO[0], *sse(chunk({"content": said})), *CHAT[1:]]
    async with room(chat=streamed(*frames)) as found:
        answered = await found.ask(prepared(stream=True, stream_options={"include_usage": True}))
    assert answered.data == b"".join(frames)
    assert answered.usage == Usage(4, 2)


async def test_what_a_node_says_of_the_wait_is_progress_and_does_not_pass() -> None:
    waits = [b": queued 2/3\n\n", b": prefill 10/20\n\n", b": started 9 cached 4\n\n"]
    async with room("helexa", chat=streamed(*waits, *CHAT)) as found:
        answered = await found.ask(prepared(stream=True))
    assert answered.progress == [Progress("queued", 2, 3), Progress("prefill", 10, 20)]
    assert answered.told[0] == Started(9, 4)
    assert answered.data == b"".join([waits[2], *CHAT])


async def test_what_a_node_says_between_its_tokens_passes() -> None:
    frames = [*HELLO[:2], b": decode 0/0\n\n", *CHAT[2:]]
    async with room("helexa", chat=streamed(*frames)) as found:
        answered = await found.ask(prepared(stream=True))
    assert answered.data == b"".join(frames)


async def test_a_response_that_our_writer_has_opened_is_read_and_written_anew() -> None:
    async with room("helexa", responses=streamed(*RESPONSES)) as found:
        found.trace.opened = True
        answered = await found.ask(prepared("responses", stream=True))
    assert answered.data == b""
    assert [type(event).__name__ for event in answered.told] == [
        "Started",
        "TextDelta",
        "ChoiceFinished",
        "Finished",
    ]


async def test_a_stream_may_end_without_its_last_mark() -> None:
    async with room(chat=streamed(*HELLO)) as found:
        answered = await found.ask(prepared(stream=True))
    assert answered.data == b"".join(HELLO)
    assert answered.told[-2] == ChoiceFinished(0, "stop")


@pytest.mark.parametrize("kind", ["openai", "neuron"])
async def test_usage_that_is_not_told_is_what_we_counted(kind: Kind) -> None:
    async with room(kind, chat=streamed(*HELLO, DONE)) as found:
        answered = await found.ask(prepared(stream=True))
    assert answered.usage == Usage(NUM_TOKENS, 2)
    assert answered.told[0] == Started(NUM_TOKENS)


@pytest.mark.parametrize(
    ("told", "believed"),
    [
        (usage_chunk(10**9, 2), Usage(NUM_TOKENS, 2)),
        (usage_chunk(4, 10**9), Usage(4, 2)),
        (usage_chunk(4, 0), Usage(4, 2)),
        (usage_chunk(0, 2), Usage(NUM_TOKENS, 2)),
    ],
)
async def test_usage_that_cannot_be_true_is_what_we_counted(told: Any, believed: Usage) -> None:
    async with room(chat=streamed(*HELLO, *sse(told), DONE)) as found:
        answered = await found.ask(prepared(stream=True, max_tokens=50))
    assert answered.usage == believed


SCORES = {"content": [{"token": "Hello", "logprob": -0.1, "top_logprobs": []}] * 40}
TEXT = "Hello there "  # 12 bytes: 3 tokens
WITHOUT_USAGE: dict[Dialect, Any] = {
    "chat": {
        "choices": [
            {
                "message": {
                    "role": "assistant",
                    "content": TEXT,
                    "reasoning": TEXT,
                    "reasoning_content": TEXT,
                    "tool_calls": [
                        {"id": "call_1", "function": {"name": "find", "arguments": '{"a":12}'}}
                    ],
                },
                "logprobs": SCORES,
                "finish_reason": "stop",
            },
        ]
    },
    "completions": {"choices": [{"text": TEXT * 3, "logprobs": SCORES, "finish_reason": "stop"}]},
    "messages": {
        "stop_reason": "tool_use",
        "content": [
            {"type": "thinking", "thinking": TEXT, "signature": "s" * 400},
            {"type": "text", "text": TEXT},
            {"type": "tool_use", "id": "toolu_1", "name": "find", "input": {"a": 12}},
        ],
    },
    "responses": {
        "status": "completed",
        "text": {"format": {"type": "text"}},
        "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": TEXT}]},
            {
                "type": "message",
                "content": [{"type": "output_text", "text": TEXT, "logprobs": SCORES["content"]}],
            },
            {"type": "function_call", "call_id": "c", "name": "find", "arguments": '{"a":12}'},
        ],
    },
}


@pytest.mark.parametrize("dialect", WITHOUT_USAGE)
async def test_a_whole_answer_without_usage_costs_what_its_text_may_have_been(
    dialect: Dialect,
) -> None:
    async with room("helexa", **{dialect: answer(WITHOUT_USAGE[dialect])}) as found:
        answered = await found.ask(prepared(dialect))
    assert answered.usage == Usage(NUM_TOKENS, 9)


async def test_an_answer_without_usage_that_is_nested_without_end_costs_nothing() -> None:
    deep = b"[" * 900 + b"]" * 900
    body = b'{"choices": [{"message": {"content": "Hi", "tool_calls": %s}}]}' % deep
    async with room("helexa", chat=answer(body)) as found:
        answered = await found.ask(prepared())
    assert answered.usage == Usage(NUM_TOKENS, 1)


async def test_many_frames_in_one_piece_are_one_batch() -> None:
    words = sse(*(chunk({"content": f"word {i} "}) for i in range(1000)))
    frames = [HELLO[0], b"".join(words), *CHAT[-3:]]
    async with room(chat=chunks(*frames)) as found:
        answered = await found.ask(prepared(stream=True))
    assert len(answered.batches) < 50
    assert sum(event.tokens for event in answered.events if isinstance(event, Passed)) == 1000
