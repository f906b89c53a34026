"""What `helexa-ctl nodes` asks of a gateway: every node as it was seen last, and one tried now."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Protocol

import trio
from attrs import asdict, frozen

from helexa.control.protocol import Args, Json
from helexa.control.server import Verb
from helexa.errors import NotFound
from helexa.fleet.breaker import Breaker
from helexa.fleet.view import NodeView
from helexa.nodes.client import Client
from helexa.nodes.probe import probe


class Watched(Protocol):
    """What is known of all nodes (`actors.fleet.Fleet`)."""

    @property
    def views(self) -> tuple[NodeView, ...]: ...
    def breaker_of(self, node: str) -> Breaker: ...
    def is_draining(self, node: str) -> bool: ...


@frozen(eq=False)
class NodeVerbs:
    """`clients` has one for each node that is reached over HTTP, by its name."""

    watched: Watched
    clients: Mapping[str, Client]

    def verbs(self) -> list[Verb]:
        return [
            Verb("nodes", changes=False, handle=self.list),
            Verb("nodes-test", changes=False, handle=self.test),
        ]

    async def list(self, args: Args) -> AsyncGenerator[Json, None]:
        now = trio.current_time()
        for view in self.watched.views:
            told = watched_json(view, self.watched.breaker_of(view.name), now)
            told["draining"] = self.watched.is_draining(view.name)
            client = self.clients.get(view.name)
            yield told | {"url": view.url or (client.endpoint if client else "")}

    async def test(self, args: Args) -> AsyncGenerator[Json, None]:
        """What is found of one node, line by line."""
        client = client_of(self.clients, args.text("node"))
        async with aclosing(probe(client)) as findings:
            async for finding in findings:
                yield asdict(finding)


def client_of(clients: Mapping[str, Client], name: str) -> Client:
    """The client of the node that is named; NotFound where there is none."""
    if name in clients:
        return clients[name]
    known = ", ".join(clients) or "none"
    raise NotFound(f"[[nodes]] has no {name[:80]!r}; it has {known}", param="node")


def watched_json(view: NodeView, breaker: Breaker, now: float) -> dict[str, Any]:
    """`seen_secs_ago` is None of a node that was never reached."""
    is_open = breaker.state == "open"
    return {
        "name": view.name,
        "kind": view.kind,
        "up": view.up,
        "why_down": view.why_down,
        "version": view.version,
        "breaker": breaker.state,
        "retry_in_secs": round(max(0.0, breaker.retry_at - now), 1) if is_open else 0.0,
        "devices": len(view.devices),
        "loaded": [model.entry.id for model in view.models if view.up and model.entry.loaded],
        "seen_secs_ago": round(now - view.seen_at, 1) if view.seen_at else None,
    }
