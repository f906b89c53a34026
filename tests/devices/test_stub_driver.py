"""Discovery, watching and losing cards: the real bindings against the stub driver."""

from pathlib import Path

import pytest
from devices_machine import Machine
from devices_stub import Stub

FIRST = "GPU-fa000000-0000-0000-0000-000000000000"
SECOND = "GPU-fa000000-0000-0000-0000-000000000001"


def test_both_cards_are_found_with_their_driver(stub: Stub, machine: Machine) -> None:
    stub.set(
        {
            "0.name": "NVIDIA GeForce RTX 3090",
            "0.total_mb": 24576,
            "1.name": "NVIDIA GeForce RTX 5090",
            "1.total_mb": 32607,
            "1.major": 12,
            "1.minor": 0,
        }
    )
    found = stub.run("discovery", root=str(machine.root))
    assert [
        (device["index"], device["name"], device["uuid"], device["compute_capability"])
        for device in found["devices"]
    ] == [
        (0, "NVIDIA GeForce RTX 3090", FIRST, "8.6"),
        (1, "NVIDIA GeForce RTX 5090", SECOND, "12.0"),
    ]
    assert [device["vram_total_mb"] for device in found["devices"]] == [24576, 32607]
    assert (found["driver_version"], found["cuda_version"]) == ("580.95.05", "13.0")
    assert found["cuda_unavailable_reason"] is None
    assert found["warnings"] == []


def test_nothing_heavy_is_imported_before_it_is_needed(stub: Stub) -> None:
    assert stub.run("heavy_imports") == []


def test_looking_and_watching_never_make_a_context(stub: Stub, machine: Machine) -> None:
    stub.run("health", root=str(machine.root))
    assert "cuInit" in stub.calls()
    assert "cuDevicePrimaryCtxRetain" not in stub.calls()


def test_a_context_is_taken_once_however_often_it_is_asked_for(
    stub: Stub, machine: Machine
) -> None:
    stub.run("retained_twice", root=str(machine.root))
    assert stub.calls().count("cuDevicePrimaryCtxRetain") == 1


def test_looking_closes_nvml_as_often_as_it_opens_it(stub: Stub, machine: Machine) -> None:
    stub.run("discovery", root=str(machine.root))
    assert stub.calls().count("nvmlInit") == stub.calls().count("nvmlShutdown") > 0


def test_health_shows_load_heat_and_power(stub: Stub, machine: Machine) -> None:
    stub.set({"0.used_mb": 2048, "0.utilization": 93, "0.temperature": 71, "0.milliwatts": 312500})
    assert stub.run("health", root=str(machine.root))[0] == {
        "index": 0,
        "vram_used_mb": 2048,
        "vram_free_mb": 22528,
        "utilization_percent": 93,
        "temperature_c": 71,
        "power_w": 312.5,
    }


def test_an_older_nvml_tells_the_temperature_in_its_own_way(
    stub: Stub, old_libraries: Path, machine: Machine
) -> None:
    stub.set({"0.temperature": 66})
    older = stub.with_library(old_libraries / "libnvidia-ml.so.1")
    assert older.run("health", root=str(machine.root))[0]["temperature_c"] == 66


def test_what_a_card_does_not_tell_is_null(stub: Stub, machine: Machine) -> None:
    stub.set({"0.milliwatts": -1})
    assert stub.run("health", root=str(machine.root))[0]["power_w"] is None


def test_memory_that_the_driver_keeps_is_in_use(stub: Stub, machine: Machine) -> None:
    stub.set({"0.total_mb": 24576, "0.driver_mb": 400, "0.used_mb": 0})
    health = stub.run("health", root=str(machine.root))[0]
    assert (health["vram_used_mb"], health["vram_free_mb"]) == (400, 24176)


def test_a_card_that_shares_the_machines_memory_is_read_there(stub: Stub, machine: Machine) -> None:
    stub.set({"0.integrated": 1, "0.no_memory": 3, "0.total_mb": 32768})
    assert stub.run("health", root=str(machine.root))[0]["vram_free_mb"] == 32768 - 8192


def test_a_switched_off_card_is_left_out(stub: Stub, machine: Machine) -> None:
    off = [{"uuid": FIRST, "enabled": False}]
    found = stub.run("discovery", root=str(machine.root), devices=off)
    assert [device["index"] for device in found["devices"]] == [1]


