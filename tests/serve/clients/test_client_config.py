"""What `helexa client-config` prints: read by the tools' own readers, or as strictly as they read."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from helexa.clients.command import CLIENTS, gateway_url
from helexa.clients.notation import toml
from helexa.clients.notation import yaml as to_yaml
from helexa.clients.offer import Model, Offer, choose, read_models
from helexa.config.schema import Config, Gateway
from helexa.errors import HelexaError

BIG = Model(
    "org/big-model",
    131072,
    122880,
    8192,
    tools=True,
    reasoning=True,
    cost_input=2.0,
    codex={"slug": "org/big-model", "context_window": 131072},
)
SMALL = Model("small", 8192, 6144, 2048, tools=True, reasoning=False)
OFFER = Offer("http://host:31313", (BIG, SMALL), BIG, SMALL)


def made(client: str) -> list[Any]:
    """The client's files, parsed."""
    return [parse(file.path, file.text) for file in CLIENTS[client](OFFER).files]


def parse(path: str, text: str) -> Any:
    match Path(path).suffix or Path(path).name:
        case ".json":
            return json.loads(text)
        case ".toml":
            return tomllib.loads(text)
        case ".yaml" | ".yml":
            return yaml.safe_load(text)
        case _:
            return dict(line.split("=", 1) for line in text.splitlines())


def test_opencode_gets_all_three_limits_because_without_them_it_compacts_at_every_step() -> None:
    (config,) = made("opencode")
    provider = config["provider"]["helexa"]
    assert provider["options"]["baseURL"] == "http://host:31313/v1"
    assert provider["models"]["org/big-model"]["limit"] == {
        "context": 131072,
        "input": 122880,
        "output": 8192,
    }
    assert config["small_model"] == "helexa/small"
    assert config["providers"]["helexa"]["models"]["small"]["limit"]["context"] == 8192


