"""What the machine says of itself: names, and the NVIDIA hardware its kernel knows.

Every path is taken under a root, so that a test can show another machine.
"""

import os
import platform
import re
import shutil
from pathlib import Path

from attrs import frozen

ROOT = Path("/")
NVIDIA = "0x10de"
DISPLAY = "0x03"  # the PCI class of display controllers, 3D controllers among them


@frozen
class Host:
    hostname: str
    os: str
    kernel: str
    cpu_name: str


@frozen
class NvidiaHardware:
    """What the kernel knows of NVIDIA, whatever the driver's libraries say."""

    cards: int  # on the PCI bus
    kernel_module: str | None  # version of the loaded module
    refused: tuple[str, ...]  # device files that this user may not open


def describe(root: Path = ROOT) -> Host:
    return Host(
        hostname=read(root / "proc/sys/kernel/hostname").strip() or platform.node(),
        os=os_name(read(root / "etc/os-release")) or platform.system(),
        kernel=read(root / "proc/sys/kernel/osrelease").strip() or platform.release(),
        cpu_name=cpu_name(read(root / "proc/cpuinfo")) or platform.machine(),
    )


def nvidia_hardware(root: Path = ROOT) -> NvidiaHardware:
    bus = root / "sys/bus/pci/devices"
    cards = [device for device in listed(bus) if is_nvidia_card(device)]
    nodes = [node for node in listed(root / "dev") if node.name.startswith("nvidia")]
    return NvidiaHardware(
        cards=len(cards),
        kernel_module=module_version(read(root / "proc/driver/nvidia/version")),
        refused=tuple(
            str(node)
            for node in nodes
            if not node.is_dir() and not os.access(node, os.R_OK | os.W_OK)
        ),
    )


def is_nvidia_card(device: Path) -> bool:
    return read(device / "vendor").strip() == NVIDIA and read(device / "class").startswith(DISPLAY)


def os_name(os_release: str) -> str | None:
    """PRETTY_NAME of os-release(5)."""
    found = re.search(r'^PRETTY_NAME="?(.*?)"?$', os_release, re.MULTILINE)
    return found[1] if found else None


def cpu_name(cpuinfo: str) -> str | None:
    """The first processor's name; Arm boards have a "Model" or nothing."""
    found = re.search(r"^(?:model name|Model)\s*:\s*(\S.*)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else None


def cpu_flags(root: Path = ROOT) -> frozenset[str]:
    """The first processor's feature flags ("avx512_bf16"); Arm calls them features."""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", read(root / "proc/cpuinfo"), re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def multiplies_packed(root: Path = ROOT) -> bool:
    """Whether the processor has what our own kernels for packed layers are written in."""
    return platform.machine() == "x86_64" and {"avx2", "fma"} <= cpu_flags(root)


def cxx_compiler() -> str | None:
    """The C++ compiler to call."""
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")


def module_version(text: str) -> str | None:
    """The version in /proc/driver/nvidia/version, of either kind of kernel module."""
    found = re.search(r"^NVRM version:.*?\s(\d+(?:\.\d+)+)\s", text, re.MULTILINE)
    return found[1] if found else None


def read(path: Path) -> str:
    """A small file, or nothing where it is missing or closed to us."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
