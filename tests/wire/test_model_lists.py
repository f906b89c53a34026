from datetime import UTC, datetime
from typing import Literal
from urllib.parse import unquote

import httpx2
import orjson
import pytest
from anthropic import Anthropic
from attrs import evolve
from openai.types import Model
from pydantic import BaseModel

from helexa.errors import ModelNotFound
from helexa.fleet.catalogue import Cost
from helexa.fleet.entry import Location, ModelEntry
from helexa.fleet.limits import Limit
from helexa.wire.envelope import Shape
from helexa.wire.models import write_list, write_named, write_node_entry

ANTHROPIC: Shape = "anthropic"

LOADED = ModelEntry(
    "Qwen/Qwen3-8B",
    status="loaded",
    devices=(0,),
    vram_used_mb=9000,
    limit=Limit(32768, 24576, 8192),
    limit_estimated=True,
    cost=Cost(0.1, 0.2, cache_read=0.01),
    tool_call=True,
    reasoning=True,
    created=1_700_000_000,
    aliases=("qwen", "default"),
    feasible_on=("local",),
    locations=(Location("local", "loaded"),),
)
UNKNOWN = ModelEntry("tiny")


def test_every_alias_is_an_entry_of_its_own_with_every_field() -> None:
    listed = write_list([LOADED, UNKNOWN])["data"]
    assert [entry["id"] for entry in listed] == ["Qwen/Qwen3-8B", "qwen", "default", "tiny"]
    assert listed[1] == listed[0] | {"id": "qwen"}


def test_an_entry_tells_all_that_clients_read() -> None:
    assert write_list([LOADED])["data"][0] == {
        "id": "Qwen/Qwen3-8B",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "helexa",
        "loaded": True,
        "status": "loaded",
        "feasible_on": ["local"],
        "locations": [{"node": "local", "status": "loaded"}],
        "capabilities": ["text"],
        "tool_call": True,
        "reasoning": True,
        "limit": {"context": 32768, "input": 24576, "output": 8192},
        "limit_estimated": True,
        "context_length": 32768,
        "cost": {"input": 0.1, "output": 0.2, "cache_read": 0.01},
    }


def test_the_sdk_reads_every_entry() -> None:
    for entry in write_list([LOADED, UNKNOWN])["data"]:
        assert Model.model_validate(entry, strict=True).owned_by == "helexa"


@pytest.mark.parametrize("entry", [LOADED, UNKNOWN])
def test_no_entry_claims_what_misleads_clients(entry: ModelEntry) -> None:
    shapes: list[Shape] = ["openai", "responses", "anthropic"]
    lists = [write_list([entry], shape) for shape in shapes]
    named = [write_named(entry.id, [entry], shape) for shape in shapes]
    assert b"max_model_len" not in orjson.dumps([lists, named, write_node_entry(entry)])


def test_what_is_not_known_is_left_out() -> None:
    entry = write_named("tiny", [LOADED, UNKNOWN])
    assert entry.keys().isdisjoint({"limit", "context_length", "cost", "limit_estimated"})
    assert entry["loaded"] is False


def test_a_model_is_found_by_id_and_by_alias() -> None:
    assert write_named("default", [UNKNOWN, LOADED])["id"] == "default"
    with pytest.raises(ModelNotFound) as refused:
        write_named("ghost\n", [LOADED])
    assert "\n" not in refused.value.message


def test_a_node_tells_of_its_models_what_gateways_read() -> None:
    assert write_node_entry(LOADED) == {
        "id": "Qwen/Qwen3-8B",
        "harness": "torch",
        "status": "loaded",
        "devices": [0],
        "vram_used_mb": 9000,
        "capabilities": ["text"],
        "limit": {"context": 32768, "input": 24576, "output": 8192},
        "limit_estimated": True,
        "cost": {"input": 0.1, "output": 0.2, "cache_read": 0.01},
        "tool_call": True,
        "reasoning": True,
    }


# -- as Anthropic's clients read it ----------------------------------------------------------------


