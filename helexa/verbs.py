"""What `helexa-ctl` may ask of this process beyond logs and records: status, models, load, drain."""

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import Any

import trio
from attrs import asdict, frozen

from helexa import __version__
from helexa.actors.device import DeviceStatus
from helexa.actors.node import Node
from helexa.actors.place import ModelState, NodeStatus
from helexa.capture import Capture
from helexa.control.accounts import AccountVerbs
from helexa.control.elsewhere import Elsewhere
from helexa.control.fleet import FleetVerbs
from helexa.control.nodes import NodeVerbs
from helexa.control.protocol import Args, Json
from helexa.control.server import Verb
from helexa.control.verbs import capture_verb, logs_verb, requests_verb, why_verb
from helexa.devices.shapes import discovery_device, status_device
from helexa.errors import ConfigError, ModelNotFound, ServiceUnavailable
from helexa.fleet.activation import ActivationView
from helexa.front import Front
from helexa.host import Host, activation_of, described, entry_of
from helexa.loads import Loads, LoadSpec
from helexa.logs import RING_LINES, Ring
from helexa.records import Records
from helexa.reload import Reload
from helexa.shelf import Shelf
from helexa.wire.models import write_node_entry

ERROR_LEVELS = ("error", "critical")
NUM_ERRORS = 5
TICK_SECONDS = 0.5


@frozen(eq=False)
class Control:
    """What the verbs look at and act on.  `urls` maps a role to its real address."""

    shelf: Shelf
    host: Host | None
    loads: Loads | None
    front: Front | None
    records: Records
    capture: Capture
    ring: Ring
    urls: Mapping[str, str]
    uptime_seconds: Callable[[], int]
    drain: Callable[[], None]
    reload_all: Reload
    accounts: AccountVerbs | None = None

    def verbs(self) -> dict[str, Verb]:
        fleet = self.fleet
        verbs = [
            Verb("status", changes=False, handle=self.status),
            Verb("models", changes=False, handle=self.models),
            Verb("why-limit", changes=False, handle=self.why_limit),
            Verb("load", changes=True, handle=self.load),
            Verb("unload", changes=True, handle=self.unload),
            Verb("reload", changes=True, handle=self.reload),
            Verb("drain", changes=True, handle=self.drain_all),
            Verb("logs", changes=False, handle=self.logs),
            requests_verb(self.records),
            why_verb(self.records),
            capture_verb(self.capture),
            *(fleet.verbs() if fleet else ()),
            *(NodeVerbs(self.front.fleet, self.front.clients).verbs() if self.front else ()),
            *(self.accounts.verbs() if self.accounts else ()),
        ]
        return {verb.name: verb for verb in verbs}

    @property
    def fleet(self) -> FleetVerbs | None:
        return FleetVerbs(self.front.fleet, self.shelf) if self.front else None

    async def status(self, args: Args) -> AsyncGenerator[Json, None]:
        told: dict[str, Any] = {
            "version": __version__,
            "uptime_secs": self.uptime_seconds(),
            **{role: {"url": url} for role, url in self.urls.items()},
            "devices": [],
            "models": [],
            "open": {"sequences": 0, "slots": 0},
            "errors": self._last_errors(),
        }
        activation = ActivationView("ready")
        if self.host is not None:
            node = await self.host.node.status()
            told |= self._of_node(self.host, node)
            activation += activation_of(node)
        if self.front is not None:
            told["open"]["slots"] += sum(load.in_flight for *_, load in self.front.doors())
        told["open"]["reservations"] = (
            self.accounts.accounts.ledger.num_open if self.accounts else 0
        )
        if fleet := self.fleet:
            told["nodes"] = fleet.nodes()
            activation += fleet.fleet.activation
        yield told | {"activation": activation.told()}

    def _of_node(self, host: Host, status: NodeStatus) -> dict[str, Any]:
        return {
            **{
                name: value
                for name, value in host.discovery_json().items()
                if name not in ("devices", "max_prompt_tokens")
            },
            "devices": [device_json(device) for device in status.devices],
            "models": list(self._models_of(host, status)),
            "open": {
                "sequences": sum(device.num_sequences for device in status.devices),
                "slots": sum(model.in_flight for model in status.models),
            },
        }

    def _models_of(self, host: Host, status: NodeStatus) -> Iterator[dict[str, Any]]:
        name = host.node.name
        for state in status.models:
            is_pinned = bool(self.front and self.front.fleet.is_pinned(state.entry.id, name))
            yield model_json(state) | {"node": name, "pinned": is_pinned}

    def _last_errors(self) -> list[dict[str, Any]]:
        lines, _, _ = self.ring.since(0)
        errors = [line for line in lines if line["level"] in ERROR_LEVELS]
        return [
            {"time": line["time"], "message": " ".join([line["event"], *reason(line)])}
            for line in errors[-NUM_ERRORS:]
        ]

    async def models(self, args: Args) -> AsyncGenerator[Json, None]:
        """What this host's node has, then other nodes', then what the catalogue could bring."""
        node, fleet = args.optional_text("node"), self.fleet
        own = self.host.node.name if self.host else None
        shown = set()
        if self.host is not None and node in (None, own):
            for model in self._models_of(self.host, await self.host.node.status()):
                shown.add(model["id"])
                yield model
        if node not in (None, own):
            self._fleet_needed()
        for model in fleet.models(node) if fleet else ():
            if model["node"] != own:
                shown.add(model["id"])
                yield model
        if node is not None:
            return
        for entry in self.shelf.catalogue.models:
            if entry.id not in shown:
                yield write_node_entry(described(entry, None, "unloaded", None))

    async def why_limit(self, args: Args) -> AsyncGenerator[Json, None]:
        """The terms of a model's context limit, here or on the node that is named."""
        model = args.text("model")
        if node := self._elsewhere(args):
            named = self.shelf.catalogue.resolve(model)
            yield await self._others.limit(node, named.id if named else model)
        elif self.host is None or self.loads is None:
            raise ServiceUnavailable(
                "this helexa is a gateway alone: name the node that is meant with --node"
            )
        else:
            yield await self.host.limit_json(await self.loads.entry_for(LoadSpec(model)))

    async def logs(self, args: Args) -> AsyncGenerator[Json, None]:
        """The last lines of this process, or of the node that is named, and with `follow` new ones."""
        node = self._elsewhere(args)
        if node is None:
            items = logs_verb(self.ring).handle(args)
        else:
            lines = int(args.number("lines", 100, RING_LINES))
            items = self._others.logs(node, lines, follow=args.flag("follow"))
        async with aclosing(items):
            async for item in items:
                yield item

    async def load(self, args: Args) -> AsyncGenerator[Json, None]:
        if self._means_fleet(args):
            yield await self._fleet_needed().load(args)
            return
        node, loads = self._needed()
        entry = await loads.entry_for(LoadSpec(args.text("model")))
        request = node.load(entry, "operator")
        ticks = request.reply.ticks(TICK_SECONDS, float("inf"))
        async with aclosing(ticks):
            async for _ in ticks:
                state = (await node.status()).model(entry.id)
                done, total = (state.done_bytes, state.total_bytes) if state else (0, 0)
                yield {"phase": "loading", "done": done, "total": total}
        await request.reply.wait()
        yield {"message": f"{entry.id} is loaded"}

    async def unload(self, args: Args) -> AsyncGenerator[Json, None]:
        if self._means_fleet(args):
            yield await self._fleet_needed().unload(args)
            return
        node, loads = self._needed()
        model = loads.id_of(args.text("model"))
        try:
            await node.unload(model)
        except ModelNotFound:
            if self.fleet is not None:
                self.fleet.check_not_elsewhere(model)
            raise
        yield {"message": f"{model} is unloaded"}

    async def reload(self, args: Args) -> AsyncGenerator[Json, None]:
        done = await self.reload_all()
        if done.mistakes:
            raise ConfigError([*done.mistakes, *done.told])
        yield {"message": "; ".join(done.told)}

    async def drain_all(self, args: Args) -> AsyncGenerator[Json, None]:
        node = args.optional_text("node")
        if node is not None:
            yield await self._fleet_needed().drain(node, args)
            return
        self.drain()
        yield {"message": "no more requests are taken; helexa stops when those in hand are done"}
        await trio.sleep_forever()

    def _elsewhere(self, args: Args) -> str | None:
        """The node that is named, unless that is this process's own."""
        node = args.optional_text("node")
        if node is None or (self.host is not None and node == self.host.node.name):
            return None
        self._fleet_needed()
        return node

    @property
    def _others(self) -> Elsewhere:
        return Elsewhere(self.front.clients if self.front else {})

    def _means_fleet(self, args: Args) -> bool:
        """Whether the nodes of a gateway are meant, and not what this process has itself."""
        named = args.optional_text("node") is not None
        return self.front is not None and (named or self.host is None)

    def _fleet_needed(self) -> FleetVerbs:
        if self.fleet is None:
            raise ServiceUnavailable("this helexa is a node alone; ask its gateway")
        return self.fleet

    def _needed(self) -> tuple[Node, Loads]:
        if self.host is None or self.loads is None:
            raise ServiceUnavailable("this helexa is a gateway alone; ask the node that is meant")
        return self.host.node, self.loads