def test_with_every_card_switched_off_the_cpu_is_left(stub: Stub, machine: Machine) -> None:
    off = [{"uuid": FIRST, "enabled": False}, {"uuid": SECOND, "enabled": False}]
    found = stub.run("discovery", root=str(machine.root), devices=off)
    assert [device["kind"] for device in found["devices"]] == ["cpu"]
    assert "switched off" in found["cuda_unavailable_reason"]


def test_an_unknown_card_in_the_configuration_is_a_warning(stub: Stub, machine: Machine) -> None:
    found = stub.run("discovery", root=str(machine.root), devices=[{"uuid": "GPU-typo"}])
    assert len(found["devices"]) == 2
    assert "GPU-typo" in found["warnings"][0]
    assert FIRST in found["warnings"][0]


def test_a_reserve_as_large_as_the_card_is_a_warning(stub: Stub, machine: Machine) -> None:
    kept = [{"uuid": FIRST, "reserve_mb": 24576}]
    found = stub.run("discovery", root=str(machine.root), devices=kept)
    assert "leaves nothing" in found["warnings"][0]


def test_a_card_without_kernels_is_left_out_and_the_other_used(
    stub: Stub, machine: Machine
) -> None:
    stub.set({"0.major": 6, "0.minor": 1})
    found = stub.run("discovery", root=str(machine.root))
    assert [device["index"] for device in found["devices"]] == [1]
    assert "no kernels" in found["warnings"][0]
    assert found["cuda_unavailable_reason"] is None


def test_a_torch_without_cuda_leaves_the_cpu(stub: Stub, machine: Machine) -> None:
    torch = {"version": "2.13.0+cpu", "cuda": None}
    found = stub.run("discovery", root=str(machine.root), torch=torch)
    assert [device["name"] for device in found["devices"]] == ["AMD Ryzen 9 7950X"]
    assert "built without CUDA" in found["cuda_unavailable_reason"]


def test_a_driver_older_than_torchs_cuda_leaves_the_cpu(stub: Stub, machine: Machine) -> None:
    stub.set({"cuda_version": 12080})
    found = stub.run("discovery", root=str(machine.root))
    assert [device["kind"] for device in found["devices"]] == ["cpu"]
    assert "580 or newer" in found["cuda_unavailable_reason"]


def test_without_a_driver_there_is_one_cpu_device_and_a_reason(
    stub: Stub, machine: Machine
) -> None:
    found = stub.without("libcuda.so.1", "libnvidia-ml.so.1").run(
        "discovery", root=str(machine.root)
    )
    assert len(found["devices"]) == 1
    assert found["devices"][0] | {"name": "", "reserve_mb": 0} == {
        "index": 0,
        "name": "",
        "uuid": "cpu",
        "vram_total_mb": 32768,
        "compute_capability": None,
        "kind": "cpu",
        "reserve_mb": 0,
        "integrated": False,
    }
    assert found["cuda_unavailable_reason"] == (
        "This machine has no NVIDIA card and no NVIDIA driver."
    )


def test_a_card_without_a_driver_is_told(stub: Stub, machine: Machine) -> None:
    machine.card("0000:01:00.0")
    found = stub.without("libcuda.so.1", "libnvidia-ml.so.1").run(
        "discovery", root=str(machine.root)
    )
    assert "has an NVIDIA card but no NVIDIA driver" in found["cuda_unavailable_reason"]


def test_a_driver_without_cards_is_told(stub: Stub, machine: Machine) -> None:
    stub.set({"devices": 0})
    found = stub.run("discovery", root=str(machine.root))
    assert [device["kind"] for device in found["devices"]] == ["cpu"]
    assert "finds no card" in found["cuda_unavailable_reason"]


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"cuInit": 100}, "finds no card"),
        ({"cuInit": 100, "nvmlInit": 4}, "permission denied"),
        ({"cuInit": 100, "nvmlInit": 9}, "kernel module is not loaded"),
        ({"cuInit": 999, "nvmlInit": 18}, "reboot"),
        ({"cuInit": 46}, "CUDA_ERROR_DEVICE_UNAVAILABLE, 46"),
        ({"cuInit": 998}, "nvidia_uvm"),  # a code that the bindings do not know
    ],
)
def test_a_driver_that_refuses_is_explained(
    stub: Stub, machine: Machine, answers: dict[str, int], words: str
) -> None:
    stub.set(answers)
    found = stub.run("discovery", root=str(machine.root))
    assert [device["kind"] for device in found["devices"]] == ["cpu"]
    assert words in found["cuda_unavailable_reason"]


