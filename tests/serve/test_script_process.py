"""A real process that serves script models: the documented example, and Qwen3's words and window."""

import json
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from process import Helexa, call, helexa

from helexa.fleet.script import NO_RULE

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
READ_FILE = {
    "type": "function",
    "function": {
        "name": "read_file",
        "parameters": {"type": "object", "properties": {"path": {"type": "string"}}},
    },
}


def documented() -> list[str]:
    """The example's catalogue and its rules."""
    section = PAGE.read_text().partition("## Script models")[2].partition("\n## ")[0]
    blocks = section.split("```toml\n")[1:]
    return [block.partition("```")[0] for block in blocks]


@pytest.fixture(scope="module")
def scripted(
    tmp_path_factory: pytest.TempPathFactory, store_dir: Path, qwen3_tokenizer: Path
) -> Iterator[Helexa]:
    """The documented example, and the same rules read with Qwen3's tokenizer."""
    folder = tmp_path_factory.mktemp("scripted")
    catalogue, rules = documented()
    more = (
        '[[models]]\nid = "qwen"\nharness = "script"\nscript = "qwen.toml"\n'
        f'tokenizer = "{qwen3_tokenizer}"\n'
        '[[models]]\nid = "huge"\nharness = "script"\nscript = "rules.toml"\nvram_mb = 2800\n'
    )
    (folder / "models.toml").write_text(catalogue + more)
    (folder / "rules.toml").write_text(rules)
    (folder / "qwen.toml").write_text(QWEN_RULES)
    options = {
        "HELEXA_MODELS__CATALOGUE": str(folder / "models.toml"),
        "HELEXA_NODE__MEMORY_MB": "4000",
        "CUDA_VISIBLE_DEVICES": "",
    }
    with helexa(folder / "state", store_dir, options) as process:
        yield process


QWEN_RULES = """
[[rules]]
when = "think"
say = '''<think>
Two and two.
</think>

Four.'''

[[rules]]
say = "Read."
"""


def ask(server: Helexa, text: str, **options: Any) -> tuple[int, Any]:
    messages = [{"role": "user", "content": text}]
    body = {"model": "scripted", "messages": messages, **options}
    status, _, answer = call("POST", f"{server.url()}/v1/chat/completions", body)
    return status, answer


def test_the_documented_example_calls_a_tool_and_reads_its_result(scripted: Helexa) -> None:
    status, answer = ask(scripted, "Please read the file.", tools=[READ_FILE])
    assert status == 200, answer
    (choice,) = answer["choices"]
    (called,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"].strip() == "I look."
    assert called["function"]["name"] == "read_file"
    assert json.loads(called["function"]["arguments"]) == {"path": "note.txt"}
    messages = [
        {"role": "user", "content": "Please read the file."},
        choice["message"],
        {"role": "tool", "tool_call_id": called["id"], "content": "It is kept in the file."},
    ]
    _, answer = ask(scripted, "", messages=messages, tools=[READ_FILE])
    assert answer["choices"][0]["message"]["content"] == "The file says it: marmalade."
    assert answer["choices"][0]["finish_reason"] == "stop"
    usage = answer["usage"]
    assert usage["prompt_tokens"] > 20
    assert usage["completion_tokens"] > 5


def test_the_documented_example_says_the_rest_of_what_it_says(scripted: Helexa) -> None:
    assert said(ask(scripted, "hi")) == "Hello from a script."
    began = time.monotonic()
    assert said(ask(scripted, "now slowly")) == "One word after the other."
    assert time.monotonic() - began >= 6 / 20  # it has six tokens and its end
    status, answer = ask(scripted, "break")
    assert (status, answer["error"]["code"]) == (503, "service_unavailable")
    assert answer["error"]["message"] == (
        "the script model failed after 3 tokens, as its rules say"
    )
    assert said(ask(scripted, "hi", max_tokens=2)) == "Hello from"


def said(answered: tuple[int, Any]) -> str:
    status, answer = answered
    assert status == 200, answer
    text: str = answer["choices"][0]["message"]["content"]
    return text


def test_the_page_quotes_what_is_said_without_a_rule() -> None:
    assert NO_RULE.say in " ".join(PAGE.read_text().split())
    catalogue, rules = map(tomllib.loads, documented())
    assert catalogue["models"][0]["harness"] == "script"
    assert len(rules["rules"]) == 5


def test_a_script_model_fills_its_memory(scripted: Helexa) -> None:
    ask(scripted, "hi")
    node = scripted.url("node")
    _, _, listed = call("GET", f"{node}/models")
    (found,) = [model for model in listed if model["id"] == "scripted"]
    assert (found["harness"], found["status"], found["vram_used_mb"]) == ("script", "loaded", 600)
    assert found["limit"]["context"] == 131072
    assert "script" in call("GET", f"{node}/discovery")[2]["harnesses"]
    status, _, answer = call("POST", f"{node}/models/load", {"model_id": "huge"})
    assert (status, answer["error"]["code"]) == (503, "insufficient_vram")
    assert answer["error"]["required_mb"] == 2800
    before = device_used(scripted)
    call("POST", f"{node}/models/unload", {"model_id": "scripted"})
    assert before - device_used(scripted) > 300
    assert said(ask(scripted, "hi", model="huge")) == "Hello from a script."
    call("POST", f"{node}/models/unload", {"model_id": "huge"})


def device_used(server: Helexa) -> int:
    used: int = call("GET", f"{server.url('node')}/health")[2]["devices"][0]["vram_used_mb"]
    return used


def test_thoughts_are_told_apart(scripted: Helexa) -> None:
    _, answer = ask(scripted, "think", model="qwen", reasoning_effort="high")
    message = answer["choices"][0]["message"]
    assert message["content"].strip() == "Four."
    assert message["reasoning_content"].strip() == "Two and two."


def test_a_prompt_of_a_hundred_thousand_tokens_is_read_and_a_longer_one_is_overflow(
    scripted: Helexa,
) -> None:
    status, answer = ask(scripted, "one two " * 50_000, model="qwen")
    assert status == 200, answer
    assert answer["choices"][0]["message"]["content"] == "Read."
    assert 100_000 <= answer["usage"]["prompt_tokens"] < 101_000
    status, answer = ask(scripted, "one two " * 65_000, model="qwen")
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert "maximum context length is 131072 tokens" in answer["error"]["message"]


def test_a_stream_keeps_the_pace_of_its_rule(scripted: Helexa) -> None:
    status, headers, text = call(
        "POST",
        f"{scripted.url()}/v1/chat/completions",
        {
            "model": "scripted",
            "stream": True,
            "messages": [{"role": "user", "content": "slowly"}],
        },
    )
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    words = [chunk["choices"][0]["delta"].get("content") for chunk in chunks if chunk["choices"]]
    assert "".join(filter(None, words)) == "One word after the other."
    assert len([word for word in words if word]) >= 5


def test_a_script_model_cannot_be_loaded_as_another_harness(scripted: Helexa) -> None:
    node = scripted.url("node")
    for body in (
        {"model_id": "scripted", "harness": "torch"},
        {"model_id": "no-such-model", "harness": "script"},
    ):
        status, _, answer = call("POST", f"{node}/models/load", body)
        assert (status, answer["error"]["param"]) == (400, "harness")
    body = {"model_id": "scripted", "harness": "script"}
    assert call("POST", f"{node}/models/load", body)[0] == 200
