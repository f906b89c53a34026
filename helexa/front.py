"""The gateway role: every node of the fleet behind its port, watched, and the fleet planned over them."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import trio
from attrs import frozen

from helexa.actors.fleet import Fleet
from helexa.actors.poller import Poller
from helexa.actors.supervisor import RestartPolicy, keep_running
from helexa.config.schema import Config, RemoteNode
from helexa.local import count_crash
from helexa.metrics import Metrics
from helexa.nodes.client import Client
from helexa.nodes.local import LocalPort
from helexa.nodes.port import NodePort
from helexa.nodes.remote import RemotePort
from helexa.nodes.upstream import UpstreamPort
from helexa.shelf import Shelf

FLEET_POLICY = RestartPolicy(max_restarts=3, within=300.0, first_delay=0.5)


@frozen(eq=False)
class Front:
    """`ports` are by name, this host's own node first if it has one."""

    fleet: Fleet
    ports: Mapping[str, NodePort]
    local: LocalPort | None

    @property
    def upstreams(self) -> Mapping[str, UpstreamPort]:
        return {name: p for name, p in self.ports.items() if isinstance(p, UpstreamPort)}

    @property
    def clients(self) -> Mapping[str, Client]:
        """Of the nodes that are reached over HTTP."""
        over_http = UpstreamPort | RemotePort
        return {name: p.client for name, p in self.ports.items() if isinstance(p, over_http)}


@asynccontextmanager
async def front(
    config: Config, shelf: Shelf, metrics: Metrics, local: LocalPort | None
) -> AsyncGenerator[Front, None]:
    """Watch the nodes and run the fleet for as long as the block lasts."""
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        ports: dict[str, NodePort] = {local.name: local} if local else {}
        for node in config.nodes:
            ports[node.name] = port_of(node, await stack.enter_async_context(Client(node)))
        fleet = Fleet(config, shelf, ports, metrics)
        poller = Poller(list(ports.values()), fleet, config.fleet.poll_seconds)
        on_crash = partial(count_crash, metrics)
        for name, actor in (("fleet", fleet.run), ("poller", poller.run)):
            await nursery.start(partial(keep_running, on_crash=on_crash), name, actor, FLEET_POLICY)
        yield Front(fleet, ports, local)
        nursery.cancel_scope.cancel()
        fleet.close()


def port_of(node: RemoteNode, client: Client) -> NodePort:
    return UpstreamPort(node, client) if node.kind == "openai" else RemotePort(node, client)
