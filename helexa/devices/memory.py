"""The memory there is for the CPU device: the least of the machine and of every cgroup around us.

A page cache that the kernel would give up counts as free, as in /proc/meminfo's MemAvailable: a
model file that was just read must not look like memory in use.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import frozen

from helexa.devices.host import ROOT, read
from helexa.errors import HelexaError

UNLIMITED = 1 << 60  # cgroup v1 writes a number near 2**63 for "no limit"
CACHE_V2 = ("active_file", "inactive_file", "slab_reclaimable")
CACHE_V1 = ("total_active_file", "total_inactive_file")


@frozen
class HostMemory:
    """In MiB; `own_mb` is what this process alone holds (anonymous and shared pages)."""

    total_mb: int
    free_mb: int
    own_mb: int


@frozen
class Level:
    """One bound on memory and what is left under it, in bytes."""

    limit: int
    free: int


def measure(root: Path = ROOT) -> HostMemory:
    """What this process could have and can have now.

    Raises HelexaError where the system does not say (nothing but Linux has /proc/meminfo).
    """
    ram = machine(fields(read(root / "proc/meminfo")))
    if ram is None:
        raise HelexaError(
            "/proc/meminfo does not say how much memory there is; a helexa node runs on Linux."
        )
    levels = [ram, *cgroups(root)]
    status = fields(read(root / "proc/self/status"))
    return HostMemory(
        total_mb=min(level.limit for level in levels) >> 20,
        free_mb=max(0, min(level.free for level in levels)) >> 20,
        own_mb=(status.get("RssAnon", 0) + status.get("RssShmem", 0)) >> 10,
    )


def machine(meminfo: Mapping[str, int]) -> Level | None:
    if "MemTotal" not in meminfo:
        return None
    total = meminfo["MemTotal"]
    return Level(total << 10, meminfo.get("MemAvailable", total) << 10)


def cgroups(root: Path) -> Iterator[Level]:
    """Every cgroup from ours outwards that sets a limit, of version 2 and of version 1."""
    v2, v1 = paths(read(root / "proc/self/cgroup"))
    if v2 is not None:
        for folder in outwards(root / "sys/fs/cgroup", v2):
            yield from level_v2(folder)
    if v1 is not None:
        for folder in outwards(root / "sys/fs/cgroup/memory", v1):
            yield from level_v1(folder)


def paths(text: str) -> tuple[str | None, str | None]:
    """Our path in the version 2 hierarchy and in version 1's memory hierarchy (cgroups(7))."""
    v2 = v1 = None
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            v2 = path
        elif "memory" in controllers.split(","):
            v1 = path
    return v2, v1


def outwards(mount: Path, path: str) -> Iterator[Path]:
    """The folders from ours to the mount.  In a container the path may lead nowhere below it."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for depth in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:depth])


def level_v2(folder: Path) -> Iterator[Level]:
    """memory.high throttles long before memory.max kills, so it bounds us too."""
    limits = [bound(read(folder / name)) for name in ("memory.max", "memory.high")]
    yield from level(folder, limits, "memory.current", CACHE_V2)


def level_v1(folder: Path) -> Iterator[Level]:
    limits = [bound(read(folder / "memory.limit_in_bytes"))]
    yield from level(folder, limits, "memory.usage_in_bytes", CACHE_V1)


def level(
    folder: Path, limits: list[int | None], current: str, cache: tuple[str, ...]
) -> Iterator[Level]:
    set_limits = [limit for limit in limits if limit is not None]
    used = bound(read(folder / current))
    if set_limits and used is not None:
        stat = fields(read(folder / "memory.stat"))
        reclaimable = sum(stat.get(name, 0) for name in cache)
        limit = min(set_limits)
        yield Level(limit, limit - max(0, used - reclaimable))


def bound(text: str) -> int | None:
    """A number of bytes; None for "max", for version 1's way of saying it, or for no file."""
    value = text.strip()
    return int(value) if value.isdecimal() and int(value) < UNLIMITED else None


def fields(text: str) -> dict[str, int]:
    """Lines of "name value" or "Name: value kB", whatever else is on them."""
    return {name: int(value) for name, value in re.findall(r"^(\w+):?\s+(\d+)", text, re.MULTILINE)}
