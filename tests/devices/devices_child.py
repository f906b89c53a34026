"""What the tests of the stub driver run in a process of its own, as libraries stay once loaded.

python devices_child.py FUNCTION ARGUMENTS prints what the function returns; both are JSON.
"""

import json
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import devices_contract as contract
from attrs import asdict
from devices_machine import Machine
from devices_stub import Stub

from helexa.config.schema import Node, NodeDevice
from helexa.devices import cuda, doctor
from helexa.devices.build import TorchBuild
from helexa.devices.discovery import DeviceInfo, Discovery, discover
from helexa.devices.monitor import Device, open_device
from helexa.devices.shapes import health_device

CUDA_TORCH = TorchBuild("2.13.0+cu130", (13, 0), ("sm_75", "sm_86", "sm_120"))


def heavy_imports() -> list[str]:
    """What importing every module of helexa.devices brought along."""
    return [name for name in ("torch", "cuda", "numpy", "trio") if name in sys.modules]


def node(devices: list[dict[str, Any]]) -> Node:
    return Node(devices=tuple(NodeDevice(**device) for device in devices))


def build(torch: dict[str, Any] | None) -> TorchBuild:
    if torch is None:
        return CUDA_TORCH
    cuda = tuple(torch["cuda"]) if torch["cuda"] else None
    return TorchBuild(torch["version"], cuda, tuple(torch.get("architectures", ())))


def found(
    root: str, devices: list[dict[str, Any]] | None = None, torch: dict[str, Any] | None = None
) -> Discovery:
    return discover(node(devices or []), root=Path(root), torch=lambda: build(torch))


def discovery(**arguments: Any) -> dict[str, Any]:
    return asdict(found(**arguments))


def report(root: str, devices: list[dict[str, Any]] | None = None) -> str:
    findings = doctor.examine(node(devices or []), root=Path(root), torch=lambda: CUDA_TORCH)
    return doctor.render(findings)


def health(root: str) -> list[dict[str, Any]]:
    """Every device read once, never taken."""
    info = found(root).devices
    return [health_device(device, opened(device, root).readings()) for device in info]


def first_readings(root: str, devices: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return asdict(opened(found(root, devices).devices[0], root).readings())


def opened(info: DeviceInfo, root: str) -> Device:
    return open_device(info, Node(), root=Path(root))


def readings_after_retain(root: str) -> list[int]:
    """Free memory before and while the first card is taken."""
    device = opened(found(root).devices[0], root)
    before = device.readings().vram_free_mb
    device.retain()
    while_taken = device.readings().vram_free_mb
    return [before, while_taken]


def retained_twice(root: str) -> None:
    device = opened(found(root).devices[0], root)
    device.retain()
    device.retain()


def retain_fails(root: str) -> list[str]:
    device = opened(found(root).devices[0], root)
    try:
        device.retain()
    except cuda.CudaError as error:
        return [str(error), device.diagnose(error)]
    raise AssertionError("the stub was told to refuse")


def poisoned_meanwhile(root: str, state: str) -> list[str]:
    """The diagnosis of one unclear error, before and after the card is poisoned."""
    device = opened(found(root).devices[0], root)
    device.retain()
    unclear = RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasGemmEx")
    before = device.diagnose(unclear)
    Path(state).write_text("0.synchronize 719\n")
    after = device.diagnose(unclear)
    return [before, after]


def readings_fail(root: str, state: str) -> list[str]:
    device = opened(found(root).devices[0], root)
    Path(state).write_text("0.lost 15\n")
    try:
        device.readings()
    except Exception as error:
        return [str(error), device.diagnose(error)]
    raise AssertionError("the stub was told to lose the card")


class CpuWorld:
    """The CPU device of a machine made of files."""

    def __init__(self, scratch: Path) -> None:
        self._machine = Machine(scratch)
        self._total_mb = 0

    def open(self, reserve_mb: int = 0) -> Device:
        info = DeviceInfo(0, "CPU", "cpu", self._total_mb, None, "cpu", reserve_mb)
        return open_device(info, Node(), root=self._machine.root)

    def set(self, *, total_mb: int, used_mb: int, own_mb: int = 0) -> None:
        self._total_mb = total_mb
        self._machine.memory(total_mb=total_mb, used_mb=used_mb, own_mb=own_mb)


class StubWorld:
    """The first card of the stub driver."""

    def __init__(self, scratch: Path, stub: Stub) -> None:
        self._machine = Machine(scratch)
        self._stub = stub
        self._stub.set({})

    def open(self, reserve_mb: int = 0) -> Device:
        info = found(str(self._machine.root)).devices[0]
        kept = [{"uuid": info.uuid, "reserve_mb": reserve_mb}]
        return opened(found(str(self._machine.root), kept).devices[0], str(self._machine.root))

    def set(self, *, total_mb: int, used_mb: int, own_mb: int = 0) -> None:
        self._stub.set(
            {
                "0.total_mb": total_mb,
                "0.used_mb": used_mb,
                "0.own_mb": own_mb,
                "0.pid_mb": used_mb - own_mb,
            }
        )


def contract_cases(kind: str, scratch: str) -> dict[str, str | None]:
    """Every case of the contract on one kind of device: None, or how it failed."""

    def run(case: Callable[[contract.World], Any], folder: Path) -> str | None:
        stub = Stub(Path(), Path(scratch))
        try:
            case(CpuWorld(folder) if kind == "cpu" else StubWorld(folder, stub))
        except Exception:
            return traceback.format_exc()
        return None

    with tempfile.TemporaryDirectory() as folder:
        return {name: run(case, Path(folder, name)) for name, case in contract.CASES.items()}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](**json.loads(sys.argv[2]))))