def reason(line: Mapping[str, Any]) -> list[str]:
    """What makes an error line tell: which model or actor, and why."""
    return [str(line[name]) for name in ("model", "actor", "reason") if line.get(name)]


def device_json(device: DeviceStatus) -> dict[str, Any]:
    shown = (
        status_device(device.info, device.readings)
        if device.readings is not None
        else discovery_device(device.info)
    )
    told = {**shown, "poisoned": device.poisoned, "sequences": device.num_sequences}
    return told | {"abilities": asdict(device.abilities)} if device.abilities else told


def model_json(state: ModelState) -> dict[str, Any]:
    return {
        **write_node_entry(entry_of(state)),
        "in_flight": state.in_flight,
        "queue_depth": state.queue_depth,
        "tokens_per_second": round(state.tokens_per_second, 2),
        "kv_tokens": state.pool.held_tokens,
        "kv_pool_tokens": state.pool.tokens,
        "quant": state.choice.quant,
        "kv_bytes_per_token": state.pool.bytes_per_token,
        "prefix_cache": {
            "tokens": state.pool.use.cached_tokens,
            "entries": state.pool.use.entries,
            "hits": state.pool.use.hits,
            "saved_tokens": state.pool.use.saved_tokens,
            "evictions": state.pool.use.evictions,
        },
        "preemptions": state.pool.use.preemptions,
        "alone": state.pool.alone,
        "done_bytes": state.done_bytes,
        "total_bytes": state.total_bytes,
        "error": state.error,
    }
