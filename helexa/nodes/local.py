"""The node of this process as a port of the fleet, without HTTP in between."""

from contextlib import aclosing

import trio
from attrs import evolve, frozen

from helexa import __version__
from helexa.actors.admission import ModelGone
from helexa.actors.device import DeviceStatus
from helexa.actors.place import Asker, ModelState
from helexa.conversation import Conversation, Events, Principal
from helexa.errors import NotLoaded
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.known import Known
from helexa.fleet.view import DeviceView, ModelView, NodeView
from helexa.host import Host, entry_of
from helexa.messages import Prepare
from helexa.nodes.asked import Prepared
from helexa.trace import Trace


@frozen(eq=False)
class LocalPort:
    """Beside what every port can do it knows the models' files, and so reads prompts for the fleet.

    A request that waits is told so every `tick_seconds`.
    """

    host: Host
    tick_seconds: float

    @property
    def name(self) -> str:
        return self.host.node.name

    async def look(self) -> NodeView:
        asked_at = trio.current_time()
        status = await self.host.node.status()
        return NodeView(
            self.name,
            "local",
            devices=tuple(device_view(device) for device in status.devices),
            models=tuple(model_view(model) for model in status.models),
            activation=status.activation,
            harnesses=("torch", "script"),
            stored=await self.host.stored(),
            version=__version__,
            seen_at=asked_at,
        )

    async def tell(self, entry: CatalogueModel) -> None:
        """The list of models looks at this host's files itself, whenever it is asked for (`listed`)."""

    async def load(self, entry: CatalogueModel, by: Asker = "request") -> None:
        await self.host.node.load(entry, by).reply.wait()

    async def unload(self, model: str, *, if_idle: bool) -> None:
        await self.host.node.unload(model, if_idle=if_idle)

    async def generate(self, prepared: Prepared, trace: Trace) -> Events:
        node, conversation = self.host.node, prepared.asked.conversation
        if prepared.max_tokens is not None:
            conversation = evolve(conversation, max_tokens=prepared.max_tokens)
        known, prompts = prepared.known, prepared.prompts
        if prompts is None:  # its files were not here when it was asked
            known = await node.loaded(prepared.entry.id)
            preparing = node.prepare(known, conversation, trace.principal)
            async with aclosing(preparing.waiting(self.tick_seconds)) as waiting:
                async for progress in waiting:
                    yield [progress]
            prompts = await preparing.reply.wait()
        try:
            async with aclosing(node.generate(known, conversation, prompts, trace)) as batches:
                async for batch in batches:
                    yield batch
        except ModelGone:
            raise NotLoaded(
                f"model {prepared.entry.id} was unloaded before the request was admitted"
            ) from None

    # -- prompts, for models that may run anywhere ---------------------------------------------------

    async def known(self, entry: CatalogueModel) -> Known:
        """What this host knows of the model from its files; a HelexaError where it has none."""
        return await self.host.node.known(entry)

    def prepare(self, known: Known, conversation: Conversation, principal: Principal) -> Prepare:
        """Begin to make the prompts; wait on the `reply` of what this returns."""
        return self.host.node.prepare(known, conversation, principal)

    async def count(self, known: Known, conversation: Conversation, principal: Principal) -> int:
        """The tokens of the prompts that the conversation makes."""
        return await self.host.node.count(known, conversation, principal)


def device_view(device: DeviceStatus) -> DeviceView:
    readings = device.readings
    return DeviceView(
        device.info.index,
        device.info.name,
        device.info.usable_mb,
        readings.vram_free_mb if readings else 0,
        device.info.compute_capability or "",
        device.poisoned,
    )


def model_view(state: ModelState) -> ModelView:
    return ModelView(
        entry_of(state),
        state.in_flight,
        state.queue_depth,
        state.error,
        state.occupancy.service_seconds,
        state.occupancy.max_in_flight,
        state.spare_mb,
        state.done_bytes,
        state.total_bytes,
    )
