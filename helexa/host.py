"""This host as its APIs tell of it: status of the node turned into entries and JSON."""

from typing import Any

import trio
from attrs import frozen

from helexa.actors.node import Node
from helexa.actors.place import ModelState, NodeStatus
from helexa.control.limits import why_limit
from helexa.conversation import Json
from helexa.devices.discovery import Discovery
from helexa.devices.shapes import discovery_host, health_device
from helexa.errors import HelexaError
from helexa.fleet.activation import ActivationView
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.entry import ModelEntry, ModelStatus
from helexa.fleet.known import Known
from helexa.library import Library
from helexa.wire.models import write_node_entry


@frozen(eq=False)
class Host:
    """The node of this process with what was found of its machine, and when it started."""

    node: Node
    discovery: Discovery
    library: Library
    started_at: float  # on Trio's clock

    def uptime_seconds(self) -> int:
        return int(trio.current_time() - self.started_at)

    async def stored(self) -> frozenset[str]:
        """The names in the store of the models whose files are here."""
        return await self.library.stored()

    async def entries(self) -> list[ModelEntry]:
        """The models of the node."""
        return [entry_of(state) for state in (await self.node.status()).models]

    def discovery_json(self) -> dict[str, Any]:
        return {
            **discovery_host(self.discovery),
            "harnesses": ["torch", "script"],
            "max_prompt_tokens": self.node.max_prompt_tokens,
        }

    async def models_json(self) -> list[Json]:
        states = (await self.node.status()).models
        return [write_node_entry(entry_of(state), state.error) for state in states]

    async def health_json(self) -> dict[str, Any]:
        status = await self.node.status()
        return {
            "status": "ok",
            "uptime_secs": self.uptime_seconds(),
            "devices": [
                health_device(device.info, device.readings) | {"poisoned": device.poisoned}
                for device in status.devices
                if device.readings is not None
            ],
            "activation": activation_of(status).told(),
            "models": [load_json(state) for state in status.models],
        }

    async def entry_json(self, entry: CatalogueModel) -> Json:
        """The model as this host tells of it, loaded or not; a HelexaError where its files are not here."""
        state = (await self.node.status()).model(entry.id)
        if state is not None and state.known is not None:
            return write_node_entry(entry_of(state))
        return write_node_entry(described(entry, await self.node.known(entry), "unloaded", None))

    async def limit_json(self, entry: CatalogueModel) -> dict[str, Any]:
        """What bounds the model's context here, with every term; a HelexaError where it is not known."""
        known = await self.node.known(entry)
        state = (await self.node.status()).model(entry.id)
        if state is None:
            return why_limit(known, "unloaded", choice=self.node.choice(known))
        choice = state.choice if state.status == "loaded" else self.node.choice(known)
        return why_limit(known, state.status, state.pool, choice)


def load_json(state: ModelState) -> dict[str, Any]:
    """How busy a model is, and what else gateways plan with; no seconds before the first request."""
    told = {
        "id": state.entry.id,
        "in_flight": state.in_flight,
        "queue_depth": state.queue_depth,
        "width": state.occupancy.max_in_flight,
        "waiting_keys": state.occupancy.waiting_keys,
        "expected_wait_seconds": round(state.occupancy.expected_wait_seconds, 3),
        "spare_mb": state.spare_mb,
        "done_bytes": state.done_bytes,
        "total_bytes": state.total_bytes,
    }
    seconds = state.occupancy.service_seconds
    return told if seconds is None else told | {"service_seconds": round(seconds, 3)}


def activation_of(status: NodeStatus) -> ActivationView:
    loading = tuple(model.entry.id for model in status.models if model.status == "loading")
    return ActivationView(status.activation, loading, status.pending, status.failed)


def entry_of(state: ModelState) -> ModelEntry:
    """A model of the node, as its own list shows it."""
    return described(state.entry, state.known, state.status, state)


def described(
    entry: CatalogueModel,
    known: Known | None,
    status: ModelStatus,
    state: ModelState | None,
) -> ModelEntry:
    return ModelEntry(
        id=entry.id,
        harness=entry.harness,
        status=status,
        devices=state.devices if state else (),
        vram_used_mb=state.vram_used_mb if state else 0,
        capabilities=entry.capabilities,
        limit=known.limit if known else None,
        limit_estimated=known is not None and status != "loaded",
        cost=entry.cost,
        tool_call=known.tool_call if known else False,
        reasoning=known.reasoning if known else False,
        created=int(known.added_at) if known else 0,
        aliases=entry.aliases,
    )


async def known_or_none(node: Node, entry: CatalogueModel) -> Known | None:
    try:
        return await node.known(entry)
    except HelexaError:
        return None
