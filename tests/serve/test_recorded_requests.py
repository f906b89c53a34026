"""What real clients sent, sent again to a real process: each is answered in its own dialect."""

import json
from pathlib import Path
from typing import Any

import pytest
from process import AT_REST, Helexa, call
from script_models import SAID

pytestmark = pytest.mark.real

RECORDED = Path(__file__).parents[1] / "wire" / "recorded"
PATHS = {
    "recorded": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages?beta=true",
}
HEADERS = {
    "messages": {
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14",
        "anthropic-dangerous-direct-browser-access": "true",
        "x-app": "cli",
        "x-stainless-retry-count": "0",
        "x-claude-code-session-id": "00000000-0000-4000-8000-000000000000",
        "user-agent": "claude-cli/2.1.197 (external, sdk-cli)",
        "x-api-key": "",
    }
}
FILES = sorted(path for path in RECORDED.rglob("*.json"))
NAMES = [str(path.relative_to(RECORDED)) for path in FILES]
ENDS = {
    "recorded": "data: [DONE]\n\n",
    "completions": "data: [DONE]\n\n",
    "responses": "data: [DONE]\n\n",
    "messages": 'event: message_stop\ndata: {"type":"message_stop"}\n\n',
}


def send(scripts: Helexa, file: Path, **changes: Any) -> tuple[int, dict[str, str], Any]:
    dialect = file.parent.name
    path = "/v1/messages/count_tokens" if file.stem.endswith("count") else PATHS[dialect]
    body = {**json.loads(file.read_bytes()), **changes}
    headers = {name: value for name, value in HEADERS.get(dialect, {}).items() if value}
    return call("POST", scripts.url() + path, body, headers)