def anthropic_client(entries: list[ModelEntry]) -> Anthropic:
    """The real SDK before a list of ours."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["anthropic-version"]
        name = unquote(request.url.path.removeprefix("/v1/models").removeprefix("/"))
        written = write_named(name, entries, ANTHROPIC) if name else write_list(entries, ANTHROPIC)
        return httpx2.Response(200, json=written)

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    return Anthropic(api_key="k", base_url="http://helexa", http_client=http)


def test_anthropics_sdk_reads_the_list_and_is_done_after_one_page() -> None:
    with anthropic_client([LOADED, UNKNOWN]) as client:
        found = list(client.models.list())
    assert [model.id for model in found] == ["Qwen/Qwen3-8B", "qwen", "default", "tiny"]
    assert found[0].display_name == "Qwen/Qwen3-8B"
    assert found[0].created_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert (found[0].max_input_tokens, found[0].max_tokens) == (24576, 8192)
    assert (found[-1].max_input_tokens, found[-1].max_tokens) == (None, None)


def test_anthropics_sdk_reads_one_model_by_its_alias() -> None:
    with anthropic_client([LOADED]) as client:
        assert client.models.retrieve("default").max_input_tokens == 24576


def test_a_page_in_anthropics_shape_names_its_ends() -> None:
    page = write_list([LOADED, UNKNOWN], ANTHROPIC)
    assert (page["first_id"], page["last_id"], page["has_more"]) == ("Qwen/Qwen3-8B", "tiny", False)
    assert page["data"][3] == {
        "type": "model",
        "id": "tiny",
        "display_name": "tiny",
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
    }
    empty = write_list([], ANTHROPIC)
    assert empty == {"data": [], "has_more": False, "first_id": None, "last_id": None}


def test_a_model_that_is_not_there_is_not_there_in_any_shape() -> None:
    with pytest.raises(ModelNotFound):
        write_named("ghost", [LOADED], ANTHROPIC)


# -- as Codex reads it -----------------------------------------------------------------------------

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]


class Preset(BaseModel, strict=True, extra="forbid"):
    effort: Effort
    description: str


class Truncation(BaseModel, strict=True, extra="forbid"):
    mode: Literal["bytes", "tokens"]
    limit: int


class CodexModel(BaseModel, strict=True, extra="forbid"):
    """What Codex 0.169, and those before it, demand: the fields without a default must be there."""

    slug: str
    display_name: str
    description: str | None
    default_reasoning_level: Effort | None = None
    supported_reasoning_levels: list[Preset]
    shell_type: Literal["default", "local", "unified_exec", "disabled", "shell_command"]
    visibility: Literal["list", "hide", "none"]
    supported_in_api: bool
    priority: int
    upgrade: None
    base_instructions: str
    supports_reasoning_summaries: bool
    support_verbosity: bool
    default_verbosity: None
    apply_patch_tool_type: Literal["freeform"] | None
    truncation_policy: Truncation
    supports_parallel_tool_calls: bool
    context_window: int | None = None
    auto_compact_token_limit: int | None = None
    experimental_supported_tools: list[str]
    input_modalities: list[Literal["text", "image"]]


def codex_models(*entries: ModelEntry) -> list[CodexModel]:
    return [CodexModel.model_validate(model) for model in write_list(entries)["models"]]


def test_codex_reads_every_name_in_the_order_of_the_list() -> None:
    models = codex_models(LOADED, UNKNOWN)
    assert [model.slug for model in models] == ["Qwen/Qwen3-8B", "qwen", "default", "tiny"]
    assert [model.priority for model in models] == [0, 1, 2, 3]
    assert [model.default_reasoning_level for model in models] == ["medium"] * 3 + [None]
    assert models[-1].supported_reasoning_levels == []


def test_codex_compacts_before_a_prompt_would_be_refused() -> None:
    known, unknown = codex_models(evolve(LOADED, aliases=()), UNKNOWN)
    assert known.context_window == 32768
    assert known.auto_compact_token_limit is not None
    assert known.auto_compact_token_limit < 24576
    assert (unknown.context_window, unknown.auto_compact_token_limit) == (None, None)


def test_the_output_of_one_tool_does_not_fill_a_small_window() -> None:
    small, unknown = codex_models(ModelEntry("small", limit=Limit(4096, 3072, 1024)), UNKNOWN)
    assert small.truncation_policy.limit == 768
    assert unknown.truncation_policy.limit == 10_000


def test_codex_tells_a_model_that_it_is_an_agent_and_how_a_patch_is_written() -> None:
    (model,) = codex_models(UNKNOWN)
    assert "coding agent" in model.base_instructions
    assert "*** Begin Patch\n*** Update File:" in model.base_instructions


def test_codex_may_send_pictures_to_a_model_that_sees() -> None:
    seeing, blind = codex_models(ModelEntry("v", capabilities=("text", "vision")), UNKNOWN)
    assert seeing.input_modalities == ["text", "image"]
    assert blind.input_modalities == ["text"]
