"""What nodes tell is read whoever they are, and never believed further than it can do harm."""

from typing import Any

import orjson
import pytest
from fake_node import payload
from hypothesis import given, settings
from hypothesis import strategies as st

from helexa.errors import UpstreamMalformed
from helexa.escape import UNSAFE
from helexa.fleet.catalogue import Cost
from helexa.fleet.entry import ModelEntry
from helexa.fleet.limits import Limit
from helexa.fleet.view import DeviceView, ModelView, NodeView
from helexa.nodes import shapes
from helexa.nodes.shapes import Discovered, Health
from helexa.wire.models import write_node_entry


def view(health: str, models: str, discovery: str | None = None) -> NodeView:
    found = shapes.read_discovery(payload(discovery)) if discovery else Discovered()
    return shapes.compose(
        "gpu",
        "neuron",
        "http://gpu",
        shapes.read_health(payload(health)),
        shapes.read_models(payload(models)),
        found,
        "1",
        5.0,
    )


def test_a_neuron_s_devices_and_models_are_seen_with_their_load() -> None:
    seen = view("reference_health", "reference_models", "reference_discovery")
    assert seen.devices == (
        DeviceView(0, "NVIDIA GeForce RTX 5090", 32607, 9254, "12.0"),
        DeviceView(1, "NVIDIA GeForce RTX 5090", 32607, 9454, "12.0"),
    )
    big, small = seen.models
    assert (big.in_flight, big.queue_depth, big.service_seconds) == (1, 3, None)
    assert big.entry == ModelEntry(
        "Qwen/Qwen3.6-27B",
        harness="candle",
        status="loaded",
        devices=(0, 1),
        vram_used_mb=45800,
        capabilities=("text", "vision"),
        limit=Limit(101376, 93184, 8192),
        cost=Cost(),
        tool_call=True,
        reasoning=True,
    )
    assert (small.entry.status, small.entry.vram_used_mb) == ("recovering", 0)
    assert (seen.activation, seen.harnesses, seen.stored) == ("ready", ("candle",), None)


def test_older_neurons_leave_fields_out() -> None:
    seen = view("reference_health_old", "reference_models_old", "reference_discovery_old")
    assert seen.devices == (DeviceView(0, "NVIDIA GeForce RTX 5090", 32607, 32607, "12.0"),)
    (model,) = seen.models
    assert model.entry == ModelEntry(
        "test-model", harness="candle", status="loaded", devices=(0,), vram_used_mb=8000
    )
    assert (model.in_flight, seen.activation) == (0, "ready")


def test_a_neuron_without_cuda_has_no_devices_and_says_why() -> None:
    found = shapes.read_discovery(payload("reference_discovery_no_cuda"))
    assert found.cuda_unavailable_reason == "NVML: driver/library version mismatch"
    assert not found.is_complete


def test_the_release_before_this_one_is_read() -> None:
    seen = view("helexa_0_1_health", "helexa_0_1_models", "helexa_0_1_discovery")
    (device,), (model,) = seen.devices, seen.models
    assert (device.total_mb, device.free_mb) == (24564, 15100)
    assert (seen.activation, seen.stored) == ("loading", None)
    assert model.entry.limit_estimated
    assert model.entry.cost == Cost(0.1, 0.2, 0.01)


@pytest.mark.parametrize(
    ("name", "told", "kind"),
    [
        ("reference_version", "0.1.16 (8f6f1d3)", "neuron"),
        ("helexa_0_1_version", "0.1.0 (0123456789ab)", "helexa"),
    ],
)
def test_the_version_tells_whose_build_it_is(name: str, told: str, kind: str) -> None:
    version = shapes.read_version(payload(name))
    assert (str(version), version.kind) == (told, kind)


def test_what_a_node_of_ours_writes_is_read_back() -> None:
    entry = ModelEntry(
        "Qwen/Qwen3-8B",
        status="failed",
        devices=(1,),
        vram_used_mb=9000,
        capabilities=("text", "vision"),
        limit=Limit(32768, 24576, 8192),
        limit_estimated=True,
        cost=Cost(0.1, 0.2, 0.01, 0.3),
        tool_call=True,
    )
    written = orjson.dumps([write_node_entry(entry, "no memory\n")])
    (read,) = shapes.read_models(written)
    assert read.entry == entry
    assert read.error == r"no memory\n"


def test_load_and_service_time_come_from_health() -> None:
    health = shapes.read_health(
        b'{"models": [{"id": "a", "in_flight": 2, "queue_depth": 1, "service_seconds": 3.5,'
        b'"width": 8, "spare_mb": 900, "done_bytes": 5, "total_bytes": 6}]}'
    )
    load = ModelView(ModelEntry("a"), 2, 1, None, 3.5, 8, 900, 5, 6)
    assert health == Health(loads={"a": load})
    (model,) = shapes.read_models(b'[{"id": "a"}]')
    seen = shapes.compose("a", "helexa", "", health, [model], Discovered(), "", 0.0).models[0]
    assert (seen.in_flight, seen.service_seconds, seen.width) == (2, 3.5, 8)
    assert (seen.spare_mb, seen.done_bytes, seen.total_bytes) == (900, 5, 6)


def test_stored_names_are_read_and_their_absence_is_not_an_empty_store() -> None:
    assert shapes.read_discovery(b'{"stored": ["a", "b", 3]}').stored == {"a", "b"}
    assert shapes.read_discovery(b'{"stored": []}').stored == frozenset()
    assert shapes.read_discovery(b"{}").stored is None


