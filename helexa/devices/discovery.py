"""What this node has: its host, its drivers and the devices that helexa may use, found once."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from attrs import frozen

from helexa.config.schema import Node, NodeDevice
from helexa.devices import compatibility, memory
from helexa.devices.build import TorchBuild, installed_torch
from helexa.devices.compatibility import dotted
from helexa.devices.cuda import Card
from helexa.devices.host import ROOT
from helexa.devices.survey import Survey, survey

CPU = "cpu"  # the CPU device's uuid


@frozen
class DeviceInfo:
    """One device that models can be loaded onto; `index` is torch's "cuda:N", 0 for the CPU."""

    index: int
    name: str
    uuid: str
    vram_total_mb: int
    compute_capability: str | None  # "8.6"
    kind: Literal["cuda", "cpu"]
    reserve_mb: int = 0  # kept for other programs
    integrated: bool = False  # a card that shares the machine's memory

    @property
    def usable_mb(self) -> int:
        """What helexa may fill at most."""
        return max(0, self.vram_total_mb - self.reserve_mb)

    @property
    def torch_name(self) -> str:
        return f"cuda:{self.index}" if self.kind == "cuda" else "cpu"


@frozen
class Discovery:
    """`warnings` are sentences for the log and for `helexa doctor`."""

    hostname: str
    os: str
    kernel: str
    driver_version: str | None
    cuda_version: str | None
    devices: tuple[DeviceInfo, ...]  # never empty: the CPU where no card can be used
    cuda_unavailable_reason: str | None
    warnings: tuple[str, ...] = ()


def discover(
    settings: Node,
    *,
    root: Path = ROOT,
    torch: Callable[[], TorchBuild | None] = installed_torch,
) -> Discovery:
    """Look at the machine.  Blocks for as long as the drivers and importing torch take.

    `torch` is asked only where there is a card that it could use.  Raises HelexaError where the
    machine's memory cannot be told.
    """
    found = survey(root)
    wanted = [card for card in found.cards if setting(settings, card.uuid).enabled]
    devices, left_out = usable(wanted, found.cuda_version, torch, settings)
    reason = None if devices else why_no_card(found, left_out)
    return Discovery(
        hostname=found.host.hostname,
        os=found.host.os,
        kernel=found.host.kernel,
        driver_version=found.driver_version,
        cuda_version=dotted(found.cuda_version) if found.cuda_version else None,
        devices=devices or (cpu_device(settings, found.host.cpu_name, root),),
        cuda_unavailable_reason=reason,
        warnings=(*unknown_devices(settings, found.cards), *full_reserves(devices), *left_out),
    )


def usable(
    cards: list[Card],
    driver_cuda: tuple[int, int] | None,
    torch: Callable[[], TorchBuild | None],
    settings: Node,
) -> tuple[tuple[DeviceInfo, ...], tuple[str, ...]]:
    """The cards that torch can use, and a sentence for each that it cannot."""
    if not cards or driver_cuda is None:
        return (), ()
    build = torch()
    devices, left_out = [], []
    for card in cards:
        verdict = compatibility.judge(build, driver_cuda, card.capability)
        if verdict == "usable":
            devices.append(cuda_device(settings, card))
        else:
            advice = compatibility.advice(verdict, build, driver_cuda, card.capability)
            left_out.append(f"GPU {card.index} ({card.name}) is not used. {advice}")
    return tuple(devices), tuple(left_out)


def cuda_device(settings: Node, card: Card) -> DeviceInfo:
    return DeviceInfo(
        index=card.index,
        name=card.name,
        uuid=card.uuid,
        vram_total_mb=card.vram_total_mb,
        compute_capability=dotted(card.capability),
        kind="cuda",
        reserve_mb=setting(settings, card.uuid).reserve_mb,
        integrated=card.integrated,
    )


def cpu_device(settings: Node, name: str, root: Path = ROOT) -> DeviceInfo:
    return DeviceInfo(
        index=0,
        name=name,
        uuid=CPU,
        vram_total_mb=settings.memory_mb or memory.measure(root).total_mb,
        compute_capability=None,
        kind="cpu",
        reserve_mb=setting(settings, CPU).reserve_mb,
    )


def setting(settings: Node, uuid: str) -> NodeDevice:
    """What the configuration says of a device; its defaults where it says nothing."""
    for device in settings.devices:
        if device.uuid.lower() == uuid.lower():
            return device
    return NodeDevice(uuid)


def why_no_card(found: Survey, left_out: tuple[str, ...]) -> str:
    if found.problem:
        return found.problem
    if left_out:
        return " ".join(left_out)
    return "Every card is switched off in the configuration ([[node.devices]] enabled = false)."


def unknown_devices(settings: Node, cards: tuple[Card, ...]) -> tuple[str, ...]:
    known = {CPU, *(card.uuid.lower() for card in cards)}
    listed = ", ".join(sorted(card.uuid for card in cards)) or "none"
    return tuple(
        f"[[node.devices]] names {device.uuid!r}, which this machine lacks (its cards: {listed})."
        for device in settings.devices
        if device.uuid.lower() not in known
    )


def full_reserves(devices: tuple[DeviceInfo, ...]) -> tuple[str, ...]:
    return tuple(
        f"[[node.devices]] reserve_mb = {device.reserve_mb} leaves nothing of {device.uuid}, which "
        f"has {device.vram_total_mb} MB."
        for device in devices
        if not device.usable_mb
    )