def test_a_driver_from_before_cuda_12_is_told(
    stub: Stub, old_libraries: Path, machine: Machine
) -> None:
    found = Stub(old_libraries, stub.scratch).run("discovery", root=str(machine.root))
    assert "older than CUDA 12" in found["cuda_unavailable_reason"]


def test_without_nvml_the_cards_are_used_and_read_through_the_context(
    stub: Stub, machine: Machine
) -> None:
    stub.set({"0.total_mb": 24576, "0.used_mb": 6000})
    bare = stub.without("libnvidia-ml.so.1")
    assert len(bare.run("discovery", root=str(machine.root))["devices"]) == 2
    assert bare.run("readings_after_retain", root=str(machine.root)) == [24576, 18576]


def test_without_nvml_what_it_would_tell_is_null_and_the_doctor_says_why(
    stub: Stub, machine: Machine
) -> None:
    bare = stub.without("libnvidia-ml.so.1")
    health = bare.run("health", root=str(machine.root))[0]
    assert {health[name] for name in ("utilization_percent", "temperature_c", "power_w")} == {None}
    assert "libnvidia-ml.so.1 was not found" in bare.run("report", root=str(machine.root))


def test_a_process_whose_memory_is_not_told_keeps_the_whole_reserve(
    stub: Stub, machine: Machine
) -> None:
    stub.set({"0.used_mb": 1000, "0.total_mb": 16000, "0.pid_mb": -1})
    kept = [{"uuid": FIRST, "reserve_mb": 4000}]
    found = stub.run("first_readings", root=str(machine.root), devices=kept)
    assert (found["vram_free_mb"], found["foreign_mb"]) == (11000, None)


def test_a_desktop_on_the_card_is_foreign_memory(stub: Stub, machine: Machine) -> None:
    stub.set({"0.used_mb": 1000, "0.desktop_mb": 700, "0.own_mb": 300})
    assert stub.run("first_readings", root=str(machine.root))["foreign_mb"] == 700


def test_a_context_that_cannot_be_made_says_what_the_driver_said(
    stub: Stub, machine: Machine
) -> None:
    stub.set({"0.retain": 700})
    message, fault = stub.run("retain_fails", root=str(machine.root))
    assert "CUDA_ERROR_ILLEGAL_ADDRESS (700)" in message
    assert fault == "sticky"


def test_a_card_that_is_full_is_not_poisoned(stub: Stub, machine: Machine) -> None:
    stub.set({"0.retain": 2})
    assert stub.run("retain_fails", root=str(machine.root))[1] == "out_of_memory"


def test_an_unclear_error_is_settled_by_asking_the_card(stub: Stub, machine: Machine) -> None:
    asked = stub.run("poisoned_meanwhile", root=str(machine.root), state=str(stub.state))
    assert asked == ["other", "sticky"]


def test_a_card_that_fell_off_the_bus_is_poisoned(stub: Stub, machine: Machine) -> None:
    fault = stub.run("readings_fail", root=str(machine.root), state=str(stub.state))[1]
    assert fault == "sticky"


def test_the_doctor_speaks_of_every_card(stub: Stub, machine: Machine) -> None:
    stub.set({"1.name": "NVIDIA GeForce GTX 1080", "1.major": 6, "1.minor": 1})
    report = stub.run("report", root=str(machine.root))
    assert "GPU 0: Fake GPU: usable" in report
    assert "GPU 1: NVIDIA GeForce GTX 1080: no kernels for this card" in report
    assert "CPU: AMD Ryzen 9 7950X: usable" in report
    assert "helexa uses 1 GPU." in report


def test_the_doctor_shows_a_switched_off_card(stub: Stub, machine: Machine) -> None:
    off = [{"uuid": SECOND, "enabled": False}]
    assert "GPU 1: Fake GPU: switched off" in stub.run(
        "report", root=str(machine.root), devices=off
    )
