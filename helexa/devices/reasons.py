"""Why no CUDA card can be used, in one sentence that says what to do.  Pure."""

from attrs import frozen

from helexa.devices.cuda import CudaUnavailable
from helexa.devices.host import NvidiaHardware

NVML_NO_PERMISSION, NVML_NOT_LOADED, NVML_BLOCKED, NVML_MISMATCH = 4, 9, 17, 18

REBOOT = (
    "The NVIDIA driver was updated while its old kernel module is still loaded: "
    "reboot this machine."
)
NOT_LOADED = (
    "The NVIDIA driver is installed but its kernel module is not loaded: try "
    "`sudo modprobe nvidia`; after a kernel update reinstall the driver, and with Secure Boot "
    "enrol its signing key."
)
NO_BINDINGS = (
    "The Python package cuda-python is not installed, so no NVIDIA card can be found: "
    "pip install 'helexa[node]'."
)
TOO_OLD = (
    "The NVIDIA driver is older than CUDA 12: install driver 525 or newer "
    "(580 or newer for a torch built for CUDA 13)."
)
STUB = (
    "The libcuda.so.1 found first is the CUDA toolkit's stub, not the driver: take the toolkit's "
    "`stubs` folder out of LD_LIBRARY_PATH."
)
NOT_READY = (
    "The NVIDIA driver says that the system is not ready: on machines with NVSwitch start "
    "nvidia-fabricmanager; right after boot try again in a minute."
)
NO_FORWARD_COMPATIBILITY = (
    "A CUDA forward-compatibility library is in use that this card does not support: remove the "
    "package cuda-compat, or update the NVIDIA driver."
)
UNKNOWN = (
    "The NVIDIA driver failed for a reason it does not know; most often nvidia_uvm is missing or "
    "broke while the machine slept: `sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm`, "
    "or reboot."
)
NO_CARD = (
    "The NVIDIA driver works but finds no card: see whether `nvidia-smi` lists it, and whether it "
    "is handed to a virtual machine (vfio-pci)."
)

BY_CODE = (
    (34, STUB),  # CUDA_ERROR_STUB_LIBRARY
    (802, NOT_READY),  # CUDA_ERROR_SYSTEM_NOT_READY
    (803, REBOOT),  # CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
    (804, NO_FORWARD_COMPATIBILITY),  # CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE
    (999, UNKNOWN),  # CUDA_ERROR_UNKNOWN
)
NO_DEVICE = (100, 101)  # CUDA_ERROR_NO_DEVICE, CUDA_ERROR_INVALID_DEVICE


@frozen
class Circumstances:
    """What else is known when the driver has refused."""

    hardware: NvidiaHardware
    nvml_code: int | None = None  # what NVML answered, None where it started or is missing
    visible_devices: str | None = None  # CUDA_VISIBLE_DEVICES


def why(refusal: CudaUnavailable, seen: Circumstances) -> str:
    """One sentence for a person who owns the machine."""
    match refusal.problem:
        case "no_bindings":
            return NO_BINDINGS
        case "no_library":
            return no_library(seen.hardware)
        case "too_old":
            return TOO_OLD
    return refused(refusal, seen)


def no_library(hardware: NvidiaHardware) -> str:
    if hardware.kernel_module:
        return (
            f"The NVIDIA kernel module {hardware.kernel_module} is loaded but libcuda.so.1 is not "
            "found: install the driver's CUDA library (Debian: libcuda1, Fedora: "
            "xorg-x11-drv-nvidia-cuda); a container needs the NVIDIA container toolkit and "
            "`--gpus all`."
        )
    if hardware.cards:
        return (
            "This machine has an NVIDIA card but no NVIDIA driver (libcuda.so.1 is not found): "
            "install NVIDIA's driver, version 525 or newer, and reboot."
        )
    return "This machine has no NVIDIA card and no NVIDIA driver."


def refused(refusal: CudaUnavailable, seen: Circumstances) -> str:
    if seen.nvml_code == NVML_MISMATCH:
        return REBOOT
    if seen.hardware.refused or seen.nvml_code in (NVML_NO_PERMISSION, NVML_BLOCKED):
        return no_permission(seen.hardware.refused)
    if seen.nvml_code == NVML_NOT_LOADED:
        return NOT_LOADED
    if refusal.code in NO_DEVICE:
        return no_card(seen.visible_devices)
    return dict(BY_CODE).get(refusal.code) or (
        f"The NVIDIA driver refuses to start ({refusal.name}, {refusal.code}): `nvidia-smi` and "
        "`sudo dmesg | grep NVRM` may say more."
    )


def no_card(visible_devices: str | None) -> str:
    if visible_devices is None:
        return NO_CARD
    return (
        f"CUDA_VISIBLE_DEVICES={visible_devices!r} leaves no card to this process: unset it, "
        "or keep cards for other programs with [[node.devices]] instead."
    )


def no_permission(refused_nodes: tuple[str, ...]) -> str:
    files = ", ".join(refused_nodes) or "the files /dev/nvidia*"
    return (
        f"This user may not open {files} (permission denied): add the user to the files' group "
        "(often video or render); a systemd unit needs DeviceAllow= for them."
    )
