"""`helexa-ctl nodes test`: what is found of a node, step by step."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from email.utils import formatdate

import pytest
from fake_node import (
    Answer,
    answer,
    cut,
    fake_node,
    helexa_node,
    payload,
    reference_neuron,
)

from helexa.config.schema import RemoteNode
from helexa.nodes.client import Client
from helexa.nodes.probe import Finding, probe

NOW = 1_800_000_000.0
TOLD = {"date": formatdate(NOW, usegmt=True)}


async def findings(client: Client) -> dict[str, Finding]:
    return {found.what: found async for found in probe(client, lambda: NOW)}


@asynccontextmanager
async def client_of(
    kind: str = "helexa", token: str = "", **paths: Answer
) -> AsyncGenerator[Client, None]:
    answers = {"openai": {}, "helexa": helexa_node(), "neuron": reference_neuron()}[kind] | paths
    async with fake_node(**answers) as fake:
        with Client(RemoteNode("gpu", fake.url, kind, token)) as client:  # type: ignore[arg-type]
            yield client


async def test_a_node_that_is_well() -> None:
    health = answer(payload("helexa_0_1_health"), **TOLD)
    async with client_of(token="t", health=health) as client:
        found = await findings(client)
    assert [(what, each.ok) for what, each in found.items()] == [
        ("address", True),
        ("clock", True),
        ("token", True),
        ("version", True),
        ("models", None),
        ("latency", None),
    ]
    assert found["version"].text == "helexa 0.1.0 (0123456789ab)"
    assert found["models"].text == "qwen3-8b (loading)"
    assert found["latency"].text.endswith(" ms")


async def test_a_neuron_that_is_taken_for_a_helexa() -> None:
    async with client_of("neuron") as client:
        wrong = Client(RemoteNode("gpu", client.endpoint))
        with wrong:
            found = await findings(wrong)
    assert found["version"].ok is False
    assert 'set kind = "neuron"' in found["version"].text
    assert found["token"] == Finding("token", None, "it asks for none")
    assert found["clock"].text == "it does not tell the time"


async def test_a_neuron_too_old_to_tell_its_version() -> None:
    async with client_of("neuron", version=answer({}, 404)) as client:
        found = await findings(client)
    assert found["version"] == Finding("version", None, "it does not tell")
    assert len(found) == 6


@pytest.mark.parametrize(
    ("token", "status", "text"),
    [
        ("wrong", 401, "the token is not accepted"),
        ("", 401, "it wants a token: set one"),
        ("", 500, "node gpu: it answers 500"),
    ],
)
async def test_a_token_that_is_wrong_or_missing(token: str, status: int, text: str) -> None:
    async with client_of(token=token, models=answer({"error": {}}, status)) as client:
        found = await findings(client)
    assert found["token"] == Finding("token", False, text)
    assert "version" not in found


@pytest.mark.parametrize(
    ("ahead", "ok", "text"),
    [
        (4, True, "it agrees with this machine's"),
        (90, False, "it is 90 s ahead of this machine's"),
        (-3600, False, "it is 3600 s behind this machine's"),
    ],
)
async def test_a_clock_that_is_wrong(ahead: int, ok: bool, text: str) -> None:
    date = formatdate(NOW + ahead, usegmt=True)
    health = answer(payload("helexa_0_1_health"), date=date)
    async with client_of(health=health) as client:
        assert (await findings(client))["clock"] == Finding("clock", ok, text)


@pytest.mark.parametrize("date", ["soon", "", "Wed, 99 Foo 2026 07:28:00 GMT"])
async def test_a_date_that_is_none_is_no_wrong_clock(date: str) -> None:
    health = answer(payload("helexa_0_1_health"), date=date)
    async with client_of(health=health) as client:
        assert (await findings(client))["clock"].ok is None


async def test_nobody_there_is_the_only_finding() -> None:
    with Client(RemoteNode("gpu", "http://127.0.0.1:9")) as client:
        (only,) = (await findings(client)).values()
    assert only == Finding("answer", False, "node gpu cannot be reached: Connection refused")


async def test_a_node_that_goes_away_in_between_is_the_last_finding() -> None:
    async with client_of(models=cut) as client:
        found = await findings(client)
    assert list(found) == ["address", "clock", "answer"]


async def test_an_upstream_is_tried_by_its_list_of_models() -> None:
    models = answer({"data": [{"id": f"m{i}"} for i in range(7)]})
    async with client_of("openai", **{"v1/models": models}) as client:
        found = await findings(client)
    assert list(found) == ["address", "clock", "token", "models", "latency"]
    assert found["models"].text.startswith("m0 (loaded), ")
    assert found["models"].text.endswith(", 2 more")


async def test_what_makes_no_sense_is_told() -> None:
    async with client_of(models=answer(b"<html>")) as client:
        assert (await findings(client))["answer"].text == "its answer is not JSON"
