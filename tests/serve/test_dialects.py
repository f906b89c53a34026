"""The demo model in every dialect, from the outside: answers, counts, bad input."""

from typing import Any

import pytest
from process import MODEL, PARIS, Helexa, call

pytestmark = pytest.mark.real

QUESTION = PARIS[0]["content"]
LONG = [{"role": "user", "content": "word " * 10_000}]
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
COUNT = "/v1/messages/count_tokens"
REQUESTS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": PARIS, "max_tokens": 16},
    COMPLETIONS: {"prompt": "The capital of France is", "max_tokens": 4},
    RESPONSES: {"input": QUESTION, "max_output_tokens": 16},
    MESSAGES: {"messages": PARIS, "max_tokens": 16},
}


def ask(path: str, **changes: Any) -> dict[str, Any]:
    return {"model": MODEL, "temperature": 0, **REQUESTS[path], **changes}


def prompt_tokens(answer: dict[str, Any]) -> int:
    usage = answer["usage"]
    cached = usage.get("cache_read_input_tokens", 0)
    found: int = usage.get("prompt_tokens", usage.get("input_tokens")) + cached
    return found


@pytest.mark.parametrize("role", ["gateway", "node"])
@pytest.mark.parametrize("path", REQUESTS)
def test_every_dialect_answers_on_both_listeners(served: Helexa, role: str, path: str) -> None:
    assert call("POST", served.url() + path, ask(path))[0] == 200  # loads it, too
    status, headers, answer = call("POST", served.url(role) + path, ask(path))
    assert status == 200, answer
    assert "Paris" in str(answer)
    assert headers["x-helexa-node"] == "local"
    status, _, stream = call("POST", served.url(role) + path, ask(path, stream=True))
    assert status == 200
    assert "Paris" in stream


def test_what_is_counted_is_what_is_read(served: Helexa) -> None:
    answer = call("POST", served.url() + MESSAGES, ask(MESSAGES))[2]
    status, _, counted = call("POST", served.url() + COUNT, ask(MESSAGES))
    assert (status, counted) == (200, {"input_tokens": prompt_tokens(answer)})
    answer = call("POST", served.url() + RESPONSES, ask(RESPONSES))[2]
    counted = call("POST", served.url() + "/v1/responses/input_tokens", ask(RESPONSES))[2]
    assert counted["input_tokens"] == prompt_tokens(answer)


def test_a_prompt_that_is_too_long_is_counted_all_the_same(served: Helexa) -> None:
    status, _, counted = call("POST", served.url() + COUNT, ask(MESSAGES, messages=LONG))
    assert status == 200
    assert counted["input_tokens"] >= 10_000
    refused = call("POST", served.url() + MESSAGES, ask(MESSAGES, messages=LONG))
    assert refused[0] == 400
    assert f"prompt is too long: {counted['input_tokens']} tokens" in str(refused[2])


def test_a_conversation_goes_on_from_a_stored_response(served: Helexa) -> None:
    first = call("POST", served.url() + RESPONSES, ask(RESPONSES))[2]
    next_one = ask(RESPONSES, input="And of Spain?", previous_response_id=first["id"])
    status, _, second = call("POST", served.url() + RESPONSES, next_one)
    assert status == 200, second
    assert prompt_tokens(second) > prompt_tokens(first)
    url = f"{served.url()}{RESPONSES}/{second['id']}"
    assert call("GET", url)[2] == second
    assert call("DELETE", url)[2]["deleted"] is True
    assert call("GET", url)[0] == 404


BAD: list[tuple[str, dict[str, Any], str]] = [
    *((path, {"model": None}, "model") for path in REQUESTS),
    *((path, {"model": "no such model"}, "model") for path in REQUESTS),
    *((path, {"stream": "yes"}, "stream") for path in REQUESTS),
    *((path, {"temperature": "hot"}, "temperature") for path in REQUESTS),
    (CHAT, {"tools": [{"type": "function", "function": {"name": 7}}]}, "tools[0].function.name"),
    (CHAT, {"tool_choice": "required"}, "tool_choice"),
    (COMPLETIONS, {"prompt": None}, "prompt"),
    (COMPLETIONS, {"prompt": []}, "prompt"),
    (COMPLETIONS, {"prompt": [["a"]]}, "prompt[0]"),
    (COMPLETIONS, {"prompt": [10**9]}, "prompt"),
    (COMPLETIONS, {"prompt": ["x"] * 65}, "prompt"),
    (COMPLETIONS, {"suffix": "and"}, "suffix"),
    (COMPLETIONS, {"logprobs": 99}, "logprobs"),
    (RESPONSES, {"input": 7}, "input"),
    (RESPONSES, {"input": [7]}, "input[0]"),
    (RESPONSES, {"input": [{"role": "wizard", "content": "hi"}]}, "input[0].role"),
    (RESPONSES, {"tools": [{"type": "function"}]}, "tools[0].name"),
    (RESPONSES, {"previous_response_id": "resp_1"}, "previous_response_id"),
    (RESPONSES, {"background": True}, "background"),
    (RESPONSES, {"text": {"format": {"type": "xml"}}}, "text.format.type"),
    (MESSAGES, {"messages": 7}, "messages"),
    (MESSAGES, {"messages": [{"role": "user", "content": [{}]}]}, "messages[0].content[0].type"),
    (MESSAGES, {"system": 7}, "system"),
    (MESSAGES, {"max_tokens": 0}, "max_tokens"),
    (MESSAGES, {"tools": [{"name": "x"}]}, "tools[0].input_schema"),
    (MESSAGES, {"thinking": {"type": "much"}}, "thinking.type"),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_a_bad_field_is_named_in_every_dialect(served: Helexa, number: int) -> None:
    path, changes, param = BAD[number]
    status, headers, refused = call("POST", served.url() + path, ask(path, **changes))
    assert 400 <= status < 500, refused
    assert refused["error"]["message"]
    assert refused["error"]["param"].startswith(param)
    assert refused["error"]["request_id"] == headers["x-request-id"]
    assert (refused.get("type") == "error") == (path == MESSAGES)


def test_nothing_stays_taken(served: Helexa) -> None:
    assert served.status["open"] == {"sequences": 0, "slots": 0, "reservations": 0}
