"""A gateway over one virtual host, or over none, with the real fleet between them."""

from collections.abc import Sequence
from contextlib import aclosing

import trio
from attrs import frozen
from fakes import FakeHost, trace

from helexa.accounts.provider import Budgets, Unmetered
from helexa.actors.fleet import Fleet
from helexa.actors.node import tick_seconds
from helexa.actors.poller import Poller
from helexa.config.schema import Config
from helexa.conversation import Conversation, Event
from helexa.devices.discovery import Discovery
from helexa.fleet.catalogue import Catalogue
from helexa.gateway import Gateway
from helexa.host import Host
from helexa.metrics import Metrics
from helexa.nodes.asked import Asked
from helexa.nodes.local import LocalPort
from helexa.nodes.port import NodePort
from helexa.shelf import Shelf
from helexa.trace import Trace

NOTHING_FOUND = Discovery("test", "none", None, None, None, (), None, ())


@frozen(eq=False)
class FakeFront:
    gateway: Gateway
    fleet: Fleet
    local: LocalPort | None

    async def answer(
        self, conversation: Conversation, asked_by: Trace | None = None
    ) -> list[Event]:
        """All events of one request."""
        events: list[Event] = []
        answer = self.gateway.generate(asked(conversation), asked_by or trace())
        async with aclosing(answer) as batches:
            async for batch in batches:
                events.extend(batch)
        return events


def asked(conversation: Conversation) -> Asked:
    return Asked("chat", conversation, {}, stream=True)


def local_port(host: FakeHost, config: Config = Config()) -> LocalPort:
    found = Host(host.node, NOTHING_FOUND, host.library, trio.current_time())  # type: ignore[arg-type]
    return LocalPort(found, tick_seconds(config))


async def open_front(
    nursery: trio.Nursery,
    host: FakeHost | None,
    catalogue: Catalogue,
    config: Config = Config(),
    ports: Sequence[NodePort] = (),
    budgets: Budgets | None = None,
) -> FakeFront:
    """Run it in the nursery; `host` runs already.  `ports` are further nodes."""
    local = local_port(host, config) if host else None
    shelf = Shelf(catalogue, lambda: catalogue)
    here: list[NodePort] = [local] if local else []
    named = {port.name: port for port in (*here, *ports)}
    fleet = Fleet(config, shelf, named, Metrics())
    poller = Poller(list(named.values()), fleet, config.fleet.poll_seconds)
    await nursery.start(fleet.run)
    await nursery.start(poller.run)
    wait = config.fleet.load_wait_secs
    return FakeFront(
        Gateway(shelf, fleet, named, local, budgets or Unmetered(), tick_seconds(config), wait),
        fleet,
        local,
    )
