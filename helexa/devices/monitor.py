"""One device from its first load to the end of the process: its readings and its hold on memory.

`CpuDevice` and `CudaDevice` obey one Protocol, and one test suite.
"""

import ctypes
import gc
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from attrs import define, field, frozen

from helexa.config.schema import Node
from helexa.devices import memory
from helexa.devices.cuda import CudaError, PrimaryContext
from helexa.devices.discovery import DeviceInfo
from helexa.devices.faults import Fault, classify
from helexa.devices.host import ROOT
from helexa.devices.nvml import CardReadings, Nvml, NvmlUnavailable, Process, open_nvml

NOTHING_TOLD = CardReadings(None, None, None, None, None, None)


@frozen
class Readings:
    """What a device tells now; MiB.  None is what it does not tell.

    `vram_used_mb` is everybody's, `vram_free_mb` what helexa may still take: the reserve is already
    out of it.  `foreign_mb` is what other processes hold; nothing plans on getting it back.
    """

    vram_used_mb: int
    vram_free_mb: int
    utilization_percent: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    foreign_mb: int | None = None


class Device(Protocol):
    """What the device's thread holds.  Only `readings` may be called from other threads.

    Nothing lets go of a device but the end of the process: torch keeps a context that it has used.
    """

    @property
    def info(self) -> DeviceInfo: ...

    def readings(self) -> Readings:
        """Raises CudaError or NvmlError where the device is lost; ask `diagnose` about it."""
        ...

    def retain(self) -> None:
        """Take the device, before its first load; again does no harm.

        Raises CudaUnavailable or CudaError.
        """
        ...

    def diagnose(self, error: BaseException) -> Fault:
        """What an error from work on this device means; in doubt the device is asked."""
        ...

    def trim(self) -> None:
        """Give freed memory back to the device, after an unload.  Raises torch's errors."""
        ...


def open_device(info: DeviceInfo, settings: Node, *, root: Path = ROOT) -> Device:
    """The device of a discovery, not yet retained."""
    if info.kind == "cpu":
        return CpuDevice(info, settings.memory_mb, root)
    return CudaDevice(info, root)


def give_back_freed() -> None:
    """glibc keeps the host's freed memory for itself until it is asked; other C libraries do not."""
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if give_back is not None:
        give_back(0)


@frozen(eq=False)
class CpuDevice:
    """The machine's own memory and processor."""

    info: DeviceInfo
    memory_mb: int = 0  # bound on what this process may take, 0 = all there is
    root: Path = ROOT

    def readings(self) -> Readings:
        """Raises HelexaError where the system does not tell."""
        there = memory.measure(self.root)
        used = there.total_mb - there.free_mb
        foreign = max(0, used - there.own_mb)
        if not self.memory_mb:
            return Readings(
                vram_used_mb=used,
                vram_free_mb=free_for_us(there.free_mb, self.info.reserve_mb, foreign),
                foreign_mb=foreign,
            )
        left = max(0, self.memory_mb - there.own_mb - self.info.reserve_mb)
        return Readings(
            vram_used_mb=min(there.own_mb, self.memory_mb),
            vram_free_mb=min(left, there.free_mb),
            foreign_mb=foreign,
        )

    def retain(self) -> None:
        """Nothing to take."""

    def diagnose(self, error: BaseException) -> Fault:
        return classify(error)

    def trim(self) -> None:
        gc.collect()
        give_back_freed()


@define(eq=False)
class CudaDevice:
    """One card: watched through NVML, taken through its primary context."""

    info: DeviceInfo
    root: Path = ROOT
    _nvml: Nvml | None = field(init=False)
    _context: PrimaryContext = field(init=False)

    @_nvml.default
    def _open_nvml(self) -> Nvml | None:
        try:
            return open_nvml()
        except NvmlUnavailable:
            return None

    @_context.default
    def _make_context(self) -> PrimaryContext:
        return PrimaryContext(self.info.index)

    def readings(self) -> Readings:
        told = self._nvml.readings(self.info.uuid) if self._nvml else NOTHING_TOLD
        free_mb = self._free_mb(told)
        foreign = foreign_mb(told.processes, os.getpid())
        return Readings(
            vram_used_mb=max(0, self.info.vram_total_mb - free_mb),
            vram_free_mb=free_for_us(free_mb, self.info.reserve_mb, foreign),
            utilization_percent=told.utilization_percent,
            temperature_c=told.temperature_c,
            power_w=told.power_w,
            foreign_mb=foreign,
        )

    def _free_mb(self, told: CardReadings) -> int:
        """From NVML; without it from our context; before there is one, the card counts as empty."""
        if self.info.integrated:
            return min(self.info.vram_total_mb, memory.measure(self.root).free_mb)
        if told.free is not None:
            return told.free >> 20
        seen = self._context.memory()
        return seen[0] >> 20 if seen else self.info.vram_total_mb

    def retain(self) -> None:
        self._context.retain()

    def diagnose(self, error: BaseException) -> Fault:
        """A poisoned context answers any call with its first error, so an empty call tells."""
        fault = classify(error)
        if fault == "sticky":
            return fault
        try:
            self._context.synchronize()
        except CudaError as answer:
            return "sticky" if classify(answer) == "sticky" else fault
        return fault

    def trim(self) -> None:
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.cuda.empty_cache()


def free_for_us(free_mb: int, reserve_mb: int, foreign_mb: int | None) -> int:
    """What is free, less what of the reserve its owners have not taken yet.

    Where nobody tells who holds what, the whole reserve is kept free.
    """
    return max(0, free_mb - max(0, reserve_mb - (foreign_mb or 0)))


def foreign_mb(processes: Iterable[Process] | None, own_pid: int) -> int | None:
    """What other processes hold, None where that cannot be told."""
    if processes is None:
        return None
    others = [process.used for process in processes if process.pid != own_pid]
    known = [used for used in others if used is not None]
    return sum(known) >> 20 if len(known) == len(others) else None