# -- odd and hostile -------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"<html>", b"[", b"7", b'"x"', b"null", b"[]"])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    for read in (shapes.read_health, shapes.read_discovery, shapes.read_version):
        with pytest.raises(UpstreamMalformed):
            read(body)


def test_what_is_no_list_of_models_is_refused() -> None:
    with pytest.raises(UpstreamMalformed):
        shapes.read_models(b"{}")
    assert shapes.read_models(b'[3, null, "x", {}, {"id": 7}]') == []


def test_brackets_without_end_are_refused_unread() -> None:
    with pytest.raises(UpstreamMalformed, match="too many"):
        shapes.read_models(b"[" * 600_000)


@pytest.mark.parametrize("model", ["", "a\nb", "x" * 201, "a\u202eb", 3])
def test_an_id_that_could_not_be_sent_back_is_left_out(model: Any) -> None:
    assert shapes.read_models(orjson.dumps([{"id": model, "status": "loaded"}])) == []


def test_of_two_models_with_one_id_the_first_counts() -> None:
    found = shapes.read_models(b'[{"id": "a", "status": "loaded"}, {"id": "a"}, {"id": "b"}]')
    assert [(each.entry.id, each.entry.status) for each in found] == [
        ("a", "loaded"),
        ("b", "unloaded"),
    ]


@pytest.mark.parametrize(
    ("told", "status"),
    [("Loaded", "loaded"), ("FAILED", "failed"), ("sleeping", "unloaded"), (None, "unloaded")],
)
def test_a_status_nobody_knows_is_none_to_send_requests_to(told: Any, status: str) -> None:
    (found,) = shapes.read_models(orjson.dumps([{"id": "a", "status": told}]))
    assert found.entry.status == status


@pytest.mark.parametrize(
    ("limit", "read"),
    [
        ({"context": 4096, "output": 1024}, Limit(4096, 3072, 1024)),
        ({"context": 4096, "input": 2000, "output": 1024}, Limit(4096, 2000, 1024)),
        ({"context": 4096, "output": 8192}, Limit(4096, 2048, 2048)),
        ({"context": 4096, "input": 2**60, "output": -5}, Limit(4096, 4096, 0)),
        ({"context": 0, "output": 5}, None),
        ({"context": "many"}, None),
        ([], None),
    ],
)
def test_an_implausible_limit_still_leaves_room_for_a_prompt(limit: Any, read: Any) -> None:
    (found,) = shapes.read_models(orjson.dumps([{"id": "a", "limit": limit}]))
    assert found.entry.limit == read


def test_more_memory_is_free_than_there_is_on_no_device() -> None:
    health = shapes.read_health(b'{"devices": [{"index": 0, "vram_free_mb": 99999}]}')
    found = Discovered(devices=(DeviceView(0, total_mb=8000),))
    seen = shapes.compose("a", "helexa", "", health, [], found, "", 0.0)
    assert seen.devices == (DeviceView(0, total_mb=8000, free_mb=8000),)


def test_a_device_of_which_nothing_is_told_is_taken_for_free() -> None:
    health = shapes.read_health(b'{"devices": [{"index": 1}]}')
    found = Discovered(devices=(DeviceView(0, total_mb=8000), DeviceView(1, total_mb=9000)))
    seen = shapes.compose("a", "neuron", "", health, [], found, "", 0.0)
    assert [device.free_mb for device in seen.devices] == [8000, 9000]


def test_devices_of_an_old_node_without_discovery_are_known_from_their_health() -> None:
    health = shapes.read_health(payload("reference_health"))
    seen = shapes.compose("a", "neuron", "", health, [], Discovered(), "", 0.0)
    assert [(device.total_mb, device.free_mb) for device in seen.devices] == [
        (32254, 9254),
        (32254, 9454),
    ]


@pytest.mark.parametrize("told", ["ready", {"state": "Ready"}, {"state": "unheard of"}, None, 4])
def test_an_activation_is_a_word_or_an_object_and_ready_if_unheard_of(told: Any) -> None:
    assert shapes.read_health(orjson.dumps({"activation": told})).activation == "ready"
    assert shapes.read_health(b'{"activation": "starting"}').activation == "starting"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("id", "status", "limit", "context", "output", "input", "cost", "devices"),
                    *(
                        "models",
                        "index",
                        "name",
                        "vram_total_mb",
                        "vram_free_mb",
                        "in_flight",
                        "stored",
                    ),
                    *(
                        "activation",
                        "state",
                        "capabilities",
                        "harnesses",
                        "error",
                        "service_seconds",
                    ),
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)


@settings(max_examples=300)
@given(JSON)
def test_whatever_json_a_node_sends_is_read_or_refused(told: Any) -> None:
    body = orjson.dumps(told)
    try:
        health, found = shapes.read_health(body), shapes.read_discovery(body)
    except UpstreamMalformed:
        assert not isinstance(told, dict)
        return
    models = shapes.read_models(orjson.dumps([told, told]))
    seen = shapes.compose("a", "helexa", "", health, models, found, "", 0.0)
    assert not UNSAFE.search(repr(seen))
    assert all(0 <= device.free_mb <= device.total_mb for device in seen.devices)
    assert all(model.in_flight >= 0 and model.queue_depth >= 0 for model in seen.models)
    for model in seen.models:
        limit = model.entry.limit
        assert limit is None or 0 < limit.input <= limit.context
