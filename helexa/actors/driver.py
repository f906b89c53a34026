"""What a device actor drives: something that takes orders and gives notices."""

from collections.abc import Callable, Sequence
from typing import Protocol

from helexa.engine.orders import Crashed, Failed, Measured, Notice, Order, Piece, Unloaded

Deliver = Callable[[Sequence[Notice]], None]


class Driver(Protocol):
    """Carries out orders somewhere: on a thread of its own, or as a task of Trio's."""

    def post(self, order: Order) -> None: ...
    def forget(self) -> None: ...
    async def run(self, deliver: Deliver) -> None: ...


def is_last(notice: Notice) -> bool:
    """Whether the device has forgotten the notice's uid."""
    match notice:
        case Piece():
            return notice.finish is not None
        case Failed() | Crashed() | Unloaded() | Measured():
            return True
    return False
