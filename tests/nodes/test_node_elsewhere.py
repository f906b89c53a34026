"""Log lines and limits that `helexa-ctl` reads of another node."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from fake_node import Answer, FakeNode, answer, fake_node

from helexa.config.schema import RemoteNode
from helexa.control import elsewhere, screen
from helexa.control.elsewhere import Elsewhere
from helexa.errors import (
    InvalidRequest,
    ModelNotFound,
    NotFound,
    ServiceUnavailable,
    UpstreamMalformed,
)
from helexa.log_lines import human
from helexa.nodes.client import Client
from helexa.nodes.port import NodeLost

LINE = {
    "time": "2026-11-22T11:00:00.000+00:00",
    "level": "warning",
    "logger": "helexa.node",
    "event": "model lost",
    "model": "toy\x1b[2J",
}
LIMIT = {
    "model": "toy",
    "status": "loaded",
    "limit": {"context": 4096, "input": 3072, "output": 1024},
    "limit_estimated": False,
    "binds": "memory",
    "terms": [
        {"name": "memory", "tokens": 4096, "from": "9 MB free"},
        {"name": "kv_budget", "tokens": None, "from": "kv_budget_mb is not set"},
    ],
}


@asynccontextmanager
async def node(
    kind: str = "helexa", **paths: Answer
) -> AsyncGenerator[tuple[Elsewhere, FakeNode], None]:
    async with fake_node(**paths) as fake:
        remote = RemoteNode("gpu", fake.url, kind)  # type: ignore[arg-type]
        with Client(remote) as client:
            yield Elsewhere({"gpu": client}), fake


async def lines_of(there: Elsewhere, *, follow: bool = False, most: int = 100) -> list[Any]:
    found: list[Any] = []
    async with aclosing(there.logs("gpu", 7, follow=follow)) as items:
        async for item in items:
            found.append(item)
            if len(found) >= most:
                break
    return found


async def test_the_last_lines_of_a_node_are_told_as_its_own_would_be() -> None:
    told = answer({"next": 12, "lost": 3, "lines": [LINE, {"event": "no time"}, "odd"]})
    async with node(**{"logs?lines=7": told}) as (there, _):
        lost, line = await lines_of(there)
        assert lost == {"lost": 3}
        shown = human(line["event"])
        assert "warning node: model lost" in shown
        assert "\x1b" not in shown


async def test_a_node_is_followed_from_where_it_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elsewhere, "TICK_SECONDS", 0.0)
    first, then = answer({"next": 12, "lines": [LINE]}), answer({"next": 13, "lines": [LINE]})
    async with node(**{"logs?lines=7": first, "logs?since=12": then}) as (there, fake):
        assert len(await lines_of(there, follow=True, most=2)) == 2
        assert fake.paths() == ["GET /logs?lines=7", "GET /logs?since=12"]


async def test_what_bounds_a_model_on_a_node_is_shown_like_one_here() -> None:
    async with node(**{"models/org%2Ftoy/limit": answer(LIMIT)}) as (there, _):
        told = await there.limit("gpu", "org/toy")
        assert told == {**LIMIT, "node": "gpu"}
        assert screen.why_limit(told)[0].startswith("toy (loaded): context 4096")


@pytest.mark.parametrize("kind", ["neuron", "openai"])
async def test_a_node_of_another_kind_is_not_asked(kind: str) -> None:
    async with node(kind) as (there, fake):
        with pytest.raises(InvalidRequest, match=f"of kind {kind}: it tells neither logs nor"):
            await there.limit("gpu", "toy")
        assert fake.asked == []


async def test_what_cannot_be_read_is_told_in_words() -> None:
    unknown = answer({"error": {"code": "model_not_found", "message": "There is none."}}, 404)
    paths = {"models/nobody/limit": unknown, "models/odd/limit": answer(b"<html>")}
    async with node(**paths) as (there, fake):
        for model, error, words in [
            ("toy", ServiceUnavailable, "its helexa is too old"),
            ("nobody", ModelNotFound, "There is none"),
            ("odd", UpstreamMalformed, "not JSON"),
        ]:
            with pytest.raises(error, match=words):
                await there.limit("gpu", model)
        with pytest.raises(NotFound, match="it has gpu"):
            await there.limit("other", "toy")
        fake.answers.clear()
    with pytest.raises(NodeLost, match="cannot be reached"):
        await there.limit("gpu", "toy")
