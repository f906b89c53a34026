"""Finding a device for a load, for which loaded models make their KV pools smaller, and giving that back."""

from collections.abc import Collection, Sequence
from functools import partial

import trio
from attrs import define, field

from helexa import logs
from helexa.actors.device import Device
from helexa.actors.devices import Devices
from helexa.actors.model import Hosted, Model
from helexa.actors.place import Place
from helexa.fleet.known import Known
from helexa.fleet.resizing import NewSize

log = logs.get("helexa.node")

RESIZE_SECONDS = 10.0  # for the steps in hand to end and the pools to be copied
CALM_SECONDS = 10.0  # after an unload: the next load has the first claim to what came free


@define(eq=False)
class Placing:
    """Runs beside the node's mailbox.  One load at a time looks for room, so that none takes another's."""

    _devices: Devices
    _places: Collection[Place]
    _one_at_a_time: trio.CapacityLimiter = field(
        factory=partial(trio.CapacityLimiter, 1), init=False
    )
    _freed: trio.Event = field(factory=trio.Event, init=False)

    async def place(self, place: Place, known: Known) -> tuple[Hosted, Device]:
        """Choose a device and count the model's memory as taken there; nothing is awaited after that.

        Where none has room, models make their KV pools smaller if that helps.  The errors are those of
        `Devices.place`; who is cancelled leaves the pools as they then are.
        """
        await self._devices.measure(known)
        async with self._one_at_a_time:
            await self._devices.refresh()
            with trio.move_on_after(RESIZE_SECONDS) as waiting:
                generous = True  # once: what is asked for again is what is needed
                while sizes := self._devices.shrinks(place, known, self._places, generous=generous):
                    await self._resize(sizes, for_model=known.id)
                    await self._devices.refresh()
                    generous = False
            if waiting.cancelled_caught:
                log.warning("KV pools are not smaller yet", for_model=known.id)
            return self._devices.place(place, known, self._places)

    def freed(self) -> None:
        """A model is gone: those that made room may have it back."""
        self._freed.set()

    async def run(self) -> None:
        """Let pools grow back when memory came free and no load wants it."""
        while True:
            await self._freed.wait()
            await trio.sleep(CALM_SECONDS)
            if any(place.looks_for_room for place in self._places):
                continue
            self._freed = trio.Event()
            async with self._one_at_a_time:
                await self._devices.refresh()
                with trio.move_on_after(RESIZE_SECONDS):
                    await self._resize(self._devices.growths(self._places))

    async def _resize(self, sizes: Sequence[NewSize], for_model: str = "") -> None:
        models = {place.entry.id: place.model for place in self._places if place.model}
        async with trio.open_nursery() as nursery:
            for size in sizes:
                nursery.start_soon(resize, models[size.model], size.kv_tokens, for_model)


async def resize(model: Model, kv_tokens: int, for_model: str) -> None:
    before = model.pool.total_mb
    await model.resize(kv_tokens)
    now = model.pool.total_mb
    if now < before:
        reason = f"room for {for_model}" if for_model else None
        log.info(
            "KV pool made smaller",
            model=model.hosted.id,
            gave_mb=before - now,
            kv_mb=now,
            why=reason,
        )
    elif now > before:
        log.info("KV pool grew back", model=model.hosted.id, got_mb=now - before, kv_mb=now)
