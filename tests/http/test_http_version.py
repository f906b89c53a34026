"""GET /version tells of the code that runs, not of what lies in the checkout since."""

from pathlib import Path
from typing import Any

import pytest
from dialects import make_api
from http_peer import Start

from helexa.build import build_info
from helexa.http import node
from helexa.logs import Ring


async def test_the_version_is_that_of_the_start(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    builds = iter([{"git_sha": "at the start"}, {"git_sha": "later"}])
    monkeypatch.setattr(node, "build_info", lambda: next(builds))
    host_and_loads: Any = None
    served = await start(node.node_app(make_api(tmp_path), host_and_loads, host_and_loads, Ring(8)))
    peer = await served.connect()
    for _ in range(2):
        assert (await peer.ask("GET /version")).json == {"git_sha": "at the start"}


def test_a_checkout_tells_its_commit_and_anything_else_none() -> None:
    build = build_info()
    assert (build["git_sha"] is None) == (build["build_timestamp"] is None)
    assert build["git_sha"] is None or len(build["git_sha"]) >= 12
