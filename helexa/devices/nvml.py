"""NVML, through cuda-python: a card's memory, heat, power and processes, without a CUDA context.

The only module that calls `cuda.bindings.nvml` (public since cuda-bindings 12.9.6 and 13.2).  NVML
may be called from any thread; an idle card that is only read here stays at idle power.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from attrs import frozen

R = TypeVar("R")

NOT_AVAILABLE = (1 << 64) - 1  # NVML_VALUE_NOT_AVAILABLE, as in containers and on Windows
LOST = frozenset({15, 16})  # NVML_ERROR_GPU_IS_LOST, NVML_ERROR_RESET_REQUIRED
TEMPERATURE_GPU = 0  # the sensor on the die, NVML_TEMPERATURE_GPU


class NvmlUnavailable(Exception):
    """NVML could not be started; `code` is its nvmlReturn_t, None without the library."""

    def __init__(self, code: int | None, words: str) -> None:
        super().__init__(words)
        self.code, self.words = code, words


class NvmlError(Exception):
    """NVML answered with an error; `code` is its nvmlReturn_t."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(f"NVML: {words} ({code})")
        self.code = code

    @property
    def is_lost(self) -> bool:
        """The card fell off the bus, or does nothing more before a reset."""
        return self.code in LOST


@frozen
class Process:
    pid: int
    used: int | None  # bytes, None where NVML does not tell


@frozen
class CardReadings:
    """What NVML tells of one card; None is what this card, driver or container does not tell."""

    total: int | None  # bytes
    free: int | None  # bytes
    utilization_percent: int | None
    temperature_c: int | None
    power_w: float | None
    processes: tuple[Process, ...] | None


@frozen(eq=False)
class Nvml:
    """One opened NVML; NVML counts how often it was opened, so each owner opens its own."""

    _nvml: Any

    def driver_version(self) -> str | None:
        version = self._told(self._nvml.system_get_driver_version)
        return str(version) if version else None

    def readings(self, uuid: str) -> CardReadings:
        """Raises NvmlError where the card is lost."""
        nvml, card = self._nvml, self._told(self._nvml.device_get_handle_by_uuid, uuid)
        if card is None:
            return CardReadings(None, None, None, None, None, None)
        memory = self._told(nvml.device_get_memory_info_v2, card)
        rates = self._told(nvml.device_get_utilization_rates, card)
        milliwatts = self._told(nvml.device_get_power_usage, card)
        return CardReadings(
            total=int(memory.total) if memory else None,
            free=int(memory.free) if memory else None,
            utilization_percent=int(rates.gpu) if rates else None,
            temperature_c=self._temperature(card),
            power_w=milliwatts / 1000 if milliwatts is not None else None,
            processes=self._processes(card),
        )

    def _temperature(self, card: int) -> int | None:
        told = self._told(self._nvml.device_get_temperature_v, card, TEMPERATURE_GPU)
        if told is not None:
            return int(told)
        # Older drivers lack nvmlDeviceGetTemperatureV.
        thermal = self._told(self._nvml.device_get_thermal_settings, card, TEMPERATURE_GPU)
        return int(thermal.sensor[0].current_temp) if thermal and thermal.count else None

    def _processes(self, card: int) -> tuple[Process, ...] | None:
        """Whoever holds memory of the card: computing or, as a desktop does, drawing."""
        nvml = self._nvml
        computing = self._told(nvml.device_get_compute_running_processes_v3, card)
        drawing = self._told(nvml.device_get_graphics_running_processes_v3, card)
        if computing is None:
            return None
        found = {int(process.pid): told_bytes(process) for process in drawing or ()}
        found.update({int(process.pid): told_bytes(process) for process in computing})
        return tuple(Process(pid, used) for pid, used in found.items())

    def _told(self, function: Callable[..., R], *args: object) -> R | None:
        """What NVML answers, None where it does not say.  Raises NvmlError for a lost card."""
        try:
            return function(*args)
        except RuntimeError:  # the installed driver has no such function
            return None
        except self._nvml.NvmlError as error:
            wrapped = NvmlError(int(error.status), str(error))
            if wrapped.is_lost:
                raise wrapped from error
            return None

    def close(self) -> None:
        self._told(self._nvml.shutdown)


def open_nvml() -> Nvml:
    """Raises NvmlUnavailable."""
    try:
        from cuda.bindings import nvml
    except ImportError as error:
        raise NvmlUnavailable(
            None, "cuda-python has no NVML here: install 13.2 or newer"
        ) from error
    try:
        nvml.init_v2()
    except nvml.NvmlError as error:
        raise NvmlUnavailable(int(error.status), str(error)) from error
    except RuntimeError as error:
        raise NvmlUnavailable(None, "libnvidia-ml.so.1 was not found") from error
    return Nvml(nvml)


def told_bytes(process: Any) -> int | None:
    used = int(process.used_gpu_memory)
    return None if used == NOT_AVAILABLE else used
