"""The ledger's clock: it counts the seconds that really pass, whatever is done to the wall clock.

Within one boot of the machine it follows the time since that boot (suspension included), also from
process to process; a new boot goes on from the wall clock, and never backwards.
"""

import time
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from helexa.accounts.rows import Stamp

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@frozen
class Clock:
    """`offset` is added to `boot_seconds()`."""

    boot_id: str
    offset: float
    boot_seconds: Callable[[], float]

    def seconds(self) -> float:
        return self.offset + self.boot_seconds()

    def stamp(self) -> Stamp:
        boot_seconds = self.boot_seconds()
        return Stamp(self.boot_id, boot_seconds, self.offset + boot_seconds)


def resumed(
    stamp: Stamp | None, boot_id: str, boot_seconds: Callable[[], float], unix_time: float
) -> Clock:
    """A clock that goes on from `stamp`, the last that was written."""
    now = boot_seconds()
    if stamp is None:
        seconds = unix_time
    elif stamp.boot_id == boot_id and now >= stamp.boot_seconds:
        seconds = stamp.seconds + now - stamp.boot_seconds
    else:
        seconds = max(unix_time, stamp.seconds)
    return Clock(boot_id, seconds - now, boot_seconds)


def since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def this_boot() -> str:
    """Empty where the kernel does not tell, and then two processes agree that they do not know."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""
