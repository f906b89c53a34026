"""How much of the machine other programs took meanwhile: a bench beside them measures them too."""

import os
from pathlib import Path

from attrs import define, field

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
IDLE = (3, 4)  # idle and iowait, in the first line of /proc/stat


@define
class Meter:
    """Counts from when it is made.  `pids` are our own processes beside this one."""

    pids: tuple[int, ...]
    _all: float = field(init=False)
    _ours: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._all, self._ours = all_cpu_seconds(), self._our_cpu_seconds()

    def others(self) -> float:
        """Their part of the CPU time that was used, 0 to 1."""
        used, ours = all_cpu_seconds() - self._all, self._our_cpu_seconds() - self._ours
        return min(1.0, max(0.0, 1 - ours / used)) if used else 0.0

    def _our_cpu_seconds(self) -> float:
        return sum(map(cpu_seconds, (os.getpid(), *self.pids)))


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, also of one that ended and was not waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def all_cpu_seconds() -> float:
    """That all processors spent on anything but waiting; guests' time is in the others' already."""
    numbers = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return sum(n for i, n in enumerate(numbers) if i not in IDLE) / TICKS_PER_SECOND