def data_of(stream: str) -> list[dict[str, Any]]:
    lines = [line[6:] for line in stream.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


def test_there_are_recordings_of_every_dialect() -> None:
    assert {path.parent.name for path in FILES} == set(PATHS)


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_a_recorded_request_is_answered_as_it_wants_to_be(scripts: Helexa, file: Path) -> None:
    status, headers, answer = send(scripts, file)
    assert status == 200, answer
    streamed = bool(json.loads(file.read_bytes()).get("stream"))
    assert streamed == headers["content-type"].startswith("text/event-stream")
    if streamed:
        check_stream(file.parent.name, answer)
    elif not file.stem.endswith("count"):
        check_whole(file.parent.name, answer)


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_whole_and_streamed_say_the_same(scripts: Helexa, file: Path) -> None:
    if file.stem.endswith("count"):
        counted = send(scripts, file)[2]["input_tokens"]
        assert counted == send(scripts, file, system="")[2]["input_tokens"]
        return
    dialect = file.parent.name
    _, _, whole = send(scripts, file, stream=False)
    _, _, stream = send(scripts, file, stream=True)
    check_whole(dialect, whole)
    check_stream(dialect, stream)
    assert told(dialect, whole) == told_in_stream(dialect, data_of(stream))


def check_whole(dialect: str, answer: dict[str, Any]) -> None:
    usage = answer["usage"]
    match dialect:
        case "recorded" | "completions":
            (choice,) = answer["choices"]
            assert choice["finish_reason"] in ("stop", "tool_calls", "length")
            assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        case "responses":
            assert answer["status"] == "completed"
            assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
        case "messages":
            assert answer["type"] == "message"
            assert answer["stop_reason"] in ("end_turn", "tool_use")
            assert usage["output_tokens"] > 0


def check_stream(dialect: str, stream: str) -> None:
    assert stream.endswith(ENDS[dialect])
    events = data_of(stream)
    match dialect:
        case "recorded" | "completions":
            ends = [c["finish_reason"] for e in events for c in e["choices"] if c["finish_reason"]]
            assert len(ends) == 1
            assert sum("usage" in event and event["usage"] is not None for event in events) == 1
        case "responses":
            assert [event["sequence_number"] for event in events] == list(range(len(events)))
            assert events[0]["type"] == "response.created"
            assert events[-1]["type"] == "response.completed"
        case "messages":
            kinds = [event["type"] for event in events if event["type"] != "ping"]
            assert kinds[0] == "message_start"
            assert kinds[-2:] == ["message_delta", "message_stop"]
            assert kinds.count("message_start") == 1
            assert "[DONE]" not in stream


def told(dialect: str, answer: dict[str, Any]) -> tuple[str, list[str]]:
    """What is said, and what is called with what."""
    match dialect:
        case "completions":
            return answer["choices"][0]["text"], []
        case "recorded":
            message = answer["choices"][0]["message"]
            calls = [call["function"] for call in message.get("tool_calls") or ()]
            return message["content"] or "", [each["name"] + each["arguments"] for each in calls]
        case "responses":
            return told_by_items(answer["output"])
        case _:
            blocks = answer["content"]
            said = "".join(block.get("text", "") for block in blocks)
            calls = [block for block in blocks if block["type"] == "tool_use"]
            return said, [block["name"] + json.dumps(block["input"]) for block in calls]


def told_by_items(items: list[dict[str, Any]]) -> tuple[str, list[str]]:
    said = "".join(
        p["text"] for item in items if item["type"] == "message" for p in item["content"]
    )
    calls = [item for item in items if item["type"] == "function_call"]
    return said, [item["name"] + item["arguments"] for item in calls]


def told_in_stream(dialect: str, events: list[dict[str, Any]]) -> tuple[str, list[str]]:
    match dialect:
        case "completions":
            return "".join(c["text"] for event in events for c in event["choices"]), []
        case "recorded":
            deltas = [choice["delta"] for event in events for choice in event["choices"]]
            return "".join(delta.get("content") or "" for delta in deltas), calls_of(deltas)
        case "responses":
            done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
            assert done == events[-1]["response"]["output"]
            return told_by_items(done)
        case _:
            return told_by_blocks(events)


def calls_of(deltas: list[dict[str, Any]]) -> list[str]:
    calls: dict[int, str] = {}
    for delta in deltas:
        for call_delta in delta.get("tool_calls", ()):
            function = call_delta["function"]
            more = function.get("name", "") + function.get("arguments", "")
            calls[call_delta["index"]] = calls.get(call_delta["index"], "") + more
    return list(calls.values())


def told_by_blocks(events: list[dict[str, Any]]) -> tuple[str, list[str]]:
    blocks: dict[int, tuple[dict[str, Any], list[str]]] = {}
    for event in events:
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks)
            blocks[event["index"]] = (event["content_block"], [])
        elif event["type"] == "content_block_delta":
            kind, pieces = blocks[event["index"]]
            delta = event["delta"]
            assert delta["type"] in DELTAS[kind["type"]]
            pieces.append(delta.get("text") or delta.get("partial_json") or "")
    said = "".join("".join(pieces) for kind, pieces in blocks.values() if kind["type"] == "text")
    return said, [
        kind["name"] + json.dumps(json.loads("".join(pieces)))
        for kind, pieces in blocks.values()
        if kind["type"] == "tool_use"
    ]


DELTAS = {
    "text": ("text_delta",),
    "tool_use": ("input_json_delta",),
    "thinking": ("thinking_delta", "signature_delta"),
}


def test_what_the_recorded_clients_ask_is_answered_by_the_rules(scripts: Helexa) -> None:
    said = told("messages", send(scripts, RECORDED / "messages" / "python.json")[2])
    assert said == (SAID, [])
    tools = RECORDED / "openai_node_stream_tools.json"
    _, _, answer = send(scripts, tools, stream=False)
    assert len(told("recorded", answer)[1]) == 2


def test_nothing_is_open_after_all_this(scripts: Helexa) -> None:
    assert scripts.status["open"] == AT_REST
