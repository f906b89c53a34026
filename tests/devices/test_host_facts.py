"""Names and NVIDIA hardware, on machines made of files."""

import os
from pathlib import Path

import pytest
from devices_machine import Machine

from helexa.devices import host


def test_a_host_is_named_from_its_files(machine: Machine) -> None:
    assert host.describe(machine.root) == host.Host(
        hostname="beast",
        os="Debian GNU/Linux 13 (trixie)",
        kernel="6.12.0-amd64",
        cpu_name="AMD Ryzen 9 7950X",
    )


def test_a_host_without_those_files_still_has_names(tmp_path: Path) -> None:
    found = host.describe(tmp_path)
    assert all((found.hostname, found.os, found.kernel, found.cpu_name))


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor\t: 0\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n", "AMD EPYC"),
        ("processor\t: 0\nBogoMIPS\t: 108\n\nModel\t\t: Raspberry Pi 5\n", "Raspberry Pi 5"),
        ("processor\t: 0\n", None),
    ],
)
def test_a_processor_is_named_where_it_says_its_name(cpuinfo: str, name: str | None) -> None:
    assert host.cpu_name(cpuinfo) == name


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.163.01  Tue Apr  8 12:41:17\n",
            "550.163.01",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\n",
            "580.95.05",
        ),
        ("", None),
    ],
)
def test_the_kernel_modules_version_is_read(text: str, version: str | None) -> None:
    assert host.module_version(text) == version


def test_only_nvidias_display_devices_are_cards(machine: Machine) -> None:
    machine.card("0000:01:00.0")
    machine.card("0000:02:00.0", kind="0x030200")  # a 3D controller, as in servers and laptops
    machine.card("0000:01:00.1", kind="0x040300")  # the card's sound
    machine.card("0000:03:00.0", vendor="0x1002")
    assert host.nvidia_hardware(machine.root).cards == 2


def test_device_files_closed_to_us_are_named(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.write("dev/nvidia0", "")
    machine.write("dev/nvidiactl", "")
    machine.write("dev/nvidia-caps/cap1", "")
    monkeypatch.setattr(os, "access", lambda path, mode: path.name == "nvidiactl")
    refused = host.nvidia_hardware(machine.root).refused
    assert [Path(file).name for file in refused] == ["nvidia0"]
