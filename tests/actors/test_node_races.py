"""What happens at the same moment: crashes, unloads and loads of one model."""

from contextlib import suppress
from functools import partial

import pytest
import trio
from fakes import FakeHost, ask, cpu, entry, readings, trace
from fronts import asked
from test_node import answer, load
from trio.testing import wait_all_tasks_blocked

from helexa.actors.device import Device
from helexa.actors.node import Node
from helexa.actors.place import AtStart
from helexa.config.schema import Admission, Config, Server
from helexa.conversation import Finished
from helexa.errors import (
    DevicePoisoned,
    HelexaError,
    InvalidRequest,
    ModelBusy,
    ModelNotFound,
    ServiceUnavailable,
    StoreError,
)
from helexa.here import Here
from helexa.metrics import Metrics


class Named:
    """Names that are ids already."""

    def id_of(self, name: str) -> str:
        return name


@pytest.fixture
async def host(nursery: trio.Nursery) -> FakeHost:
    host = FakeHost(Config(server=Server(drain_seconds=20)))
    host.desired.disk_seconds = 0.5
    await host.start(nursery)
    return host


@pytest.mark.parametrize("crash_first", [True, False])
async def test_a_model_that_crashes_while_it_is_unloaded_is_gone(
    autojump_clock: object, host: FakeHost, crash_first: bool
) -> None:
    await load(host)

    def crash() -> None:
        host.driver.deliver(host.worker.crash_model("tiny"))

    async with trio.open_nursery() as nursery:
        if crash_first:
            crash()
        nursery.start_soon(host.node.unload, "tiny")
        if not crash_first:
            await trio.lowlevel.checkpoint()
            crash()
    await trio.sleep(30)
    assert (await host.node.status()).models == ()
    await load(host)
    assert isinstance((await answer(host, ask(max_tokens=1)))[-1], Finished)


async def test_a_crash_during_the_drain_does_not_bring_the_model_back(
    autojump_clock: object, host: FakeHost
) -> None:
    await load(host)
    async with trio.open_nursery() as nursery:

        async def fails() -> None:
            with pytest.raises(ServiceUnavailable):
                await answer(host, ask(max_tokens=100))

        nursery.start_soon(fails)
        await trio.sleep(2.5)
        nursery.start_soon(host.node.unload, "tiny")
        await trio.sleep(1)
        host.driver.deliver(host.worker.crash_model("tiny"))
    await trio.sleep(30)
    assert host.worker.num_loads == 1
    assert (await host.node.status()).models == ()


async def test_a_refused_conditional_unload_keeps_nobody_waiting(
    autojump_clock: object, host: FakeHost
) -> None:
    await load(host)
    async with trio.open_nursery() as nursery:

        async def refused() -> None:
            with pytest.raises(ModelBusy):
                await host.node.unload("tiny", if_idle=True)

        nursery.start_soon(refused)
        for _ in range(5):
            await trio.lowlevel.checkpoint()
            with trio.fail_after(1):
                await load(host)


