"""What `helexa-ctl` may ask of a gateway about its fleet: plan, pin, unpin, drain, and views of nodes."""

from collections.abc import AsyncGenerator, Iterator
from typing import Any

from attrs import asdict, frozen

from helexa.actors.fleet import Fleet
from helexa.control.protocol import Args, Json
from helexa.control.server import Verb
from helexa.errors import ModelNotFound
from helexa.fleet.view import DeviceView, ModelView, NodeView
from helexa.shelf import Shelf
from helexa.wire.models import write_node_entry


@frozen(eq=False)
class FleetVerbs:
    """The verbs over one fleet."""

    fleet: Fleet
    shelf: Shelf

    def verbs(self) -> list[Verb]:
        return [
            Verb("plan", changes=False, handle=self.plan),
            Verb("pin", changes=True, handle=self.pin),
            Verb("unpin", changes=True, handle=self.unpin),
        ]

    async def plan(self, args: Args) -> AsyncGenerator[Json, None]:
        """What a request for the model would bring about now."""
        yield asdict(await self.fleet.plan(self.shelf.resolve(args.text("model"))))

    async def pin(self, args: Args) -> AsyncGenerator[Json, None]:
        entry = self.shelf.resolve(args.text("model"))
        nodes = await self.fleet.pin(entry.id, args.optional_text("node"))
        yield {"message": f"{entry.id} is not evicted from {', '.join(nodes)}"}

    async def unpin(self, args: Args) -> AsyncGenerator[Json, None]:
        entry = self.shelf.resolve(args.text("model"))
        nodes = await self.fleet.unpin(entry.id, args.optional_text("node"))
        yield {"message": f"{entry.id} may be evicted from {', '.join(nodes)}"}

    # -- what is told when it is done ----------------------------------------------------------------

    async def load(self, args: Args) -> Json:
        entry = self.shelf.resolve(args.text("model"))
        node = await self.fleet.load(entry, args.optional_text("node"))
        return {"message": f"{entry.id} is loaded on {node}"}

    async def unload(self, args: Args) -> Json:
        named = self.shelf.catalogue.resolve(args.text("model"))
        model = named.id if named else args.text("model")
        nodes = await self.fleet.unload(model, args.optional_text("node"))
        from_where = f" from {', '.join(nodes)}" if nodes else ", and does not come up by itself"
        return {"message": f"{model} is unloaded{from_where}"}

    async def drain(self, node: str, args: Args) -> Json:
        """Send a node no more requests, or let it have them again."""
        moved = await self.fleet.drain(node, not args.flag("off"))
        if args.flag("off"):
            return {"message": f"{node} takes requests again"}
        also = f"; to be loaded elsewhere: {', '.join(moved)}" if moved else ""
        return {"message": f"{node} gets no more requests and finishes those in hand{also}"}

    # -- nodes as they were seen last ----------------------------------------------------------------

    def nodes(self) -> list[dict[str, Any]]:
        return [
            node_json(view)
            | {
                "draining": self.fleet.is_draining(view.name),
                "models": list(self.models_of(view)),
            }
            for view in self.fleet.views
        ]

    def models(self, node: str | None) -> Iterator[dict[str, Any]]:
        """The models of one node or of all, each as its node tells of it.  NotFound for no such node."""
        for view in self.fleet.views if node is None else [self.fleet.view(node)]:
            yield from self.models_of(view)

    def check_not_elsewhere(self, model: str) -> None:
        """ModelNotFound with the nodes that have the model, if any do."""
        nodes = ", ".join(view.name for view in self.fleet.views if view.up and view.model(model))
        if nodes:
            raise ModelNotFound(
                f"model {model} is not on this node; name the one that is meant with --node: {nodes}",
                param="node",
            )

    def models_of(self, view: NodeView) -> Iterator[dict[str, Any]]:
        """None of a node that is down: nobody knows what it has."""
        for model in view.models if view.up else ():
            is_pinned = self.fleet.is_pinned(model.entry.id, view.name)
            yield model_json(view, model) | {"pinned": is_pinned}


def node_json(view: NodeView) -> dict[str, Any]:
    return {
        "name": view.name,
        "kind": view.kind,
        "url": view.url,
        "up": view.up,
        "why_down": view.why_down,
        "version": view.version,
        "activation": view.activation,
        "stored": None if view.stored is None else sorted(view.stored),
        "devices": [device_json(device) for device in view.devices],
    }


def device_json(device: DeviceView) -> dict[str, Any]:
    return {
        "index": device.index,
        "name": device.name,
        "vram_total_mb": device.total_mb,
        "vram_free_mb": device.free_mb,
        "vram_used_mb": max(0, device.total_mb - device.free_mb),
        "poisoned": device.poisoned,
    }


def model_json(view: NodeView, model: ModelView) -> dict[str, Any]:
    return {
        **write_node_entry(model.entry),
        "node": view.name,
        "in_flight": model.in_flight,
        "queue_depth": model.queue_depth,
        "error": model.error,
    }
