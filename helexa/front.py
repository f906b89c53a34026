"""The gateway role: every node of the fleet behind its port, watched, and the fleet planned over them."""

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from functools import partial

import trio
from attrs import frozen

from helexa.actors.admission import Door
from helexa.actors.fleet import Fleet
from helexa.actors.node import tick_seconds
from helexa.actors.poller import Poller
from helexa.actors.supervisor import Actor, RestartPolicy, keep_running
from helexa.config.schema import Config
from helexa.fleet.activation import together
from helexa.fleet.admission import Rules
from helexa.fleet.view import Activation
from helexa.local import count_crash
from helexa.metrics import Metrics
from helexa.nodes.admitting import AdmittingPort
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
    def upstreams(self) -> Mapping[str, AdmittingPort]:
        """The ports whose lines are kept here, by name."""
        return {name: port for name, port in self.ports.items() if isinstance(port, AdmittingPort)}

    def doors(self) -> Iterator[Door]:
        """How busy the models are whose lines are kept here, with what goes through this gateway."""
        for port in self.upstreams.values():
            for model, occupancy in port.occupancies():
                yield model, port.name, occupancy

    def activation_state(self) -> Activation:
        """How far the models are that come up by themselves, here and wherever they are pinned."""
        own = [view.activation for view in self.fleet.views if view.kind == "local"]
        return together([self.fleet.activation.state, *own])

    @property
    def clients(self) -> Mapping[str, Client]:
        """Of the nodes that are reached over HTTP."""
        over_http = AdmittingPort | RemotePort
        return {name: p.client for name, p in self.ports.items() if isinstance(p, over_http)}


@asynccontextmanager
async def front(
    config: Config, shelf: Shelf, metrics: Metrics, local: LocalPort | None
) -> AsyncGenerator[Front, None]:
    """Watch the nodes and run the fleet for as long as the block lasts."""
    with ExitStack() as clients:
        async with trio.open_nursery() as nursery:
            ports: dict[str, NodePort] = {local.name: local} if local else {}
            actors: dict[str, Actor] = {}
            for node in config.nodes:
                client = clients.enter_context(Client(node))
                if node.kind != "openai":
                    ports[node.name] = RemotePort(node, client)
                    continue
                port = admitting(UpstreamPort(node, client), config, metrics)
                ports[node.name] = port
                actors[f"lines of {node.name}"] = port.run
            fleet = Fleet(config, shelf, ports, metrics)
            poller = Poller(list(ports.values()), fleet, config.fleet.poll_seconds)
            actors |= {"fleet": fleet.run, "poller": poller.run}
            on_crash = partial(count_crash, metrics)
            for name, actor in actors.items():
                await nursery.start(
                    partial(keep_running, on_crash=on_crash), name, actor, FLEET_POLICY
                )
            yield Front(fleet, ports, local)
            nursery.cancel_scope.cancel()
            fleet.close()


def admitting(upstream: UpstreamPort, config: Config, metrics: Metrics) -> AdmittingPort:
    """Without a bound of its own, so many may be asked at once as there may be connections."""
    settings = config.admission
    width = upstream.node.max_in_flight or settings.max_in_flight
    rules = Rules(
        width or config.limits.max_connections, settings.max_queue_depth, settings.max_per_principal
    )
    wait = settings.max_wait_secs
    return AdmittingPort(upstream, width, rules, wait, tick_seconds(config), metrics.decided)
