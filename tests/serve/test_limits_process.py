"""The limit that a running process promises, why it does, and what it remembers of prompts."""

import json
import uuid

import pytest
from process import MODEL, Helexa, call, chat

pytestmark = pytest.mark.real


def listed(served: Helexa) -> dict[str, object]:
    _, _, answer = call("GET", served.url() + f"/v1/models/{MODEL}")
    return {name: answer[name] for name in ("limit", "limit_estimated", "context_length")}


def test_the_limit_is_the_same_on_every_list_and_explained_term_by_term(served: Helexa) -> None:
    call("POST", served.url() + "/v1/chat/completions", chat())
    limit = {"context": 8192, "input": 6144, "output": 2048}
    assert listed(served) == {"limit": limit, "limit_estimated": False, "context_length": 8192}
    _, _, on_node = call("GET", served.url("node") + "/models")
    (entry,) = [each for each in on_node if each["id"] == MODEL]
    assert (entry["limit"], entry["limit_estimated"]) == (limit, False)
    told = json.loads(served.ctl("why-limit", "demo", "--json").stdout)
    assert (told["model"], told["limit"], told["binds"]) == (MODEL, limit, "positions")
    shown = served.ctl("why-limit", "demo").stdout
    assert f"{MODEL} (loaded): context 8192 = input 6144 + output 2048" in shown
    assert "->  positions" in shown
    assert served.ctl("why-limit", "no-such-model").returncode == 1


def test_the_pool_holds_what_is_promised_and_shows_it(served: Helexa) -> None:
    call("POST", served.url() + "/v1/chat/completions", chat())
    (state,) = [each for each in served.status["models"] if each["id"] == MODEL]
    assert state["kv_pool_tokens"] >= 8192
    assert state["kv_bytes_per_token"] in (
        23_040,
        46_080,
    )  # 30 layers, 3 heads, 64 wide; bf16, fp32
    assert state["alone"] == ""
    (device,) = served.status["devices"]
    assert device["abilities"]["dtypes"][device["abilities"]["dtype"]] == ""
    assert "ATTENTION" in served.ctl("status").stdout


def test_a_second_turn_is_told_how_much_of_it_was_cached(served: Helexa) -> None:
    messages = [{"role": "user", "content": f"Remember {uuid.uuid4()}. " + "Say hello. " * 40}]
    body = chat() | {"messages": messages, "max_tokens": 4}
    _, _, first = call("POST", served.url() + "/v1/chat/completions", body)
    body["messages"] = [
        *messages,
        first["choices"][0]["message"] | {"tool_calls": []},
        {"role": "user", "content": "Again."},
    ]
    _, _, second = call("POST", served.url() + "/v1/chat/completions", body)
    cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert first["usage"]["prompt_tokens"] - 8 <= cached < second["usage"]["prompt_tokens"]
    (state,) = [each for each in served.status["models"] if each["id"] == MODEL]
    assert state["prefix_cache"]["saved_tokens"] >= cached
    records = served.control("requests", limit=1)
    assert records[0]["cached_tokens"] == cached
