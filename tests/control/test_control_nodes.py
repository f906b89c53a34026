"""`helexa-ctl nodes`: the list of a gateway's nodes, and one of them tried."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import frozen

from helexa.config.schema import RemoteNode
from helexa.control.node_commands import finding_line, node_lines
from helexa.control.nodes import NodeVerbs
from helexa.control.server import serve
from helexa.ctl import main
from helexa.fleet.breaker import Breaker
from helexa.fleet.entry import ModelEntry
from helexa.fleet.view import DeviceView, ModelView, NodeView
from helexa.nodes.client import Client

NOWHERE = "http://127.0.0.1:9"


@frozen
class Watched:
    """Two nodes: one is well, and one was never reached."""

    @property
    def views(self) -> tuple[NodeView, ...]:
        loaded = ModelView(ModelEntry("big", status="loaded"))
        unloaded = ModelView(ModelEntry("small"))
        well = NodeView(
            "local",
            "local",
            version="0.1.0",
            devices=(DeviceView(0),),
            models=(loaded, unloaded),
            seen_at=trio.current_time() - 3,
        )
        why = "node gpu cannot be reached: Connection refused"
        return well, NodeView("gpu", "helexa", NOWHERE, up=False, why_down=why)

    def breaker_of(self, node: str) -> Breaker:
        at = trio.current_time() + 7
        return Breaker("open", retry_at=at) if node == "gpu" else Breaker()

    def is_draining(self, node: str) -> bool:
        return node == "local"


@pytest.fixture
async def socket(nursery: trio.Nursery, tmp_path: Path) -> Path:
    client = Client(RemoteNode("gpu", NOWHERE))
    path = tmp_path / "helexa.sock"
    verbs = NodeVerbs(Watched(), {"gpu": client}).verbs()
    await nursery.start(serve, path, "", {verb.name: verb for verb in verbs})
    return path


async def run(socket: Path, *args: str) -> int:
    return await trio.to_thread.run_sync(partial(main, ["--socket", str(socket), *args]))


async def test_every_node_is_listed_with_what_is_wrong(
    socket: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(socket, "nodes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["NODE", "KIND", "STATE", "BREAKER", "VERSION", "DEVICES", "LOADED", "SEEN"],
        ["local", "local", "draining", "closed", "0.1.0", "1", "big", "3", "s", "ago"],
        [
            *("gpu", "helexa", "down", "open", "-", "0", "-", "never"),
            *["node", "gpu", "cannot", "be", "reached:", "Connection", "refused"],
        ],
    ]


async def test_the_list_is_json_for_programs(
    socket: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(socket, "nodes", "--json") == 0
    well, gone = map(json.loads, capsys.readouterr().out.splitlines())
    assert (well["loaded"], well["breaker"], well["retry_in_secs"]) == (["big"], "closed", 0)
    assert (gone["up"], gone["seen_secs_ago"], gone["url"]) == (False, None, NOWHERE)
    assert gone["retry_in_secs"] == 7


async def test_a_node_is_tried_and_the_exit_code_tells(
    socket: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(socket, "nodes", "test", "gpu") == 1
    told = capsys.readouterr().out
    assert told == "WRONG  answer   node gpu cannot be reached: Connection refused\n"


async def test_a_node_that_is_not_listed_is_told(
    socket: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(socket, "nodes", "test", "ghost") == 1
    assert "[[nodes]] has no 'ghost'; it has gpu" in capsys.readouterr().err


@pytest.mark.parametrize("told", [{}, {"name": "a\x1b[2J", "up": True, "loaded": None}])
def test_an_older_or_hostile_daemon_is_shown_harmlessly(told: dict[str, Any]) -> None:
    assert "\x1b" not in "\n".join(node_lines([told]))
    assert "\x1b" not in finding_line({"what": "\x1b", "text": "\x1b", "ok": True})
    assert finding_line({}).startswith("-")