def test_claude_code_is_told_the_true_window_and_takes_its_key_from_the_environment() -> None:
    (config,) = made("claude-code")
    env = config["env"]
    assert env["ANTHROPIC_BASE_URL"] == "http://host:31313"
    assert env["ANTHROPIC_DEFAULT_HAIKU_MODEL"] == "small"
    assert env["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == "131072"
    assert env["CLAUDE_CODE_ATTRIBUTION_HEADER"] == "0"
    key = subprocess.run(
        ["sh", "-c", config["apiKeyHelper"]], env={}, capture_output=True, text=True, check=True
    )
    assert key.stdout == "none"


@pytest.mark.parametrize("client", ["opencode", "claude-code", "codex"])
def test_a_window_that_an_agents_own_prompt_fills_is_warned_of(client: str) -> None:
    small = Offer("http://host:1", (SMALL,), SMALL, SMALL)
    assert any("small reads 6144 tokens" in note for note in CLIENTS[client](small).notes)
    assert not any("reads" in note for note in CLIENTS[client](OFFER).notes)


def test_opencode_shall_not_compact_where_its_own_prompt_leaves_no_room() -> None:
    (file,) = CLIENTS["opencode"](Offer("http://host:1", (SMALL,), SMALL, SMALL)).files
    assert json.loads(file.text)["compaction"] == {"auto": False}
    assert "compaction" not in made("opencode")[0]


def test_codex_gets_a_provider_of_the_responses_api_and_the_list_of_models() -> None:
    config, models = made("codex")
    assert config["model"] == "org/big-model"
    assert config["model_context_window"] == 131072
    assert CLIENTS["codex"](OFFER).files[1].path.endswith(f"/{config['model_catalog_json']}")
    assert models == {"models": [BIG.codex]}
    assert config["model_providers"]["helexa"] == {
        "name": "helexa",
        "base_url": "http://host:31313/v1",
        "env_key": "HELEXA_API_KEY",
        "wire_api": "responses",
        "supports_websockets": False,
    }


def test_zed_gets_every_model_with_its_window() -> None:
    (config,) = made("zed")
    models = config["language_models"]["openai_compatible"]["helexa"]["available_models"]
    assert [(model["name"], model["max_tokens"]) for model in models] == [
        ("org/big-model", 131072),
        ("small", 8192),
    ]


def test_continue_gets_the_chosen_model_first_with_its_window() -> None:
    (config,) = made("continue")
    assert {"name", "version", "schema", "models"} == set(config)
    assert config["models"][0]["defaultCompletionOptions"]["contextLength"] == 131072
    assert config["models"][0]["apiKey"] == "${{ secrets.HELEXA_API_KEY }}"


def test_aider_gets_a_weak_model_and_the_limits_of_both() -> None:
    config, metadata = made("aider")
    assert (config["model"], config["weak-model"]) == ("openai/org/big-model", "openai/small")
    assert metadata["openai/org/big-model"]["max_input_tokens"] == 122880


def test_agent_zero_gets_a_chat_and_a_utility_model() -> None:
    (variables,) = made("agent-zero")
    assert variables["A0_SET_chat_model_name"] == "org/big-model"
    assert variables["A0_SET_util_model_ctx_length"] == "6144"


def test_open_webui_sends_its_little_tasks_to_the_small_model() -> None:
    (variables,) = made("open-webui")
    assert variables["OPENAI_API_BASE_URL"] == "http://host:31313/v1"
    assert variables["TASK_MODEL_EXTERNAL"] == "small"


def test_litellm_gets_a_route_for_every_model_with_its_prices_per_token() -> None:
    (config,) = made("litellm")
    assert [entry["model_name"] for entry in config["model_list"]] == ["org/big-model", "small"]
    assert config["model_list"][0]["model_info"]["input_cost_per_token"] == 2e-6


def test_llm_reads_its_file_and_lists_the_models(tmp_path: Path) -> None:
    (file,) = CLIENTS["llm"](OFFER).files
    (tmp_path / Path(file.path).name).write_text(file.text)
    listed = subprocess.run(
        [sys.executable, "-m", "llm", "models", "list"],
        env={"LLM_USER_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "helexa/org/big-model" in listed.stdout


@pytest.mark.parametrize("client", CLIENTS)
def test_without_a_small_model_the_chosen_one_takes_all_calls_so_that_nothing_is_swapped(
    client: str,
) -> None:
    offer = choose("http://host:1/v1/", [BIG, SMALL], "org/big-model", None)
    assert offer.small is BIG
    assert offer.url == "http://host:1"
    assert all(file.text for file in CLIENTS[client](offer).files)


def test_an_unknown_model_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(HelexaError, match="org/big-model, small"):
        choose("http://host:1", [BIG, SMALL], "bigger", None)


def test_a_model_without_known_limits_is_left_out() -> None:
    listing = {"data": [{"id": "x"}, {"id": "y", "limit": {"context": 3, "input": 2, "output": 1}}]}
    assert [model.id for model in read_models(listing)] == ["y"]
    with pytest.raises(HelexaError, match="catalogue"):
        choose("http://host:1", read_models({"data": [{"id": "x"}]}), None, None)


OTHERS: list[Any] = [
    None,
    [],
    {},
    {"data": 3},
    {"data": ["x"]},
    {"data": [{"id": "x", "limit": 3}]},
    {"data": [{"limit": {"context": 3, "input": 2, "output": 1}}]},
    {"data": [], "models": ["x"]},
]


@pytest.mark.parametrize("listing", OTHERS, ids=str)
def test_a_list_that_cannot_be_read_is_told_as_one(listing: Any) -> None:
    with pytest.raises(HelexaError, match="is it a helexa"):
        read_models(listing)


def test_models_of_another_server_have_no_limits_and_are_left_out() -> None:
    assert read_models({"data": [{"id": "x"}], "models": [{"name": "x"}]}) == ()
    assert read_models({"data": [{"id": "x"}], "models": None}) == ()


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:31313", "http://127.0.0.1:31313"),
        ("0.0.0.0:31313", "http://127.0.0.1:31313"),
        ("[::]:31313", "http://[::1]:31313"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("gpu.lan:31313", "http://gpu.lan:31313"),
    ],
)
def test_the_gateway_of_this_host_is_reached_where_it_listens(listen: str, url: str) -> None:
    assert gateway_url(Config(gateway=Gateway(listen=listen))) == url


@pytest.mark.parametrize(
    "url", ["https://chat.lan", "https://chat.lan/", "https://chat.lan/v1", "https://chat.lan/v1/"]
)
def test_a_url_may_end_where_people_end_it(url: str) -> None:
    offer = choose(url, [BIG], None, None)
    assert (offer.url, offer.api) == ("https://chat.lan", "https://chat.lan/v1")


words = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]))
values = st.recursive(
    words | st.integers(-(2**53), 2**53) | st.booleans(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.from_regex(r"[a-z_]+", fullmatch=True), inner)
    ),
    max_leaves=20,
)


@settings(max_examples=40)
@given(values)
def test_yaml_is_read_back_as_what_was_written(value: Any) -> None:
    assert yaml.safe_load(to_yaml(value)) == value


tables = st.recursive(
    words | st.integers(-(2**53), 2**53) | st.booleans(),
    lambda inner: st.dictionaries(st.from_regex(r"[a-z_]+", fullmatch=True), inner),
    max_leaves=20,
).filter(lambda value: isinstance(value, dict))


@settings(max_examples=40)
@given(tables)
def test_toml_is_read_back_as_what_was_written(value: Any) -> None:
    assert tomllib.loads(toml(value)) == value
