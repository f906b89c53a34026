"""The listeners of one process: which there are, what each serves, and who may come in."""

from functools import partial
from typing import Any

from attrs import frozen

from helexa.accounts.provider import Budgets
from helexa.actors.node import tick_seconds
from helexa.capture import Capture
from helexa.config import schema
from helexa.config.schema import Config
from helexa.fleet.entry import ModelEntry
from helexa.front import Front
from helexa.gateway import Gateway
from helexa.here import Here
from helexa.http.api import Api, Entries
from helexa.http.call import App
from helexa.http.doors import Door
from helexa.http.gateway import gateway_app
from helexa.http.inference import Answers
from helexa.http.metrics import metrics_app
from helexa.http.node import node_app
from helexa.http.server import Listener
from helexa.http.tls import Certificates
from helexa.listed import fleet_entries
from helexa.local import LocalNode
from helexa.logs import Ring
from helexa.metrics import Metrics
from helexa.opaque import Opaque
from helexa.recorder import Audit, Recorder, unaudited
from helexa.records import Records
from helexa.responses import Responses
from helexa.shelf import Shelf


@frozen(eq=False)
class Kept:
    """What the listeners of one process share of what they keep of requests."""

    metrics: Metrics
    records: Records
    capture: Capture
    responses: Responses

    def recorder(self, audit: Audit = unaudited) -> Recorder:
        return Recorder(self.metrics, self.records, audit)


@frozen(eq=False)
class Roles:
    """What the process is: a gateway with a `front`, a node with a `local` one, or both."""

    config: Config
    shelf: Shelf
    kept: Kept
    budgets: Budgets
    local: LocalNode | None
    front: Front | None
    certificates: Certificates
    ring: Ring

    def listeners(self) -> list[Listener]:
        config = self.config
        found = [self._listener("metrics", self._metrics(), config.metrics, metrics_door(config))]
        if self.local is not None:
            app = self._node(self.local)
            found.insert(0, self._listener("node", app, config.node, node_door(config)))
        if self.front is not None:
            app = self._gateway(self.front)
            found.insert(0, self._listener("gateway", app, config.gateway, gateway_door(config)))
        return found

    def _listener(
        self,
        name: str,
        app: App,
        settings: schema.Gateway | schema.Node | schema.Metrics,
        door: Door,
    ) -> Listener:
        on_refusal = partial(self.kept.metrics.refused, name)
        certificate = self.certificates.get(name)
        return Listener(app, settings.listen, name, door, on_refusal, certificate, self.budgets)

    def _gateway(self, front: Front) -> App:
        config = self.config
        gateway = Gateway(
            self.shelf,
            front.fleet,
            front.ports,
            front.local,
            self.budgets,
            tick_seconds(config),
            config.fleet.load_wait_secs,
        )
        opaque = Opaque(gateway.resolve, front.fleet, front.upstreams, self.budgets)
        recorder = self.kept.recorder(self.budgets.refused)
        api = self._api(gateway, partial(entries_of, self.shelf, front), recorder)
        return gateway_app(api, opaque, recorder, front.activation_state)

    def _node(self, local: LocalNode) -> App:
        here = Here(local.host.node, local.loads, tick_seconds(self.config))
        api = self._api(here, local.host.entries, self.kept.recorder())
        settings = self.config.node
        return node_app(api, local.host, local.loads, self.ring, settings.trusted_peers)

    def _metrics(self) -> App:
        node = self.local.host.node if self.local else None
        doors = self.front.doors if self.front else list
        return metrics_app(self.kept.metrics, node, doors)

    def _api(self, answers: Answers, entries: Entries, recorder: Recorder) -> Api:
        kept = self.kept
        return Api(
            answers,
            entries,
            kept.responses,
            recorder,
            kept.capture,
            self.config.admission.stream_open_seconds,
        )


async def entries_of(shelf: Shelf, front: Front) -> list[ModelEntry]:
    """The fleet's models by the catalogue that is in force when they are asked for."""
    return await fleet_entries(shelf.catalogue, front.fleet.views, front.fleet.told, front.local)


# -- doors ---------------------------------------------------------------------------------------------


def gateway_door(config: Config) -> Door:
    """With keys, a page can do no more than whoever gave it one."""
    needs_key = config.accounts.require_auth
    return door_of(
        config.gateway,
        cors_origins=config.gateway.cors_origins or (("*",) if needs_key else ()),
        public_paths=("/", "/health"),
        takes_keys=True,
        require_key=needs_key,
    )


def node_door(config: Config) -> Door:
    return door_of(
        config.node,
        token=config.node.token,
        token_hash=config.node.token_hash,
        public_paths=("/health",),
        believe_principals=True,
        trusted_peers=config.node.trusted_peers,
    )


def metrics_door(config: Config) -> Door:
    settings = config.metrics
    return door_of(settings, token=settings.token, token_hash=settings.token_hash)


def door_of(settings: schema.Gateway | schema.Node | schema.Metrics, **more: Any) -> Door:
    """What every listener's door is told, and what only this one's is."""
    return Door(
        allowed_hosts=settings.allowed_hosts, allowed_origins=settings.allowed_origins, **more
    )
