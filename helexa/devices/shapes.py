"""The JSON of devices: /discovery and /health as cortex reads them, and our own status.  Pure."""

from typing import Any

from helexa.devices.discovery import DeviceInfo, Discovery
from helexa.devices.monitor import Readings


def discovery_device(device: DeviceInfo) -> dict[str, Any]:
    return {
        "index": device.index,
        "name": device.name,
        "uuid": device.uuid,
        "vram_total_mb": device.vram_total_mb,
        "compute_capability": device.compute_capability,
    }


def discovery_host(found: Discovery) -> dict[str, Any]:
    """The part of GET /discovery that the machine decides; what is not known is left out."""
    told = {
        "hostname": found.hostname,
        "os": found.os,
        "kernel": found.kernel,
        "driver_version": found.driver_version,
        "cuda_version": found.cuda_version,
        "devices": [discovery_device(device) for device in found.devices],
        "cuda_unavailable_reason": found.cuda_unavailable_reason,
    }
    return {name: value for name, value in told.items() if value is not None}


def health_device(device: DeviceInfo, readings: Readings) -> dict[str, Any]:
    return {
        "index": device.index,
        "vram_used_mb": readings.vram_used_mb,
        "vram_free_mb": readings.vram_free_mb,
        "utilization_percent": readings.utilization_percent,
        "temperature_c": readings.temperature_c,
        "power_w": readings.power_w,
    }


def status_device(device: DeviceInfo, readings: Readings) -> dict[str, Any]:
    """All that `helexa-ctl status` shows: both of the above, and who else is on the device."""
    return {
        **discovery_device(device),
        **health_device(device, readings),
        "kind": device.kind,
        "foreign_mb": readings.foreign_mb,
        "reserve_mb": device.reserve_mb,
    }
