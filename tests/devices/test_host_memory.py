"""The CPU device's memory, on machines made of files."""

from pathlib import Path

import pytest
from devices_machine import Machine
from hypothesis import given
from hypothesis import strategies as st

from helexa.config.schema import Node
from helexa.devices import memory
from helexa.devices.discovery import cpu_device
from helexa.devices.monitor import open_device
from helexa.errors import HelexaError

GIB = 1 << 30


def test_without_cgroups_it_is_the_machines_own(machine: Machine) -> None:
    found = memory.measure(machine.root)
    assert (found.total_mb, found.free_mb, found.own_mb) == (32768, 24576, 512)


def test_a_container_sees_its_limit_and_not_the_machines_memory(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/\n")
    machine.cgroup_v2("", memory_max=4 * GIB, memory_current=GIB)
    found = memory.measure(machine.root)
    assert (found.total_mb, found.free_mb) == (4096, 3072)


def test_file_cache_that_the_kernel_gives_up_is_free(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/\n")
    machine.cgroup_v2(
        "",
        memory_max=4 * GIB,
        memory_current=3 * GIB,
        memory_stat=f"anon {GIB}\nactive_file {GIB // 2}\ninactive_file {GIB}\n"
        f"slab_reclaimable {GIB // 4}\nshmem 0",
    )
    assert memory.measure(machine.root).free_mb == 1024 + 1536 + 256


def test_the_tightest_of_nested_cgroups_rules(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/system.slice/helexa.service\n")
    machine.cgroup_v2("/system.slice/helexa.service", memory_max="max", memory_current=GIB)
    machine.cgroup_v2("/system.slice", memory_max=8 * GIB, memory_current=6 * GIB)
    found = memory.measure(machine.root)
    assert (found.total_mb, found.free_mb) == (8192, 2048)


def test_a_cgroup_is_throttled_at_memory_high_before_it_reaches_its_maximum(
    machine: Machine,
) -> None:
    machine.write("proc/self/cgroup", "0::/helexa\n")
    machine.cgroup_v2("/helexa", memory_max=8 * GIB, memory_high=6 * GIB, memory_current=GIB)
    assert memory.measure(machine.root).total_mb == 6144


def test_a_version_1_container_sees_its_limit(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n")
    machine.cgroup_v1(
        "",  # in the container its own cgroup is the mount's root
        memory_limit_in_bytes=2 * GIB,
        memory_usage_in_bytes=GIB,
        memory_stat=f"total_active_file 0\ntotal_inactive_file {GIB // 2}",
    )
    found = memory.measure(machine.root)
    assert (found.total_mb, found.free_mb) == (2048, 1536)


def test_version_1s_number_for_no_limit_is_none(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "4:memory:/user.slice\n")
    machine.cgroup_v1(
        "/user.slice", memory_limit_in_bytes=9223372036854771712, memory_usage_in_bytes=GIB
    )
    assert memory.measure(machine.root).total_mb == 32768


def test_a_limit_above_the_machines_memory_does_not_add_any(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/\n")
    machine.cgroup_v2("", memory_max=999 * GIB, memory_current=GIB)
    found = memory.measure(machine.root)
    assert (found.total_mb, found.free_mb) == (32768, 24576)


def test_a_cgroup_over_its_limit_has_nothing_free(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/\n")
    machine.cgroup_v2("", memory_max=GIB, memory_current=2 * GIB)
    assert memory.measure(machine.root).free_mb == 0


def test_a_cgroup_path_never_leads_out_of_the_mount() -> None:
    folders = list(memory.outwards(Path("/mount"), "/../../etc"))
    assert folders == [Path("/mount/etc"), Path("/mount")]


@given(st.text())
def test_no_text_in_a_fields_file_breaks_the_reader(text: str) -> None:
    assert all(value >= 0 for value in memory.fields(text).values())


@given(st.text(alphabet=st.characters(exclude_characters="\r")))
def test_no_text_in_proc_self_cgroup_breaks_the_reader(text: str) -> None:
    memory.paths(text)


def test_a_system_that_does_not_tell_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(HelexaError, match="runs on Linux"):
        memory.measure(tmp_path)


def test_this_very_machine_tells_its_memory() -> None:
    found = memory.measure()
    assert found.own_mb > 0
    assert 0 < found.free_mb <= found.total_mb


def test_a_configured_size_rules_the_cpu_device(machine: Machine) -> None:
    device = cpu_device(Node(memory_mb=6000), "CPU", machine.root)
    assert device.vram_total_mb == 6000


def test_a_configured_size_is_what_this_process_may_take(machine: Machine) -> None:
    settings = Node(memory_mb=6000)
    device = open_device(cpu_device(settings, "CPU", machine.root), settings, root=machine.root)
    readings = device.readings()
    assert (readings.vram_used_mb, readings.vram_free_mb) == (512, 5488)


def test_a_configured_size_does_not_make_memory_that_is_not_there(machine: Machine) -> None:
    settings = Node(memory_mb=30000)
    machine.memory(total_mb=32768, used_mb=31000, own_mb=500)
    device = open_device(cpu_device(settings, "CPU", machine.root), settings, root=machine.root)
    assert device.readings().vram_free_mb == 1768
