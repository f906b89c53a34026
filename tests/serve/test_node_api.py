"""The node's own listener: wire-compatible with the reference's neurons, guarded by its token."""

from functools import partial
from pathlib import Path

import pytest
import trio
from process import MODEL, Helexa, call, chat, helexa

from helexa.config.schema import RemoteNode
from helexa.errors import ModelBusy, ModelNotFound, ServiceUnavailable
from helexa.fleet.catalogue import DEMO_MODEL, CatalogueModel
from helexa.nodes.client import Client
from helexa.nodes.port import NodeLost
from helexa.nodes.probe import probe
from helexa.nodes.remote import RemotePort
from helexa.store.source import name_of

pytestmark = pytest.mark.real
TOKEN = {"authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def node(store_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Helexa:
    options = {
        "HELEXA_GATEWAY__ENABLED": "false",
        "HELEXA_NODE__TOKEN": "secret",
        "HELEXA_NODE__NAME": "beast",
    }
    with helexa(tmp_path_factory.mktemp("node") / "state", store_dir, options) as process:
        yield process  # type: ignore[misc]


def test_only_health_is_open_without_the_token(node: Helexa) -> None:
    base = node.url("node")
    assert call("GET", base + "/health")[0] == 200
    for path in ("/discovery", "/models", "/version", "/v1/models", "/openapi.json"):
        assert call("GET", base + path)[0] == 401
        assert call("GET", base + path, headers=TOKEN)[0] == 200
    for path in ("/models/load", "/models/unload", "/v1/chat/completions"):
        assert call("POST", base + path, {})[0] == 401


def test_discovery_and_health_have_the_reference_shape(node: Helexa) -> None:
    _, _, found = call("GET", node.url("node") + "/discovery", headers=TOKEN)
    assert set(found["devices"][0]) == {
        "index",
        "name",
        "uuid",
        "vram_total_mb",
        "compute_capability",
    }
    assert {"hostname", "os", "harnesses", "max_prompt_tokens"} <= set(found)
    _, _, health = call("GET", node.url("node") + "/health")
    assert {"uptime_secs", "devices", "activation", "models"} <= set(health)
    assert health["activation"]["state"] == "ready"


def test_a_model_is_loaded_served_and_unloaded(node: Helexa) -> None:
    base = node.url("node")
    status, _, refused = call("POST", base + "/v1/chat/completions", chat(), TOKEN)
    assert (status, refused["error"]["code"]) == (404, "model_not_found")
    status, _, entry = call("POST", base + "/models/load", {"model_id": "demo"}, TOKEN)
    assert (status, entry["id"], entry["status"]) == (200, MODEL, "loaded")
    assert call("GET", f"{base}/models/{MODEL}/endpoint", headers=TOKEN)[2] == {"url": base}
    status, _, refused = call(
        "POST", base + "/models/unload", {"model_id": MODEL, "if_idle": True}, TOKEN
    )
    assert (status, refused["error"]["code"]) == (409, "model_busy")
    status, headers, answer = call("POST", base + "/v1/chat/completions", chat(), TOKEN)
    assert "Paris" in answer["choices"][0]["message"]["content"]
    assert headers["x-helexa-node"] == "beast"
    status, _, _ = call(
        "POST", base + "/models/unload", {"model_id": MODEL, "if_idle": True}, TOKEN
    )
    assert status == 200
    assert call("GET", base + "/models", headers=TOKEN)[2] == []


async def test_a_gateway_s_port_sees_loads_and_unloads_what_is_here(node: Helexa) -> None:
    remote = RemoteNode("beast", node.url("node"), token="secret")
    with Client(remote) as client:
        port = RemotePort(remote, client)
        seen = await port.look()
        assert name_of(DEMO_MODEL.source) in (seen.stored or ())
        assert (seen.models, seen.activation, seen.harnesses) == ((), "ready", ("torch", "script"))
        assert all(0 < device.free_mb <= device.total_mb for device in seen.devices)
        assert [finding async for finding in probe(client) if finding.ok is False] == []
        await port.load(DEMO_MODEL)
        (model,) = (await port.look()).models
        assert model.entry.loaded
        assert model.entry.limit is not None
        assert model.width == 8
        assert (model.service_seconds, model.error) == (None, None)
        with pytest.raises(ModelBusy):
            await port.unload(MODEL, if_idle=True)
        await trio.to_thread.run_sync(
            partial(call, "POST", remote.endpoint + "/v1/chat/completions", chat(), TOKEN)
        )
        (model,) = (await port.look()).models
        assert model.service_seconds
        await port.unload(MODEL, if_idle=True)
        assert (await port.look()).models == ()
        with pytest.raises(ModelNotFound):
            await port.unload(MODEL, if_idle=False)


async def test_a_gateway_s_load_fetches_nothing(node: Helexa) -> None:
    remote = RemoteNode("beast", node.url("node"), token="secret")
    with Client(remote) as client, pytest.raises(ServiceUnavailable, match="are not on this host"):
        await RemotePort(remote, client).load(CatalogueModel("x", source="hf:org/x"))


async def test_a_gateway_without_the_token_is_told_so(node: Helexa) -> None:
    remote = RemoteNode("beast", node.url("node"))
    with Client(remote) as client, pytest.raises(NodeLost, match="does not accept the token"):
        await RemotePort(remote, client).look()


def test_a_gateway_s_principal_is_believed_with_the_token(node: Helexa) -> None:
    base = node.url("node")
    call("POST", base + "/models/load", {"model_id": MODEL}, TOKEN)
    named = {**TOKEN, "x-helexa-account-id": "ann", "x-helexa-key-id": "ann-laptop"}
    _, headers, _ = call("POST", base + "/v1/chat/completions", chat(), named)
    record = node.control("why", request_id=headers["x-request-id"])[0]
    assert (record["account"], record["key"]) == ("ann", "ann-laptop")
    call("POST", base + "/models/unload", {"model_id": MODEL}, TOKEN)


@pytest.mark.parametrize(
    ("spec", "status", "param"),
    [
        ({}, 400, "model_id"),
        ({"model_id": 7}, 400, "model_id"),
        ({"model_id": "ghost"}, 404, "model_id"),
        ({"model_id": "x", "source": "path:/etc"}, 403, "source"),
        ({"model_id": MODEL, "tensor_parallel": 2}, 400, "tensor_parallel"),
        ({"model_id": MODEL, "harness": "vllm"}, 400, "harness"),
        ({"model_id": MODEL, "devices": ["a"]}, 400, "devices[0]"),
    ],
)
def test_a_load_that_cannot_be_is_refused_in_words(
    node: Helexa, spec: dict[str, object], status: int, param: str
) -> None:
    got, _, refused = call("POST", node.url("node") + "/models/load", spec, TOKEN)
    assert (got, refused["error"]["param"]) == (status, param)
