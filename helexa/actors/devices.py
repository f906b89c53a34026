"""The devices of a node and what is promised of them: where a model goes, decided without waiting."""

from collections.abc import Iterable, Sequence

from attrs import evolve, field, frozen

from helexa import logs
from helexa.actors.device import Device, DeviceStatus
from helexa.actors.learned import Learned
from helexa.actors.model import Hosted
from helexa.actors.place import Place
from helexa.config.schema import Config
from helexa.devices.abilities import Abilities, abilities_of
from helexa.devices.fused import fused_here
from helexa.engine.orders import Dtype, Measure, Quant
from helexa.errors import HelexaError
from helexa.fleet.admission import Rules
from helexa.fleet.auto import Choices, choices
from helexa.fleet.auto import choose as choose_quant
from helexa.fleet.claim import Claim, Grant, choose, claim_of, grant
from helexa.fleet.dtype import BYTES
from helexa.fleet.known import Known
from helexa.fleet.placement import Room
from helexa.fleet.quant import Choice, Fused
from helexa.fleet.resizing import Holding, NewSize, gift, growths, shrinks

log = logs.get("helexa.node")


@frozen(eq=False)
class Devices:
    """All of one kind: cards, or the CPU alone.  Each has the number format that it computes in."""

    _config: Config
    _devices: Sequence[tuple[Device, Dtype]]
    learned: Learned = field(factory=Learned)
    _fused: Fused = field(init=False)
    _abilities: Sequence[Abilities] = field(init=False)

    @_fused.default
    def _look_at_host(self) -> Fused:
        device, dtype = self._devices[0]
        return fused_here(device.info.kind, dtype)

    @_abilities.default
    def _look_at_devices(self) -> Sequence[Abilities]:
        return [abilities_of(device.info, dtype) for device, dtype in self._devices]

    @property
    def indexes(self) -> list[int]:
        return [device.info.index for device, _ in self._devices]

    def uuids(self, indexes: tuple[int, ...]) -> tuple[str, ...]:
        infos = [device.info for device, _ in self._devices]
        return tuple(info.uuid for info in infos if info.index in indexes)

    def status(self) -> tuple[DeviceStatus, ...]:
        each = zip(self._devices, self._abilities, strict=True)
        return tuple(evolve(device.status(), abilities=can) for (device, _), can in each)

    async def refresh(self) -> None:
        """Read them all: a reading of two seconds ago may count a model that is gone."""
        for device, _ in self._devices:
            await device.refresh()

    def could_fit(self, known: Known) -> bool:
        """Whether the model would fit a device that is otherwise empty."""
        try:
            choose(self._claim(known), self._empty_rooms())
        except HelexaError:
            return False
        return True

    def estimated(self, known: Known, places: Iterable[Place]) -> Known:
        """A model that is not loaded, with the terms that it had last or that a load would now find.

        Loaded models would make room for it.  Where nothing has room for it even so, these are the terms of a
        device that is otherwise empty.
        """
        try:
            claim = self._claim(known)
        except HelexaError:  # the load will tell
            return known
        model, now = known.id, self._found(claim, self._rooms_for(claim, list(places)))
        if now is not None:
            return evolve(known, terms=self.learned.estimate(model, now.terms))
        last = self.learned.last(model, claim.terms.stated)
        empty = None if last else self._found(claim, self._empty_rooms())
        return evolve(known, terms=last or (empty.terms if empty else known.terms))

    def place(self, place: Place, known: Known, places: Iterable[Place]) -> tuple[Hosted, Device]:
        """Choose a device and count the model's memory as taken there, with no await in between."""
        claim = self._claim(known)
        room = choose(claim, self._rooms(list(places), place.allowed_devices))
        device, dtype = next(
            (device, dtype) for device, dtype in self._devices if device.info.index == room.index
        )
        granted, quant = self._grant(claim, room), self.choice(known)
        known = evolve(known, terms=granted.terms)
        self.learned.promise(known.id, granted.terms)
        place.known, place.device, place.dtype = known, device, dtype
        place.reserved_mb = max(claim.weights_mb, claim.loading_mb)
        place.choice = quant
        place.done_bytes = place.total_bytes = 0  # a download's, until now
        log.info(
            "model placed",
            model=known.id,
            device=room.index,
            weights_mb=claim.weights_mb,
            kv_mb=granted.kv_mb,
            context=known.limit.context,
            bound_by=granted.terms.binds,
            quant=quant.quant,
            quant_reason=quant.reason or None,
        )
        return self._hosted(known, device, dtype, quant.quant, granted), device

    def shrinks(
        self, place: Place, known: Known, places: Iterable[Place], *, generous: bool
    ) -> Sequence[NewSize]:
        """The KV pools that must be smaller for `place` to get a device; none if that does not help.

        `generous`: also those that can be, so that it gets more than the shortest context.
        """
        there = list(places)
        rooms = self._rooms(there, place.allowed_devices)
        return shrinks(self._claim(known), rooms, holdings(there), generous=generous) or ()

    def growths(self, places: Iterable[Place]) -> Sequence[NewSize]:
        """The KV pools that may have back what they gave."""
        there = list(places)
        return growths(self._rooms(there), holdings(there))

    async def measure(self, known: Known) -> None:
        """Have what "auto" decides by measured, unless it was; what cannot be measured is guessed."""
        found, (device, dtype) = self._choices(known), self._devices[0]
        is_auto = known.entry.quant.lower() == "auto" and not known.script
        if not (is_auto and found.must_measure and known.size.packable.shapes):
            return
        try:
            measured = await device.measure(
                lambda uid: Measure(
                    uid,
                    known.id,
                    device.info.torch_name,
                    dtype,
                    found.fitting,
                    known.size.packable.shapes,
                    known.size.fuses,
                )
            )
        except HelexaError as error:
            log.warning("speeds not measured", model=known.id, reason=error.message)
        else:
            self.learned.measured(known.id, dict(measured.seconds))

    def _claim(self, known: Known) -> Claim:
        dtype, rate = self._devices[0][1], self.learned.rate(known.id)
        return claim_of(known, dtype, rate, self.choice(known).quant, self._fused)

    def choice(self, known: Known) -> Choice:
        """How a load keeps the model's weights."""
        found, speeds = self._choices(known), self.learned.speeds(known.id)
        return choose_quant(known.entry.quant, found, speeds)

    def _choices(self, known: Known) -> Choices:
        """What "auto" may take: it looks at the largest device, as if it were empty."""
        device, dtype = self._devices[0]
        room_mb = max(room.free_mb - room.spare_mb for room in self._empty_rooms())
        size, terms = known.size, known.terms
        kv_bytes = terms.least_tokens * size.kv_bytes_per_token(dtype, terms.kv_dtype)
        kv_mb = (kv_bytes + size.kv_window_bytes(dtype)) >> 20

        def needed_mb(quant: Quant) -> int:
            loading_mb = size.weights_bytes(BYTES[dtype], quant) >> 20
            return max(loading_mb, kv_mb + (size.loaded_bytes(dtype, quant, self._fused) >> 20))

        return choices(
            size.packable,
            device.info.compute_capability,
            room_mb,
            needed_mb,
            compiles=size.fuses and self._fused.compiles(size.packable),
        )

    def _grant(self, claim: Claim, room: Room) -> Grant:
        batch_width, prefixes = self._config.engine.batch_width, self._config.prefix_cache
        return grant(claim, room, batch_width, prefixes.max_entries if prefixes.enabled else 0)

    def _found(self, claim: Claim, rooms: Sequence[Room]) -> Grant | None:
        """What a load would get of these rooms."""
        try:
            return self._grant(claim, choose(claim, rooms))
        except HelexaError:
            return None

    def _rooms(self, places: Sequence[Place], allowed: tuple[int, ...] = ()) -> list[Room]:
        return [
            room_of(device, places)
            for device, _ in self._devices
            if not allowed or device.info.index in allowed
        ]

    def _rooms_for(self, claim: Claim, places: Sequence[Place]) -> list[Room]:
        """The rooms as they would be once loaded models had made room for the claim."""
        rooms = self._rooms(places)
        made = gift(claim, rooms, holdings(places), generous=True)
        return [
            evolve(room, free_mb=room.free_mb + made.mb)
            if made and made.device == room.index
            else room
            for room in rooms
        ]

    def _empty_rooms(self) -> list[Room]:
        infos = [device.info for device, _ in self._devices]
        return [Room(info.index, info.name, info.usable_mb, info.usable_mb) for info in infos]

    def _hosted(
        self, known: Known, device: Device, dtype: Dtype, quant: Quant, granted: Grant
    ) -> Hosted:
        admission, engine = self._config.admission, self._config.engine
        rules = Rules(
            admission.max_in_flight or granted.windows.batch_width,
            admission.max_queue_depth,
            admission.max_per_principal,
        )
        return Hosted(
            known,
            device.info.torch_name,
            dtype,
            rules,
            admission.max_wait_secs,
            engine.prefill_chunk_tokens,
            granted,
            self._config.prefix_cache,
            quant,
            engine.drafts,
        )


def room_of(device: Device, places: Iterable[Place]) -> Room:
    """What the device has left, less what its models were promised and have not taken yet."""
    status, info = device.status(), device.info
    there = [place for place in places if place.device is device]
    promised = sum(place.promised_mb for place in there)
    free = status.readings.vram_free_mb if status.readings and not status.poisoned else 0
    pools_mb = sum(holding.spare_mb for holding in holdings(there))
    return Room(info.index, info.name, info.usable_mb, max(0, free - promised), pools_mb)


def holdings(places: Iterable[Place]) -> list[Holding]:
    return [place.holding for place in places if place.holding]
