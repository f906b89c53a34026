"""The device thread: one for life, stopped within a step, and nobody waits for it in vain."""

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from fakes import FakeWorker, VirtualDriver, cpu, readings

from helexa.actors.device import (
    FIRST_LOAD_SECONDS,
    RECOVERING_SECONDS,
    Device,
    DeviceThread,
    is_last,
)
from helexa.actors.supervisor import RestartPolicy, keep_running
from helexa.devices.monitor import Readings
from helexa.engine.orders import Abort, Add, Crashed, Failed, Load, Loaded, Notice, Piece, Unload
from helexa.errors import DevicePoisoned, ServiceUnavailable

LOAD_SECONDS = 1.0  # what FakeWorker says of each load


class ThreadNotingWorker(FakeWorker):
    """Notes every thread that it is called on."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    def apply(self, order: Load | Unload | Add | Abort) -> Sequence[Notice]:
        self.threads.add(threading.get_ident())
        return super().apply(order)

    def step(self) -> Sequence[Notice]:
        self.threads.add(threading.get_ident())
        return super().step()


def load(uid: int) -> Load:
    return Load(uid, "tiny", Path("/nowhere"), "cpu", "fp32", 8, 256)


def add(model_uid: int, max_tokens: int, uid: int = 0) -> Add:
    return Add(uid, model_uid, (1, 2), max_tokens)


async def read() -> Readings:
    await trio.lowlevel.checkpoint()
    return readings()


def make_device(driver: object) -> Device:
    return Device(cpu(), driver, read, lambda name: None)  # type: ignore[arg-type]


async def loaded(device: Device) -> int:
    uid, inbox = device.load(load)
    while not isinstance(notice := await inbox.receive(), Loaded):
        assert not is_last(notice), notice
    return uid


async def tokens(device: Device, model_uid: int, max_tokens: int) -> list[int]:
    found = []
    with device.sequences([lambda uid: add(model_uid, max_tokens, uid)]) as (_, inbox):
        while True:
            notice = await inbox.receive()
            if isinstance(notice, Failed):
                raise notice.error
            if isinstance(notice, Piece):
                found.append(notice.token)
                if notice.finish:
                    return found


async def test_every_step_runs_on_one_thread_that_is_not_ours(nursery: trio.Nursery) -> None:
    worker = ThreadNotingWorker()
    device = make_device(DeviceThread("fake", lambda: worker))
    await nursery.start(device.run)
    model = await loaded(device)
    for _ in range(3):
        await trio.to_thread.run_sync(threading.get_ident)  # stir Trio's thread cache
        assert await tokens(device, model, 5) == [1, 2, 3, 4, 5]
    assert len(worker.threads) == 1
    assert threading.get_ident() not in worker.threads
    nursery.cancel_scope.cancel()


def no_worker() -> FakeWorker:
    raise AssertionError("made without an order")


async def test_a_device_without_orders_makes_no_worker() -> None:
    device = make_device(DeviceThread("fake", no_worker))
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(device.run)
            nursery.cancel_scope.cancel()


async def test_cancelling_the_actor_ends_a_thread_that_waits_for_orders() -> None:
    device = make_device(DeviceThread("fake", FakeWorker))
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(device.run)
            nursery.cancel_scope.cancel()


async def test_leaving_a_sequence_aborts_it_on_the_device(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    worker = FakeWorker()
    device = make_device(VirtualDriver(worker))
    await nursery.start(device.run)
    model = await loaded(device)
    with trio.move_on_after(3.5):
        await tokens(device, model, 500)
    assert device.status().num_sequences == 0
    await trio.sleep(1)
    assert worker.live == {}
    nursery.cancel_scope.cancel()


async def test_a_dead_thread_fails_its_sequences_and_its_models_and_comes_back(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    worker = FakeWorker()
    device = make_device(VirtualDriver(worker))
    policy = RestartPolicy(first_delay=1)
    await nursery.start(keep_running, "device", device.run, policy)
    uid, inbox = device.load(load)
    while not isinstance(await inbox.receive(), Loaded):
        pass
    worker.crash = RuntimeError("bug")
    with pytest.raises(ServiceUnavailable) as failed:
        await tokens(device, uid, 50)
    assert failed.value.retry_after == RECOVERING_SECONDS
    assert isinstance(await inbox.receive(), Crashed)
    worker.live.clear()
    model = await loaded(device)
    assert await tokens(device, model, 2) == [1, 2]
    nursery.cancel_scope.cancel()


async def test_a_poisoned_device_says_so_once_and_takes_nothing_more(
    autojump_clock: object,
) -> None:
    worker, told = FakeWorker(), []
    device = Device(cpu(), VirtualDriver(worker), read, told.append, drain_seconds=20)
    async with trio.open_nursery() as nursery:
        await nursery.start(device.run)
        model = await loaded(device)
        worker.crash = DevicePoisoned("illegal address")
        with pytest.raises(ServiceUnavailable) as failed:
            await tokens(device, model, 5)
    assert told == ["fake"]
    assert device.status().poisoned
    with pytest.raises(ServiceUnavailable) as refused:
        device.load(load)
    drain_and_load = 20 + LOAD_SECONDS
    assert failed.value.retry_after == refused.value.retry_after == drain_and_load


async def test_a_device_poisoned_by_its_first_load_guesses_when_to_come_back(
    autojump_clock: object,
) -> None:
    worker = FakeWorker(crash=DevicePoisoned("illegal address"))
    device = Device(cpu(), VirtualDriver(worker), read, lambda name: None, drain_seconds=20)
    async with trio.open_nursery() as nursery:
        await nursery.start(device.run)
        device.load(load)
    with pytest.raises(ServiceUnavailable) as refused:
        device.load(load)
    assert refused.value.retry_after == 20 + FIRST_LOAD_SECONDS


async def test_orders_of_a_dead_thread_are_not_left_for_the_next(
    nursery: trio.Nursery,
) -> None:
    thread = DeviceThread("fake", FakeWorker)
    thread.post(Abort(1))
    thread.forget()
    device = make_device(thread)
    await nursery.start(device.run)
    assert await tokens(device, await loaded(device), 1) == [1]
    nursery.cancel_scope.cancel()
