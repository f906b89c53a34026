"""A node over HTTP as a port of the fleet: a helexa, or a neuron of the reference."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import evolve
from fake_node import (
    Answer,
    FakeNode,
    answer,
    cut,
    fake_node,
    hang,
    helexa_node,
    payload,
    raw,
    reference_neuron,
    trickle,
)

from helexa.config.schema import RemoteNode
from helexa.errors import (
    Forbidden,
    InsufficientVram,
    InvalidRequest,
    ModelBusy,
    ModelNotFound,
    ServiceUnavailable,
    UpstreamError,
)
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.limits import Limit
from helexa.nodes.client import Client
from helexa.nodes.port import NodeLost
from helexa.nodes.remote import RemotePort, may_be_used

MODEL = "Qwen/Qwen3.6-27B"
ENTRY = CatalogueModel(MODEL, source="hf:Qwen/Qwen3.6-27B", quant="q4")


@asynccontextmanager
async def port_of(
    kind: str = "helexa", *, token: str = "", endpoints: tuple[str, ...] = (), **paths: Answer
) -> AsyncGenerator[tuple[RemotePort, FakeNode], None]:
    answers = (helexa_node() if kind == "helexa" else reference_neuron()) | paths
    async with fake_node(**answers) as fake:
        node = RemoteNode("gpu", fake.url, kind, token, inference_endpoints=endpoints)  # type: ignore[arg-type]
        with Client(node) as client:
            yield RemotePort(node, client), fake


# -- looking ---------------------------------------------------------------------------------------


async def test_a_neuron_is_seen_as_it_is() -> None:
    async with port_of("neuron") as (port, fake):
        seen = await port.look()
        assert (seen.name, seen.kind, seen.url, seen.up) == ("gpu", "neuron", fake.url, True)
        assert [model.entry.id for model in seen.models] == [MODEL, "test-model"]
        assert len(seen.devices) == 2
        assert seen.version == "0.1.16 (8f6f1d3)"
        assert seen.seen_at == pytest.approx(trio.current_time(), abs=5)


async def test_what_a_node_knows_of_files_is_told_before_they_are_loaded() -> None:
    limit = {"context": 4096, "input": 3072, "output": 1024}
    told = {"id": MODEL, "status": "unloaded", "limit": limit, "tool_call": True}
    path = "models/Qwen%2FQwen3.6-27B/entry?source=hf%3AQwen%2FQwen3.6-27B"
    async with port_of(**{path: answer(told)}) as (port, _):
        entry = await port.tell(ENTRY)
        assert entry is not None
        assert (entry.limit, entry.tool_call) == (Limit(4096, 3072, 1024), True)


@pytest.mark.parametrize("kind", ["helexa", "neuron"])
async def test_a_node_that_is_too_old_to_tell_of_files_is_one_all_the_same(kind: str) -> None:
    async with port_of(kind) as (port, _):
        assert await port.tell(ENTRY) is None


async def test_what_rarely_changes_is_asked_for_once() -> None:
    async with port_of() as (port, fake):
        for _ in range(3):
            assert (await port.look()).devices[0].name == "NVIDIA RTX 4090"
        assert fake.paths() == [
            "GET /health",
            "GET /models",
            "GET /version",
            "GET /discovery",
            *["GET /health", "GET /models"] * 2,
        ]
        assert fake.num_connections == 1


async def test_discovery_is_asked_for_again_while_incomplete_and_after_a_restart() -> None:
    async with port_of("neuron", discovery=answer(payload("reference_discovery_no_cuda"))) as (
        port,
        fake,
    ):
        for _ in range(2):
            await port.look()
        assert fake.paths().count("GET /discovery") == 2
        fake.answers["/discovery"] = answer(payload("reference_discovery"))
        for _ in range(2):
            await port.look()
        assert fake.paths().count("GET /discovery") == 3
        fake.answers["/health"] = answer({"uptime_secs": 0})
        await port.look()
        assert fake.paths().count("GET /discovery") == 4


async def test_a_node_too_old_for_discovery_and_version_is_one_all_the_same() -> None:
    async with port_of("neuron") as (port, fake):
        del fake.answers["/discovery"], fake.answers["/version"]
        seen = await port.look()
        assert (seen.version, seen.harnesses, len(seen.models)) == ("", (), 2)
        assert [device.free_mb for device in seen.devices] == [9254, 9454]


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (cut, "node gpu cannot be reached"),
        (raw(b"\x00\x01"), "node gpu cannot be reached"),
        (raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"), "node gpu went away"),
        (answer(b"<html>"), "node gpu: its answer is not JSON"),
        (answer([]), "node gpu: its answer is not a JSON object"),
        (answer(b"[" * 600_000), "node gpu: its answer has too many lists"),
        (answer(b" " * 8_000_001), "node gpu tells more than 8 MB"),
        (answer(b"", 302, location="http://elsewhere"), "node gpu redirects"),
        (answer({"error": {"message": "busy"}}, 503), "node gpu: busy"),
        (answer(b"Bad Gateway\x1b[2J", 502), r"node gpu: Bad Gateway\\x1b"),
    ],
)
@pytest.mark.parametrize("path", ["health", "models"])
async def test_a_node_that_makes_no_sense_is_lost_and_says_why(
    how: Answer, why: str, path: str
) -> None:
    if path == "models" and why.endswith("object"):
        how, why = answer({}), "node gpu: its answer is not a JSON list"
    async with port_of(**{path: how}) as (port, _):
        with pytest.raises(NodeLost, match=why):
            await port.look()


async def test_a_wrong_token_is_told_as_such() -> None:
    refused = answer({"error": {"code": "invalid_api_key", "message": "no"}}, 401)
    async with port_of(models=refused, token="wrong") as (port, fake):
        with pytest.raises(NodeLost, match="does not accept the token of this gateway"):
            await port.look()
        assert fake.asked[0].headers["authorization"] == "Bearer wrong"


@pytest.mark.parametrize("how", [hang, trickle])
async def test_a_look_can_be_called_off(how: Answer) -> None:
    async with port_of(models=how) as (port, fake):
        with trio.move_on_after(0.05) as scope:
            await port.look()
        assert scope.cancelled_caught
        fake.answers["/models"] = answer([])
        assert (await port.look()).models == ()


# -- loading ---------------------------------------------------------------------------------------


async def test_a_helexa_is_told_that_a_request_asks() -> None:
    async with port_of(**{"models/load": answer({"id": MODEL, "status": "loaded"})}) as (
        port,
        fake,
    ):
        await port.load(ENTRY)
        assert fake.asked[-1].headers["content-type"] == "application/json"
        assert fake.asked[-1].json == {
            "model_id": MODEL,
            "quant": "q4",
            "source": "hf:Qwen/Qwen3.6-27B",
            "harness": "torch",
            "download": "never",
            "on_demand": True,
            "by": "request",
        }


async def test_a_helexa_is_told_that_an_operator_asks() -> None:
    async with port_of(**{"models/load": answer({"id": MODEL})}) as (port, fake):
        await port.load(ENTRY, "operator")
        assert fake.asked[-1].json["by"] == "operator"


async def test_a_node_that_files_are_fetched_from_is_told_what_they_are_there() -> None:
    async with port_of(**{"models/load": answer({"id": MODEL})}) as (port, fake):
        for source, told in [
            ("node:gpu/Qwen/Qwen3", "hf:Qwen/Qwen3"),
            ("node:gpu/stored-1", "stored-1"),
            ("node:big/Qwen/Qwen3", "node:big/Qwen/Qwen3"),
        ]:
            await port.load(evolve(ENTRY, source=source))
            assert fake.asked[-1].json["source"] == told


async def test_a_neuron_is_told_what_it_knows() -> None:
    async with port_of("neuron", **{"models/load": answer({"status": "ok"})}) as (port, fake):
        await port.load(ENTRY)
        known = {"model_id": MODEL, "quant": "q4", "harness": "candle"}
        assert fake.asked[-1].json == known
        await port.load(evolve(ENTRY, min_devices=2))
        assert fake.asked[-1].json == known | {"tensor_parallel": 2}


async def test_one_model_under_two_ids_is_told_and_not_waited_for_again() -> None:
    async with port_of(**{"models/load": answer({"id": "qwen-big"})}) as (port, _):
        with pytest.raises(ServiceUnavailable, match="give the model one id in both catalogues"):
            await port.load(ENTRY)


REFUSALS: list[tuple[Any, int, type[Exception]]] = [
    ({"code": "insufficient_vram", "message": "full", "free_mb": 9}, 503, InsufficientVram),
    ({"code": "model_not_found", "message": "fits no device"}, 404, ModelNotFound),
    ({"code": "service_unavailable", "message": "failed before"}, 503, ServiceUnavailable),
    ({"code": "model_busy", "message": "runs"}, 409, ModelBusy),
    ({"code": "forbidden", "message": "no source"}, 403, Forbidden),
    ({"code": "x", "message": "bad"}, 400, InvalidRequest),
    ({"message": "out of luck"}, 500, UpstreamError),
    ("in old words", 500, UpstreamError),
    (None, 502, UpstreamError),
    (["odd"], 503, ServiceUnavailable),
]


@pytest.mark.parametrize(("error", "status", "kind"), REFUSALS)
async def test_a_refusal_is_the_node_s_in_its_own_words(
    error: Any, status: int, kind: type[Exception]
) -> None:
    how = answer({"error": error}, status, retry_after="7")
    async with port_of(**{"models/load": how, "models/unload": how}) as (port, _):
        for attempt in (port.load(ENTRY), port.unload(MODEL, if_idle=True)):
            with pytest.raises(kind) as refused:
                await attempt
            message = str(refused.value)
            said = error["message"] if isinstance(error, dict) else error
            assert message.startswith("node gpu: ")
            assert not isinstance(said, str) or said in message


async def test_a_full_device_keeps_its_figures_and_its_wait() -> None:
    how = answer(
        {"error": {"code": "insufficient_vram", "free_mb": 9, "required_mb": 99, "x": 1}},
        503,
        retry_after="7",
    )
    async with port_of(**{"models/load": how}) as (port, _):
        with pytest.raises(InsufficientVram) as refused:
            await port.load(ENTRY)
        assert refused.value.details == {"free_mb": 9, "required_mb": 99}
        assert refused.value.retry_after == 7


@pytest.mark.parametrize("told", ["Wed, 21 Oct 2026 07:28:00 GMT", "soon", "nan", "inf", "-1", ""])
async def test_an_odd_wait_is_no_wait(told: str) -> None:
    how = answer({"error": {"message": "x"}}, 503, **({"retry_after": told} if told else {}))
    async with port_of(**{"models/load": how}) as (port, _):
        with pytest.raises(ServiceUnavailable) as refused:
            await port.load(ENTRY)
        assert not refused.value.retry_after


async def test_a_node_that_dies_while_it_loads_is_lost() -> None:
    async with port_of(**{"models/load": cut}) as (port, _):
        with pytest.raises(NodeLost):
            await port.load(ENTRY)


# -- unloading -------------------------------------------------------------------------------------


async def test_a_helexa_has_the_last_word_on_what_is_idle() -> None:
    async with port_of(**{"models/unload": answer({})}) as (port, fake):
        await port.unload(MODEL, if_idle=True)
        await port.unload(MODEL, if_idle=False)
        assert [asked.json for asked in fake.asked] == [
            {"model_id": MODEL, "if_idle": True},
            {"model_id": MODEL, "if_idle": False},
        ]


async def test_a_neuron_is_not_told_to_unload_what_runs_or_waits() -> None:
    async with port_of("neuron", **{"models/unload": answer({})}) as (port, fake):
        with pytest.raises(ModelBusy):
            await port.unload(MODEL, if_idle=True)
        fake.answers["/health"] = answer({"models": [{"id": MODEL, "queue_depth": 1}]})
        with pytest.raises(ModelBusy):
            await port.unload(MODEL, if_idle=True)
        assert "POST /models/unload" not in fake.paths()
        fake.answers["/health"] = answer({"models": [{"id": MODEL, "in_flight": 0}]})
        await port.unload(MODEL, if_idle=True)
        assert fake.asked[-1].json == {"model_id": MODEL}
        await port.unload("test-model", if_idle=False)


# -- where requests go -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "used"),
    [
        ("http://gpu.lan:13131", True),
        ("http://gpu.lan:9000", True),
        ("http://GPU.lan:9000", True),
        ("http://fast.lan:80", True),
        ("http://fast.lan:81", False),
        ("https://gpu.lan", False),
        ("http://gpu.lan.evil.org", False),
        ("http://gpu.lan@evil.org", False),
        ("http://127.0.0.1:31314", False),
        ("http://evil.org/?gpu.lan", False),
        ("file:///etc/passwd", False),
        ("//gpu.lan", False),
        ("", False),
    ],
)
def test_a_token_goes_to_the_node_s_own_host_and_to_what_is_listed(url: str, used: bool) -> None:
    node = RemoteNode(
        "gpu", "http://gpu.lan:13131", "neuron", inference_endpoints=("http://fast.lan:80/",)
    )
    assert may_be_used(url, node) is used


@pytest.mark.parametrize("told", ["http://evil.org", "nonsense", 7])
async def test_an_endpoint_that_is_not_allowed_is_the_node_itself(
    told: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = "models/Qwen%2FQwen3.6-27B/endpoint"
    async with port_of("neuron", **{path: answer({"url": told})}) as (port, fake):
        for _ in range(2):
            assert await port.inference_endpoint(MODEL) == fake.url
        assert fake.paths() == [f"GET /{path}"]
        assert caplog.text.count("inference endpoint not used") == isinstance(told, str)


async def test_an_endpoint_is_asked_for_again_once_the_model_was_gone() -> None:
    path = "models/Qwen%2FQwen3.6-27B/endpoint"
    async with port_of(
        "neuron", endpoints=("http://fast.lan",), **{path: answer({"url": "http://fast.lan/"})}
    ) as (port, fake):
        for _ in range(2):
            assert await port.inference_endpoint(MODEL) == "http://fast.lan"
            await port.look()
        assert fake.paths().count(f"GET /{path}") == 1
        fake.answers["/models"] = answer([])
        await port.look()
        await port.inference_endpoint(MODEL)
        assert fake.paths().count(f"GET /{path}") == 2


async def test_a_helexa_answers_where_it_is() -> None:
    async with port_of() as (port, fake):
        assert await port.inference_endpoint(MODEL) == fake.url
        assert fake.asked == []
