"""This host as its APIs tell of it: status of the node turned into entries and JSON."""

from typing import Any

import trio
from attrs import evolve, frozen

from helexa.actors.node import Node
from helexa.actors.place import ModelState, NodeStatus
from helexa.devices.discovery import Discovery
from helexa.devices.shapes import discovery_host, health_device
from helexa.errors import HelexaError
from helexa.fleet.catalogue import Catalogue, CatalogueModel
from helexa.fleet.entry import Location, ModelEntry, ModelStatus
from helexa.fleet.known import Known


@frozen(eq=False)
class Host:
    """The node of this process with what was found of its machine, and when it started."""

    node: Node
    discovery: Discovery
    started_at: float  # on Trio's clock

    def uptime_seconds(self) -> int:
        return int(trio.current_time() - self.started_at)

    async def entries(self) -> list[ModelEntry]:
        """The models of the node."""
        return [entry_of(state) for state in (await self.node.status()).models]

    def discovery_json(self) -> dict[str, Any]:
        return {
            **discovery_host(self.discovery),
            "harnesses": ["torch", "script"],
            "max_prompt_tokens": self.node.max_prompt_tokens,
        }

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
            "activation": activation_json(status),
            "models": [
                {
                    "id": model.entry.id,
                    "in_flight": model.in_flight,
                    "queue_depth": model.queue_depth,
                }
                for model in status.models
            ],
        }


def activation_json(status: NodeStatus) -> dict[str, Any]:
    return {
        "state": status.activation,
        "loading": [model.entry.id for model in status.models if model.status == "loading"],
        "pending": list(status.pending),
        "failed": list(status.failed),
    }


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


async def fleet_entries(catalogue: Catalogue, node: Node | None) -> list[ModelEntry]:
    """The gateway's list: the catalogue, and what is loaded beside it."""
    if node is None:
        return [described(entry, None, "unloaded", None) for entry in catalogue.models]
    status = await node.status()
    listed = {entry.id for entry in catalogue.models}
    others = [state.entry for state in status.models if state.entry.id not in listed]
    return [await _fleet_entry(entry, node, status) for entry in (*catalogue.models, *others)]


async def known_or_none(node: Node, entry: CatalogueModel) -> Known | None:
    try:
        return await node.known(entry)
    except HelexaError:
        return None


async def _fleet_entry(entry: CatalogueModel, node: Node, status: NodeStatus) -> ModelEntry:
    state = status.model(entry.id)
    known = state.known if state and state.known else await known_or_none(node, entry)
    shown = described(entry, known, state.status if state else "unloaded", state)
    return evolve(
        shown,
        feasible_on=(node.name,) if known and node.could_fit(known) else (),
        locations=(Location(node.name, state.status),) if state else (),
    )
