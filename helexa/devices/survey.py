"""Everything the drivers and the kernel tell, before any configuration is applied to it."""

from pathlib import Path

from attrs import evolve, frozen

from helexa.devices import cuda, host
from helexa.devices.cuda import Card, CudaError, CudaUnavailable
from helexa.devices.host import ROOT, Host, NvidiaHardware
from helexa.devices.nvml import Nvml, NvmlError, NvmlUnavailable, open_nvml
from helexa.devices.reasons import Circumstances, why


@frozen
class Survey:
    host: Host
    driver_version: str | None  # "580.95.05"
    cuda_version: tuple[int, int] | None  # the newest that the driver speaks
    cards: tuple[Card, ...]
    problem: str | None  # why there is no card, in words
    nvml_problem: str | None  # why the cards cannot be watched, in words


def survey(root: Path = ROOT) -> Survey:
    """Ask the machine.  Makes no CUDA context."""
    hardware = host.nvidia_hardware(root)
    nvml = try_nvml()
    cards, problem = ask_driver(hardware, nvml)
    driver_version = None
    if isinstance(nvml, Nvml):
        driver_version = nvml.driver_version()
        cards = tuple(as_nvml_counts(card, nvml) for card in cards)
        nvml.close()
    return Survey(
        host=host.describe(root),
        driver_version=driver_version or hardware.kernel_module,
        cuda_version=ask_cuda_version(),
        cards=cards,
        problem=problem,
        nvml_problem=not_watched(nvml) if cards and isinstance(nvml, NvmlUnavailable) else None,
    )


def try_nvml() -> Nvml | NvmlUnavailable:
    try:
        return open_nvml()
    except NvmlUnavailable as error:
        return error


def ask_driver(
    hardware: NvidiaHardware, nvml: Nvml | NvmlUnavailable
) -> tuple[tuple[Card, ...], str | None]:
    """The cards, or why there are none."""
    try:
        cards = cuda.cards()
        refusal = None if cards else CudaUnavailable("refused", 100, "CUDA_ERROR_NO_DEVICE")
    except CudaUnavailable as error:
        cards, refusal = (), error
    except CudaError as error:
        cards, refusal = (), CudaUnavailable("refused", error.code, error.name)
    if refusal is None:
        return cards, None
    nvml_code = nvml.code if isinstance(nvml, NvmlUnavailable) else None
    return cards, why(refusal, Circumstances(hardware, nvml_code, cuda.visible_devices()))


def ask_cuda_version() -> tuple[int, int] | None:
    """Also known where the driver finds no card; RuntimeError is the bindings' "no library"."""
    try:
        return cuda.cuda_version()
    except (CudaUnavailable, CudaError, RuntimeError):
        return None


def as_nvml_counts(card: Card, nvml: Nvml) -> Card:
    """The driver's total leaves out what it keeps for itself, so used and free would not add up."""
    try:
        total = nvml.readings(card.uuid).total
    except NvmlError:
        return card
    return evolve(card, vram_total_mb=total >> 20) if total else card


def not_watched(refusal: NvmlUnavailable) -> str:
    return (
        "NVML cannot be used, so temperature, power and other programs' memory are not shown "
        f"({refusal.words}); in a container set NVIDIA_DRIVER_CAPABILITIES=compute,utility."
    )