async def test_two_unloads_at_once_both_end_and_the_model_is_never_shown_loaded_meanwhile(
    autojump_clock: object, host: FakeHost
) -> None:
    await load(host)
    await answer(host, ask(max_tokens=1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(host.node.unload, "tiny", if_idle=True))
        nursery.start_soon(host.node.unload, "tiny")
        nursery.start_soon(host.node.unload, "tiny")
    assert (await host.node.status()).models == ()


async def test_a_conditional_unload_of_a_busy_model_kills_nothing_even_without_a_drain(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = FakeHost(Config(server=Server(drain_seconds=0)))
    await host.start(nursery)
    await load(host)
    ended: list[object] = []

    async def run() -> None:
        ended.append((await answer(host, ask(max_tokens=10)))[-1])

    nursery.start_soon(run)
    await trio.sleep(2.5)
    with pytest.raises(ModelBusy):
        await host.node.unload("tiny", if_idle=True)
    await trio.sleep(15)
    assert isinstance(ended[0], Finished)


async def test_a_request_on_the_node_itself_that_waits_when_its_model_leaves_gets_a_503(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    config = Config(admission=Admission(max_in_flight=1), server=Server(drain_seconds=60))
    host = FakeHost(config)
    await host.start(nursery)
    await load(host)
    errors: list[HelexaError] = []

    async def wait_in_line() -> None:
        here = Here(host.node, Named(), tick_seconds=1)  # type: ignore[arg-type]
        try:
            async for _ in here.generate(asked(ask()), trace()):
                pass
        except HelexaError as error:
            errors.append(error)

    nursery.start_soon(answer, host, ask(max_tokens=10))
    await trio.sleep(0.5)
    nursery.start_soon(wait_in_line)
    await trio.sleep(0.5)
    await host.node.unload("tiny")
    await wait_all_tasks_blocked()
    assert [(type(e), e.retry_after) for e in errors] == [(ServiceUnavailable, 2)]


async def test_who_waits_for_a_load_that_fails_is_told_when_to_come_back(
    autojump_clock: object, host: FakeHost
) -> None:
    host.worker.refuse_loads = [StoreError("torn")]
    with pytest.raises(StoreError) as refused:
        await load(host)
    assert refused.value.retry_after == 5


async def test_a_model_that_fits_nowhere_is_told_the_same_every_time(
    autojump_clock: object, host: FakeHost
) -> None:
    for _ in range(2):
        with pytest.raises(ModelNotFound, match="fits no device"):
            await host.node.load(entry("huge", vram_mb=10**6)).reply.wait()
    assert (await host.node.status()).models == ()


async def test_a_failed_start_is_forgotten_once_the_model_is_loaded(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = FakeHost()
    host.worker.refuse_loads = [StoreError("torn")]
    await host.start(nursery, [entry()])
    await host.node.activated.wait()
    assert (await host.node.status()).failed == {"tiny": "torn"}
    await host.node.load(entry(), "operator").reply.wait()
    status = await host.node.status()
    assert (status.failed, status.activation) == ({}, "ready")


async def test_a_model_of_the_start_that_failed_is_tried_again_ever_more_rarely(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = FakeHost()
    host.worker.refuse_loads = [StoreError("torn")] * 3
    await host.start(nursery, [entry()])
    await trio.sleep(5 + 10 + 15)
    assert (await host.node.status()).failed == {"tiny": "torn"}
    assert [what for what, _ in host.desired.told].count("failed") == 3
    await trio.sleep(10)
    status = await host.node.status()
    assert (status.failed, [model.status for model in status.models]) == ({}, ["loaded"])
    await host.node.unload("tiny")
    await trio.sleep(1000)
    assert (await host.node.status()).models == ()


@pytest.mark.parametrize("refused", [StoreError("torn"), ModelNotFound("it fits no device")])
async def test_a_model_of_the_start_that_an_operator_unloads_is_not_tried_again(
    autojump_clock: object, nursery: trio.Nursery, refused: HelexaError
) -> None:
    host = FakeHost()
    host.worker.refuse_loads = [refused]
    await host.start(nursery, [entry()])
    await host.node.activated.wait()
    await host.node.unload("tiny")
    await trio.sleep(1000)
    status = await host.node.status()
    assert (status.failed, status.pending, status.models) == ({}, (), ())
    assert host.desired.told[-1] == ("gone", "tiny")


async def test_the_load_of_a_start_that_an_operator_calls_off_is_no_failure(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = FakeHost()
    await host.start(nursery, [entry(), entry("next")])
    await trio.sleep(0.1)
    await host.node.unload("tiny")
    await host.node.unload("next")
    await trio.sleep(1000)
    status = await host.node.status()
    assert (status.failed, status.pending, status.models) == ({}, (), ())


async def test_a_node_that_crashes_comes_back_with_what_was_wanted(
    autojump_clock: object, host: FakeHost, nursery: trio.Nursery
) -> None:
    """The supervisor runs it again; here its second life is started by hand."""
    await load(host)
    async with trio.open_nursery() as second:
        again = Node(Config(), [(host.device, "fp32")], host.library, host.desired, Metrics())
        again.activate()
        await second.start(again.run, lambda: [AtStart(entry("other"))])
        await again.activated.wait()
        assert [m.status for m in (await again.status()).models] == ["loaded"]
        second.cancel_scope.cancel()


# -- several devices -------------------------------------------------------------------------------


class TwoCards(FakeHost):
    """A node over two virtual devices."""

    def __init__(self) -> None:
        super().__init__()
        self.other = FakeHost()
        self.second = Device(cpu(1), self.other.driver, self.read_less, self.poisoned.append)
        devices = [(self.device, "fp32"), (self.second, "fp32")]
        self.node = Node(Config(), devices, self.library, self.desired, Metrics())  # type: ignore[arg-type]

    async def read_less(self) -> object:
        await trio.lowlevel.checkpoint()
        return readings(12_000)

    async def start(self, nursery: trio.Nursery, at_start: object = ()) -> None:
        await nursery.start(self.second.run)
        await super().start(nursery, at_start)  # type: ignore[arg-type]


async def devices_of(host: FakeHost, model: str) -> tuple[int, ...]:
    state = (await host.node.status()).model(model)
    assert state is not None
    return state.devices


async def test_a_model_goes_where_most_is_free_or_where_it_is_sent(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = TwoCards()
    await host.start(nursery)
    await host.node.load(entry("one")).reply.wait()
    assert await devices_of(host, "one") == (0,)
    await host.node.load(entry("two"), devices=(1,)).reply.wait()
    assert await devices_of(host, "two") == (1,)
    with pytest.raises(InvalidRequest, match="no such device"):
        await host.node.load(entry("three"), devices=(7,)).reply.wait()
    with pytest.raises(InvalidRequest, match="is on device 0"):
        await host.node.load(entry("one"), devices=(1,)).reply.wait()


async def test_a_lost_card_leaves_the_answers_of_the_other_alone(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = TwoCards()
    await host.start(nursery)
    await host.node.load(entry("one"), devices=(0,)).reply.wait()
    await host.node.load(entry("two"), devices=(1,)).reply.wait()
    ended: list[object] = []

    async def run() -> None:
        ended.append((await answer(host, ask(model="two", max_tokens=20)))[-1])

    nursery.start_soon(run)
    await trio.sleep(2.5)
    host.worker.crash = DevicePoisoned("illegal address")
    with pytest.raises(ServiceUnavailable):
        await answer(host, ask(model="one", max_tokens=20))
    await trio.sleep(30)
    assert host.poisoned == ["fake"]
    assert isinstance(ended[0], Finished)


# -- words that come late --------------------------------------------------------------------------


async def test_what_comes_late_from_a_download_that_was_called_off_harms_nobody(
    autojump_clock: object, host: FakeHost
) -> None:
    told: list[object] = []

    async def fetch(entry: object, progress: object = None) -> None:
        told.append(progress)
        await trio.sleep_forever()

    host.library.fetch = fetch  # type: ignore[method-assign,assignment]
    waiting = host.node.load(entry(), "operator")
    await trio.sleep(1)
    await host.node.unload("tiny")
    with pytest.raises(ServiceUnavailable, match="called off"):
        await waiting.reply.wait()
    told[0]("download", 1, 2)  # type: ignore[operator]
    await wait_all_tasks_blocked()
    assert (await host.node.status()).models == ()


async def test_a_conditional_unload_ends_although_its_model_crashes_in_that_moment(
    autojump_clock: object, host: FakeHost
) -> None:
    await load(host)
    await answer(host, ask(max_tokens=1))
    async with trio.open_nursery() as nursery:

        async def unload() -> None:
            with suppress(ModelBusy):  # it may be recovering already
                await host.node.unload("tiny", if_idle=True)
            ended.set()

        ended = trio.Event()
        nursery.start_soon(unload)
        await trio.lowlevel.checkpoint()
        host.driver.deliver(host.worker.crash_model("tiny"))
        with trio.fail_after(60):
            await ended.wait()


async def test_a_load_that_poisons_its_device_stays_marked(
    autojump_clock: object, host: FakeHost
) -> None:
    waiting = host.node.load(entry())
    await trio.sleep(1.2)
    host.worker.crash = DevicePoisoned("illegal address")
    with pytest.raises(HelexaError):
        await waiting.reply.wait()
    await trio.sleep(30)
    assert host.desired.told == [("loading", "tiny")]
