"""Upstreams as the fleet sees them: their models and limits, each in words of its own."""

from typing import Any

import pytest
from fake_node import Answer, answer, fake_node, hang
from trio.testing import MockClock

from helexa.config.schema import RemoteNode
from helexa.errors import HelexaError, NotLoaded
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.limits import Limit
from helexa.fleet.view import NodeView
from helexa.nodes.client import Client
from helexa.nodes.port import NodeLost
from helexa.nodes.upstream import UpstreamPort


async def look(given: Answer, models: tuple[str, ...] = ()) -> NodeView:
    async with fake_node() as node:
        node.answers["/v1/models"] = given
        remote = RemoteNode("vllm", node.url + "/v1", "openai", models=models)
        with Client(remote) as client:
            try:
                return await UpstreamPort(remote, client).look()
            except NodeLost as error:
                return NodeView("", "openai", up=False, why_down=error.message)


def listed(*models: dict[str, Any]) -> Answer:
    return answer({"object": "list", "data": list(models)})


async def test_an_upstream_s_models_are_ready_and_it_loads_none() -> None:
    view = await look(listed({"id": "a", "created": 5}, {"id": "b"}, {"id": "a"}, {"id": ""}, {}))
    assert (view.name, view.kind, view.can_load) == ("vllm", "openai", False)
    assert [model.entry.id for model in view.models] == ["a", "b"]
    assert all(model.entry.loaded for model in view.models)


async def test_only_the_models_that_are_listed_are_offered() -> None:
    view = await look(listed({"id": "a"}, {"id": "b"}), models=("b",))
    assert [model.entry.id for model in view.models] == ["b"]


@pytest.mark.parametrize(
    ("told", "limit"),
    [
        ({"max_model_len": 40960}, Limit(40960, 32768, 8192)),  # vLLM, SGLang
        ({"context_length": 8192}, Limit(8192, 6144, 2048)),  # llama-swap, OpenRouter
        ({"max_context_length": 9000, "loaded_context_length": 8192}, Limit(8192, 6144, 2048)),
        ({"meta": {"n_ctx_train": 131072, "n_ctx": 4096}}, Limit(4096, 3072, 1024)),
        ({"context_window": 8192, "max_output_tokens": 100}, Limit(8192, 8092, 100)),
        ({"limit": {"context": 8192, "input": 5000, "output": 1000}}, Limit(8192, 5000, 1000)),
        ({"max_model_len": "many"}, None),
        ({"max_model_len": -1}, None),
        ({"meta": None}, None),
    ],
)
async def test_limits_are_read_from_what_such_servers_publish(
    told: dict[str, Any], limit: Limit | None
) -> None:
    view = await look(listed({"id": "a", **told}))
    assert view.models[0].entry.limit == limit


@pytest.mark.parametrize(
    ("told", "capabilities", "tools"),
    [
        ({"capabilities": ["completion", "multimodal"]}, ("text", "vision"), False),
        ({"architecture": {"input_modalities": ["text", "image"]}}, ("text", "vision"), False),
        ({"capabilities": {"vision": True, "tools": True}}, ("text", "vision"), True),
        ({"supported_parameters": ["tools"]}, ("text",), True),
        ({"capabilities": 3}, ("text",), False),
    ],
)
async def test_what_a_model_can_do_is_read_too(
    told: dict[str, Any], capabilities: tuple[str, ...], tools: bool
) -> None:
    entry = (await look(listed({"id": "a", **told}))).models[0].entry
    assert (entry.capabilities, entry.tool_call) == (capabilities, tools)


async def test_a_model_that_could_not_be_started_is_not_asked() -> None:
    view = await look(
        listed(
            {"id": "a", "status": {"value": "failed"}}, {"id": "b", "status": {"value": "unloaded"}}
        )
    )
    assert [model.entry.status for model in view.models] == ["failed", "loaded"]


@pytest.mark.parametrize(
    "given", [answer(b"<html>"), answer([]), answer({}, 500), answer({}, 401), answer({}, 302)]
)
async def test_who_does_not_list_its_models_is_lost(given: Answer) -> None:
    assert not (await look(given)).up


async def test_who_does_not_answer_is_lost(autojump_clock: MockClock) -> None:
    assert "within 10 s" in (await look(hang)).why_down


async def test_nothing_is_loaded_or_unloaded_there() -> None:
    async with fake_node() as node:
        remote = RemoteNode("vllm", node.url, "openai")
        with Client(remote) as client:
            port = UpstreamPort(remote, client)
            with pytest.raises(NotLoaded):
                await port.load(CatalogueModel("a"))
            with pytest.raises(HelexaError):
                await port.unload("a", if_idle=True)
        assert not node.asked
