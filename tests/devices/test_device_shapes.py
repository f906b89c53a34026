"""The JSON of devices on the wire."""

from helexa.devices.discovery import DeviceInfo, Discovery
from helexa.devices.monitor import Readings
from helexa.devices.shapes import discovery_device, discovery_host, health_device, status_device

CARD = DeviceInfo(1, "RTX 3090", "GPU-fa", 24576, "8.6", "cuda", reserve_mb=2000)
CPU = DeviceInfo(0, "Ryzen", "cpu", 32768, None, "cpu")


def test_a_discovered_device_has_the_five_agreed_fields() -> None:
    assert discovery_device(CARD) == {
        "index": 1,
        "name": "RTX 3090",
        "uuid": "GPU-fa",
        "vram_total_mb": 24576,
        "compute_capability": "8.6",
    }
    assert discovery_device(CPU)["compute_capability"] is None


def test_a_host_without_a_driver_leaves_its_versions_out() -> None:
    found = Discovery("beast", "Debian", "6.12", None, None, (CPU,), "no card")
    assert discovery_host(found) == {
        "hostname": "beast",
        "os": "Debian",
        "kernel": "6.12",
        "devices": [discovery_device(CPU)],
        "cuda_unavailable_reason": "no card",
    }


def test_a_devices_health_has_the_six_agreed_fields() -> None:
    assert health_device(CARD, Readings(1000, 21576, 5, 40, 17.5, 300)) == {
        "index": 1,
        "vram_used_mb": 1000,
        "vram_free_mb": 21576,
        "utilization_percent": 5,
        "temperature_c": 40,
        "power_w": 17.5,
    }


def test_a_devices_status_also_tells_what_others_hold() -> None:
    status = status_device(CARD, Readings(1000, 21576, foreign_mb=300))
    assert status["vram_total_mb"] == 24576
    assert (status["kind"], status["foreign_mb"], status["reserve_mb"]) == ("cuda", 300, 2000)


def test_a_device_can_be_filled_up_to_its_reserve() -> None:
    assert (CARD.usable_mb, CPU.usable_mb) == (22576, 32768)


def test_a_device_has_the_name_that_torch_gives_it() -> None:
    assert (CARD.torch_name, CPU.torch_name) == ("cuda:1", "cpu")
