"""What every device obeys, whatever it is made of; the same cases run on the CPU and on the stub.

A case gets a world: `open` gives its device under some configuration, `set` changes what the
machine says from then on.
"""

import threading
from collections.abc import Callable
from typing import Any, Protocol

from helexa.devices.monitor import Device, Readings


class World(Protocol):
    def open(self, reserve_mb: int = 0) -> Device: ...

    def set(self, *, total_mb: int, used_mb: int, own_mb: int = 0) -> None: ...


def readings(world: World, reserve_mb: int = 0, **machine: int) -> Readings:
    world.set(**machine)
    return world.open(reserve_mb).readings()


def case_used_and_free_make_up_the_device(world: World) -> None:
    found = readings(world, total_mb=16000, used_mb=3000)
    assert (found.vram_used_mb, found.vram_free_mb) == (3000, 13000)


def case_readings_follow_the_machine(world: World) -> None:
    world.set(total_mb=16000, used_mb=3000)
    device = world.open()
    assert device.readings().vram_free_mb == 13000
    world.set(total_mb=16000, used_mb=9500)
    assert device.readings().vram_free_mb == 6500


def case_what_other_programs_hold_is_shown_and_not_free(world: World) -> None:
    found = readings(world, total_mb=16000, used_mb=5000, own_mb=1200)
    assert found.foreign_mb == 3800
    assert found.vram_free_mb == 11000


def case_a_reserve_is_kept_free_for_others(world: World) -> None:
    found = readings(world, reserve_mb=4000, total_mb=16000, used_mb=1000, own_mb=1000)
    assert found.vram_free_mb == 11000


def case_what_others_took_of_their_reserve_is_not_kept_twice(world: World) -> None:
    found = readings(world, reserve_mb=4000, total_mb=16000, used_mb=3000, own_mb=0)
    assert found.vram_free_mb == 12000


def case_others_may_take_more_than_their_reserve(world: World) -> None:
    found = readings(world, reserve_mb=4000, total_mb=16000, used_mb=9000, own_mb=0)
    assert found.vram_free_mb == 7000


def case_free_is_never_below_nothing(world: World) -> None:
    found = readings(world, reserve_mb=15900, total_mb=16000, used_mb=1000, own_mb=1000)
    assert found.vram_free_mb == 0


def case_a_device_can_be_taken_again(world: World) -> None:
    device = world.open()
    device.retain()
    device.retain()
    device.trim()


def case_readings_come_from_any_thread_while_the_device_is_taken(world: World) -> None:
    world.set(total_mb=16000, used_mb=3000)
    device = world.open()
    device.retain()
    found: list[Readings] = []
    thread = threading.Thread(target=lambda: found.append(device.readings()))
    thread.start()
    thread.join()
    assert found[0].vram_free_mb == 13000


def case_running_out_of_memory_is_no_reason_to_leave_the_device(world: World) -> None:
    device = world.open()
    device.retain()
    assert device.diagnose(MemoryError()) == "out_of_memory"


def case_any_other_error_is_the_callers(world: World) -> None:
    device = world.open()
    device.retain()
    assert device.diagnose(ValueError("a shape does not fit")) == "other"


def case_a_sticky_error_poisons(world: World) -> None:
    device = world.open()
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    assert device.diagnose(error) == "sticky"


CASES: dict[str, Callable[[World], Any]] = {
    name.removeprefix("case_"): case
    for name, case in list(globals().items())
    if name.startswith("case_")
}
