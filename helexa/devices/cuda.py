"""The CUDA driver, through cuda-python: which cards there are, and a card's primary context.

The only module that calls `cuda.bindings.driver`.  Looking at cards creates no context; a context
is made by `PrimaryContext.retain` alone and belongs to the thread that called it.
"""

import os
from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen

NEWEST_UNKNOWN = 999  # CUDA_ERROR_UNKNOWN, for codes that the installed bindings do not know


@frozen
class Card:
    """A card as the driver counts them; `index` is torch's "cuda:N"."""

    index: int
    name: str
    uuid: str
    vram_total_mb: int
    capability: tuple[int, int]
    integrated: bool  # shares the machine's memory, as Jetson and GB10 do


class CudaUnavailable(Exception):
    """The driver could not be asked; `problem` is a key of `helexa.devices.reasons`."""

    def __init__(self, problem: str, code: int = 0, name: str = "") -> None:
        super().__init__(f"{problem} {name} {code}")
        self.problem, self.code, self.name = problem, code, name


class CudaError(Exception):
    """The driver answered with an error; `code` is its CUresult."""

    def __init__(self, call: str, code: int, name: str) -> None:
        super().__init__(f"{call}: {name} ({code})")
        self.code, self.name = code, name


def bindings() -> Any:
    """`cuda.bindings.driver`, imported only where a driver is looked for."""
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise CudaUnavailable("no_bindings") from error
    return driver


def call(function: Callable[..., Any], *args: Any) -> Any:
    """Call the driver; its answer without the status, or CudaError."""
    name = getattr(function, "__name__", "cuda")
    try:
        status, *values = function(*args)
    except ValueError as error:  # a CUresult newer than the bindings
        raise CudaError(name, NEWEST_UNKNOWN, str(error)) from error
    if status != 0:
        raise CudaError(name, int(status), status.name)
    return values[0] if len(values) == 1 else tuple(values)


def start() -> Any:
    """The driver, initialised.  Raises CudaUnavailable where that cannot be.

    cuInit opens the device files but makes no context and takes no memory of a card.
    """
    driver = bindings()
    try:
        call(driver.cuInit, 0)
    except CudaError as error:
        raise CudaUnavailable("refused", error.code, error.name) from error
    except RuntimeError as error:
        # The loader's errors have no stable type across releases of cuda-python, so ask by hand
        # which of the two it was: no library, or one without cuGetProcAddress_v2 (CUDA 12).
        raise CudaUnavailable("too_old" if is_library_found() else "no_library") from error
    return driver


def is_library_found() -> bool:
    from cuda.pathfinder import load_nvidia_dynamic_lib

    try:
        load_nvidia_dynamic_lib("cuda")
    except RuntimeError:
        return False
    return True


def cuda_version() -> tuple[int, int]:
    """The newest CUDA that the driver speaks, as (major, minor)."""
    number = call(bindings().cuDriverGetVersion)
    return number // 1000, number % 1000 // 10


def cards() -> tuple[Card, ...]:
    """Every card that this process may see.  Raises CudaUnavailable or CudaError."""
    driver = start()
    return tuple(card(driver, index) for index in range(call(driver.cuDeviceGetCount)))


def card(driver: Any, index: int) -> Card:
    device = call(driver.cuDeviceGet, index)
    attribute = driver.CUdevice_attribute

    def asked(name: str) -> int:
        key = getattr(attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(call(driver.cuDeviceGetAttribute, key, device))

    return Card(
        index=index,
        name=call(driver.cuDeviceGetName, 128, device).split(b"\0")[0].decode(errors="replace"),
        uuid=uuid_text(call(driver.cuDeviceGetUuid, device).bytes),
        vram_total_mb=call(driver.cuDeviceTotalMem, device) >> 20,
        capability=(asked("COMPUTE_CAPABILITY_MAJOR"), asked("COMPUTE_CAPABILITY_MINOR")),
        integrated=bool(asked("INTEGRATED")),
    )


def uuid_text(octets: bytes) -> str:
    """As `nvidia-smi -L` prints it: GPU-8-4-4-4-12."""
    digits = octets.hex()
    parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:32])
    return "GPU-" + "-".join(parts)


def visible_devices() -> str | None:
    """CUDA_VISIBLE_DEVICES, None where it is not set."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")


@define(eq=False)
class PrimaryContext:
    """Our hold on one card's primary context, the same context that torch uses.

    `retain` and `synchronize` belong to the device's thread; `memory` may be called from any.  Torch
    holds the context for itself once it used the card, so only the end of the process gives the
    context's own memory back.
    """

    index: int
    _context: Any = field(default=None, init=False)

    def retain(self) -> None:
        """Make the context, unless we hold it, and make it current on this thread.

        Raises CudaUnavailable or CudaError.
        """
        driver = start()
        if self._context is None:
            device = call(driver.cuDeviceGet, self.index)
            self._context = call(driver.cuDevicePrimaryCtxRetain, device)
        call(driver.cuCtxSetCurrent, self._context)

    def synchronize(self) -> None:
        """Wait for the card.  Raises CudaError, also for what went wrong on it before."""
        if self._context is not None:
            call(bindings().cuCtxSynchronize)

    def memory(self) -> tuple[int, int] | None:
        """(free, total) bytes as the context sees them, None without one.  Raises CudaError."""
        if self._context is None:
            return None
        driver = bindings()
        call(driver.cuCtxPushCurrent, self._context)
        try:
            free, total = call(driver.cuMemGetInfo)
        finally:
            call(driver.cuCtxPopCurrent)
        return free, total
