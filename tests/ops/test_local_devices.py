"""Reading a device never ends a node, but for a device that is lost; it never holds one up either."""

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from attrs import frozen

from helexa.devices.cuda import CudaError
from helexa.devices.discovery import DeviceInfo
from helexa.devices.monitor import CpuDevice, Readings
from helexa.devices.nvml import NvmlError
from helexa.errors import DevicePoisoned
from helexa.local import READ_SECONDS, read

INFO = DeviceInfo(0, "fake", "fake-0", 16_000, None, "cpu")


@frozen(eq=False)
class Watched(CpuDevice):
    """A device whose readings are what `tell` says."""

    tell: Callable[[], Readings] = lambda: Readings(1, 2)

    def readings(self) -> Readings:
        return self.tell()


def failing(error: Exception) -> Callable[[], Readings]:
    def tell() -> Readings:
        raise error

    return tell


@pytest.mark.parametrize(
    "error",
    [
        OSError(24, "Too many open files"),
        NvmlError(3, "Not Supported"),
        CudaError("c", 1, "INVALID"),
    ],
)
async def test_a_device_that_cannot_be_read_now_is_read_later(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    one_at_a_time = trio.CapacityLimiter(1)
    assert await read(Watched(INFO, tell=failing(error)), one_at_a_time) is None
    assert [record.message for record in caplog.records] == ["device not read"]
    assert await read(Watched(INFO), one_at_a_time) == Readings(1, 2)


async def test_a_machine_that_tells_no_memory_for_now_is_no_reason_to_end(tmp_path: Path) -> None:
    """Without a free file descriptor every file of /proc looks empty."""
    assert await read(CpuDevice(INFO, root=tmp_path), trio.CapacityLimiter(1)) is None


async def test_a_lost_card_is_poisoned() -> None:
    lost = Watched(INFO, tell=failing(NvmlError(15, "GPU is lost")))
    with pytest.raises(DevicePoisoned):
        await read(lost, trio.CapacityLimiter(1))


@pytest.fixture
def hanging() -> Iterator[Watched]:
    """A driver that does not answer before the end of the test."""
    answer = threading.Event()

    def tell() -> Readings:
        answer.wait(60)
        return Readings(1, 2)

    yield Watched(INFO, tell=tell)
    answer.set()


async def test_a_driver_that_does_not_answer_is_left_behind(
    hanging: Watched, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    one_at_a_time = trio.CapacityLimiter(1)
    began = trio.current_time()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert await read(hanging, one_at_a_time) is None
    assert trio.current_time() - began == 3 * READ_SECONDS
    assert [record.message for record in caplog.records] == ["device not read"] * 3
    assert one_at_a_time.borrowed_tokens == 1  # one thread hangs, not three
    assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
