import pytest
from openai.types import Model

from helexa.errors import ModelNotFound
from helexa.fleet.catalogue import Cost
from helexa.fleet.entry import Location, ModelEntry
from helexa.fleet.limits import Limit
from helexa.wire.models import write_list, write_named, write_node_entry

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
    assert "max_model_len" not in write_named(entry.id, [entry])
    assert "max_model_len" not in write_node_entry(entry)


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
