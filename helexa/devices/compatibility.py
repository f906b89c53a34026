"""Whether the installed torch can use a card, and what to do where it cannot.  Pure.

Driver: a program built with CUDA X.y runs on every driver that speaks CUDA X.0 or newer (CUDA
Compatibility, "Minor Version Compatibility"); the oldest drivers below are from its table 1.
Kernels: a cubin for sm_XY runs on cards of the same major compute capability and the same or a
higher minor one; PTX for compute_XY is compiled for any card from X.Y on, by a driver that is not
older than the toolkit that wrote it, as minor version compatibility does not cover PTX.  Suffix "a"
is for that very architecture, "f" for its family (CUDA programming guide, "The CUDA platform").
"""

import re
from typing import Literal

from helexa.devices.build import TorchBuild

Verdict = Literal["usable", "driver_too_old", "no_kernels", "cpu_only_torch", "no_torch"]
Version = tuple[int, int]

OLDEST_DRIVER = ((13, "580"), (12, "525"), (11, "450"))
NO_TORCH = "Torch is not installed: pip install 'helexa[node]'."
TURING: Version = (7, 5)  # older cards: torch's CUDA 12.6 wheels are the last with kernels


def judge(torch: TorchBuild | None, driver_cuda: Version, capability: Version) -> Verdict:
    """What keeps `torch` from the card first, or "usable"."""
    if torch is None:
        return "no_torch"
    if torch.cuda is None:
        return "cpu_only_torch"
    if driver_cuda[0] < torch.cuda[0]:
        return "driver_too_old"
    may_compile_ptx = driver_cuda >= torch.cuda
    # A torch that does not tell its architectures is given the benefit of the doubt.
    if torch.architectures and not any(
        runs_on(architecture, capability, may_compile_ptx) for architecture in torch.architectures
    ):
        return "no_kernels"
    return "usable"


def runs_on(architecture: str, capability: Version, may_compile_ptx: bool) -> bool:
    found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", architecture)
    if found is None:
        return False
    kind, suffix = found[1], found[4]
    built_for = int(found[2]), int(found[3])
    if suffix == "a":
        fits = capability == built_for
    elif kind == "sm" or suffix == "f":
        fits = capability[0] == built_for[0] and capability >= built_for
    else:
        fits = capability >= built_for
    return fits and (kind == "sm" or may_compile_ptx)


def advice(
    verdict: Verdict, torch: TorchBuild | None, driver_cuda: Version, capability: Version
) -> str:
    """What to do, in a sentence; nothing to do is an empty one."""
    name = f"torch {torch.version}" if torch else "torch"
    match verdict:
        case "no_torch":
            return NO_TORCH
        case "cpu_only_torch":
            return (
                f"{name} is built without CUDA: install a build for CUDA {driver_cuda[0]} "
                "(https://pytorch.org/get-started/locally/)."
            )
        case "driver_too_old":
            return driver_advice(name, torch, driver_cuda)
        case "no_kernels":
            return kernel_advice(name, capability)
        case "usable":
            return ""


def driver_advice(name: str, torch: TorchBuild | None, driver_cuda: Version) -> str:
    wanted = torch.cuda[0] if torch and torch.cuda else 0
    driver = dict(OLDEST_DRIVER).get(wanted, "a newer one")
    return (
        f"{name} is built for CUDA {wanted}, the NVIDIA driver speaks CUDA {dotted(driver_cuda)}: "
        f"update the driver ({driver} or newer), or install a torch built for "
        f"CUDA {driver_cuda[0]} (https://pytorch.org/get-started/locally/)."
    )


def kernel_advice(name: str, capability: Version) -> str:
    way_out = (
        "torch's builds for CUDA 12.6 are the last that have them (--index-url "
        "https://download.pytorch.org/whl/cu126)."
        if capability < TURING
        else "install a newer torch (and driver), or one built for a newer CUDA."
    )
    return f"{name} has no kernels for compute capability {dotted(capability)}: {way_out}"


def dotted(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
