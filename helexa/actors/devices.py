"""The devices of a node and what is promised of them: where a model goes, decided without waiting."""

from collections.abc import Iterable, Sequence

from attrs import frozen

from helexa import logs
from helexa.actors.device import Device, DeviceStatus
from helexa.actors.model import Hosted
from helexa.actors.place import Place, required_mb
from helexa.config.schema import Config
from helexa.engine.orders import Dtype
from helexa.errors import HelexaError
from helexa.fleet.admission import Rules
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.known import Known
from helexa.fleet.placement import Room
from helexa.fleet.placement import place as place_model

log = logs.get("helexa.node")


@frozen(eq=False)
class Devices:
    """All of one kind: cards, or the CPU alone.  Each has the number format that it computes in."""

    _config: Config
    _devices: Sequence[tuple[Device, Dtype]]

    @property
    def indexes(self) -> list[int]:
        return [device.info.index for device, _ in self._devices]

    def uuids(self, indexes: tuple[int, ...]) -> tuple[str, ...]:
        infos = [device.info for device, _ in self._devices]
        return tuple(info.uuid for info in infos if info.index in indexes)

    def status(self) -> tuple[DeviceStatus, ...]:
        return tuple(device.status() for device, _ in self._devices)

    async def refresh(self) -> None:
        """Read them all: a reading of two seconds ago may count a model that is gone."""
        for device, _ in self._devices:
            await device.refresh()

    def could_fit(self, entry: CatalogueModel, known: Known) -> bool:
        """Whether the model would fit a device that is otherwise empty."""
        infos = [device.info for device, _ in self._devices]
        empty = [Room(info.index, info.name, info.usable_mb, info.usable_mb) for info in infos]
        try:
            place_model(entry.id, self._required_mb(entry, known), entry.min_device_vram_mb, empty)
        except HelexaError:
            return False
        return True

    def place(self, place: Place, known: Known, places: Iterable[Place]) -> tuple[Hosted, Device]:
        """Choose a device and count the model's memory as taken there, with no await in between."""
        allowed, others = place.allowed_devices, list(places)
        rooms = [
            room_of(device, others)
            for device, _ in self._devices
            if not allowed or device.info.index in allowed
        ]
        required = self._required_mb(place.entry, known)
        room = place_model(known.id, required, place.entry.min_device_vram_mb, rooms)
        device, dtype = next(
            (device, dtype) for device, dtype in self._devices if device.info.index == room.index
        )
        place.known, place.device = known, device
        place.dtype, place.required_mb = dtype, required
        place.done_bytes = place.total_bytes = 0  # a download's, until now
        log.info("model placed", model=known.id, device=room.index, required_mb=required)
        return self._hosted(known, device, dtype), device

    def _required_mb(self, entry: CatalogueModel, known: Known) -> int:
        return entry.vram_mb or required_mb(known, self._devices[0][1])

    def _hosted(self, known: Known, device: Device, dtype: Dtype) -> Hosted:
        admission, engine = self._config.admission, self._config.engine
        rules = Rules(
            admission.max_in_flight or engine.batch_width,
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
            engine.batch_width,
        )


def room_of(device: Device, places: Iterable[Place]) -> Room:
    """What the device has left, less what loads in progress and crashed models will take."""
    status, info = device.status(), device.info
    promised = sum(place.promised_mb for place in places if place.device is device)
    free = status.readings.vram_free_mb if status.readings and not status.poisoned else 0
    return Room(info.index, info.name, info.usable_mb, max(0, free - promised))
