"""Placement on one host: which device a model goes to, or why none will do."""

from collections.abc import Sequence

from attrs import frozen

from helexa.errors import HelexaError, InsufficientVram, ModelNotFound

HEADROOM_MB, HEADROOM_PART = 2048, 0.10  # for activations
FLOOR_MB, FLOOR_PART = 1500, 0.05  # never planned away
MAKE_ROOM = (
    "Unload another model, give one a kv_budget_mb or a max_context, or stop other programs to make "
    "room."
)


@frozen
class Room:
    """What a device has: MiB in all and MiB that nobody uses or was promised.

    The KV pools of its models could give `pools_mb` MiB more.
    """

    index: int
    name: str
    total_mb: int
    free_mb: int
    pools_mb: int = 0

    @property
    def spare_mb(self) -> int:
        """MiB that are kept free: headroom for activations and a floor."""
        return int(
            min(HEADROOM_MB, HEADROOM_PART * self.total_mb)
            + min(FLOOR_MB, FLOOR_PART * self.total_mb)
        )


def place(model: str, required_mb: int, min_device_mb: int, rooms: Sequence[Room]) -> Room:
    """The device with the most room left, of those that the model fits.

    Raises InsufficientVram where the model would fit a device that is empty, ModelNotFound where it
    fits none; both say what each device has and what would help.
    """
    able = [room for room in rooms if room.total_mb >= min_device_mb]
    fits = [room for room in able if required_mb + room.spare_mb <= room.free_mb]
    if fits:
        return max(fits, key=lambda room: room.free_mb)
    raise _refusal(model, required_mb, min_device_mb, rooms, able)


def _refusal(
    model: str, required_mb: int, min_device_mb: int, rooms: Sequence[Room], able: Sequence[Room]
) -> HelexaError:
    have = "; ".join(_told(room) for room in rooms)
    need = f"model {model} needs {required_mb} MB"
    if min_device_mb:
        need += f" on a device of at least {min_device_mb} MB"
    free_mb = max((room.free_mb for room in rooms), default=0)
    if any(required_mb + room.spare_mb <= room.total_mb for room in able):
        comes = any(required_mb + room.spare_mb <= room.free_mb + room.pools_mb for room in able)
        return InsufficientVram(
            f"{need}: {have}. {'They are busy with it: try again.' if comes else MAKE_ROOM}",
            retry_after=5,
            required_mb=required_mb,
            free_mb=free_mb,
        )
    return ModelNotFound(
        f"{need} and fits no device of this host: {have}. "
        "A smaller or more strongly quantised variant, or a smaller max_context, would fit.",
        param="model",
        required_mb=required_mb,
        free_mb=free_mb,
    )


def _told(room: Room) -> str:
    has = (
        f"device {room.index} ({room.name}) has {room.free_mb} MB free of {room.total_mb} MB "
        f"and keeps {room.spare_mb} MB spare"
    )
    return (
        f"{has}, and the KV pools of its models can give {room.pools_mb} MB"
        if room.pools_mb
        else has
    )
