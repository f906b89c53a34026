"""Loaded models make room for a newcomer, keep what they promised, and get it back; whatever else happens."""

from contextlib import suppress

import pytest
import trio
from attrs import evolve
from fakes import KV_BYTES_PER_TOKEN, FakeHost, FakeLibrary, ask, cpu, entry, readings
from test_node import answer
from trio.testing import wait_all_tasks_blocked

from helexa.actors.device import Device
from helexa.actors.node import Node
from helexa.actors.place import ModelState
from helexa.config.schema import Config
from helexa.conversation import Finished
from helexa.devices.monitor import Readings
from helexa.engine.orders import Resize
from helexa.errors import InsufficientVram, ServiceUnavailable
from helexa.fleet.limits import Terms
from helexa.metrics import Metrics

CONTEXT = 1_000_000  # tokens, of which the device holds three times as many
TOTAL_MB, KEPT_MB = 16_000, 2400  # of the device, and of that what stays free
WEIGHTS_MB, LEAST_KV_MB = 4, 16


class Host(FakeHost):
    """One device; on a card a pool's memory is taken at once, on a CPU as it is written."""

    def __init__(self, kind: str = "cuda") -> None:
        super().__init__(library=FakeLibrary(Terms(CONTEXT)))
        self.kind = kind
        info = evolve(cpu(), kind=kind)
        self.device = Device(info, self.driver, self.read, self.poisoned.append)
        devices = [(self.device, "fp32")]
        self.node = Node(Config(), devices, self.library, self.desired, Metrics())  # type: ignore[arg-type]

    async def bring(self, model: str, vram_mb: int = WEIGHTS_MB + LEAST_KV_MB) -> None:
        """Load a model that needs so much for its weights and the shortest context."""
        await self.node.load(entry(model, vram_mb=vram_mb)).reply.wait()

    async def read(self) -> Readings:
        await trio.lowlevel.checkpoint()
        pools_mb = self.pools_mb if self.kind == "cuda" else 0
        return readings(TOTAL_MB - self.weights_mb - pools_mb)

    @property
    def weights_mb(self) -> int:
        """MiB of those that are loaded, and of those that are loading as far as they are."""
        worker, places = self.worker, self.node._places.there
        return sum(
            places[model].reserved_mb
            * worker.loading.get(uid, worker.load_steps)
            // worker.load_steps
            for uid, model in worker.models.items()
        )

    @property
    def pools_mb(self) -> int:
        pools = [pool for uid, pool in self.worker.pools.items() if uid in self.worker.models]
        return sum(pool.total for pool in pools) * KV_BYTES_PER_TOKEN >> 20

    @property
    def fits(self) -> bool:
        return self.weights_mb + self.pools_mb <= TOTAL_MB - KEPT_MB


@pytest.fixture(params=["cuda", "cpu"])
async def host(request: pytest.FixtureRequest, nursery: trio.Nursery) -> Host:
    host = Host(request.param)
    await host.start(nursery)
    return host


@pytest.fixture
async def card(nursery: trio.Nursery) -> Host:
    host = Host()
    await host.start(nursery)
    return host


async def state(host: Host, model: str) -> ModelState:
    found = (await host.node.status()).model(model)
    assert found is not None
    return found


async def pool_tokens(host: Host, model: str) -> int:
    return (await state(host, model)).pool.tokens


# -- room is made ----------------------------------------------------------------------------------


async def test_a_pool_gives_what_a_newcomer_lacks_and_no_promise_changes(
    autojump_clock: object, host: Host
) -> None:
    await host.bring("first")
    granted, promised = await pool_tokens(host, "first"), (await host.node.loaded("first")).limit
    await host.bring("second")
    (resize,) = host.worker.resizes
    assert resize == ("first", await pool_tokens(host, "first"))
    given, spare = granted - resize[1], granted - promised.context
    assert 10_000 < given <= spare // 2 + 10_000  # the newcomer's weights and least come first
    assert (await host.node.loaded("first")).limit == promised
    assert 4096 < (await host.node.loaded("second")).limit.context <= CONTEXT
    assert host.fits
    assert isinstance((await answer(host, ask(model="first", max_tokens=3)))[-1], Finished)


async def test_an_estimate_counts_what_others_would_give_and_the_load_finds_it(
    autojump_clock: object, host: Host
) -> None:
    await host.bring("first")
    second = entry("second", vram_mb=WEIGHTS_MB + LEAST_KV_MB)
    estimated = (await host.node.known(second)).limit
    await host.node.load(second).reply.wait()
    found = (await host.node.loaded("second")).limit
    assert 4096 < estimated.context == pytest.approx(found.context, rel=0.02)


async def test_what_is_promised_and_what_runs_is_not_given(
    autojump_clock: object, host: Host
) -> None:
    await host.bring("first")
    most = TOTAL_MB - KEPT_MB - WEIGHTS_MB - CONTEXT * KV_BYTES_PER_TOKEN // 2**20
    with pytest.raises(InsufficientVram, match=r"can give 9\d\d\d MB. Unload another model"):
        await host.bring("large", most + 50)
    assert not host.worker.resizes
    await host.bring("large", most - 50)
    assert await pool_tokens(host, "first") >= CONTEXT
    with pytest.raises(InsufficientVram):
        await host.bring("third", 100)


async def test_many_models_find_room_one_after_the_other(
    autojump_clock: object, host: Host
) -> None:
    for number in range(6):
        await host.bring(f"model-{number}")
    assert len((await host.node.status()).models) == 6
    assert host.fits


async def test_loads_at_once_do_not_take_each_others_room(
    autojump_clock: object, host: Host
) -> None:
    await host.bring("first")
    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(host.bring, f"model-{number}", 800)
    assert len(host.worker.models) == 4
    assert host.fits


async def test_nobody_is_asked_where_a_device_has_room(autojump_clock: object, host: Host) -> None:
    await host.node.load(entry("first", kv_budget_mb=4000)).reply.wait()
    await host.bring("second")
    assert not host.worker.resizes


async def test_the_log_says_who_made_room_for_whom(
    autojump_clock: object, host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "helexa.node")
    await host.bring("first")
    before = (await state(host, "first")).pool.total_mb
    await host.bring("second")
    (made,) = [each for each in caplog.records if each.message == "KV pool made smaller"]
    fields = made.fields  # type: ignore[attr-defined]
    pool = (await state(host, "first")).pool
    assert (fields["model"], fields["why"]) == ("first", "room for second")
    assert (fields["gave_mb"], fields["kv_mb"]) == (before - pool.total_mb, pool.total_mb)
    assert fields["gave_mb"] > WEIGHTS_MB + LEAST_KV_MB


# -- while others do what they do ------------------------------------------------------------------


async def busy_for(host: Host, seconds: float, nursery: trio.Nursery) -> None:
    """The first model is loaded, and its device in a step that takes so long."""
    await host.bring("first")
    host.driver._step_seconds = seconds
    nursery.start_soon(answer, host, ask(model="first", max_tokens=2))
    await trio.sleep(0.1)
    host.driver._step_seconds = 1.0


async def test_a_load_waits_for_the_step_in_hand_while_the_node_answers(
    autojump_clock: object, card: Host, nursery: trio.Nursery
) -> None:
    await busy_for(card, 8.0, nursery)
    loading = card.node.load(entry("second"))
    await trio.sleep(5)
    assert (await state(card, "second")).status == "loading"
    assert not card.worker.resizes
    await loading.reply.wait()
    assert (await state(card, "second")).status == "loaded"


async def test_a_load_whose_room_does_not_come_in_time_is_told_to_try_again(
    autojump_clock: object, card: Host, nursery: trio.Nursery
) -> None:
    await busy_for(card, 60.0, nursery)
    began = trio.current_time()
    with pytest.raises(InsufficientVram, match="They are busy with it: try again"):
        await card.bring("second")
    assert trio.current_time() - began < 15
    await trio.sleep(60)
    await card.bring("second")
    assert len(card.worker.resizes) == 1


async def test_a_load_that_is_called_off_lets_the_next_one_look(
    autojump_clock: object, card: Host, nursery: trio.Nursery
) -> None:
    await busy_for(card, 8.0, nursery)
    waiting = card.node.load(entry("second"))
    await trio.sleep(1)
    third = card.node.load(entry("third"))
    await trio.sleep(1)
    await card.node.unload("second")
    with pytest.raises(ServiceUnavailable, match="called off"):
        await waiting.reply.wait()
    await third.reply.wait()
    status = await card.node.status()
    assert {each.entry.id for each in status.models} == {"first", "third"}


@pytest.mark.parametrize("how", ["crash", "device", "unload", "leave"])
async def test_a_model_that_goes_while_it_is_asked_keeps_no_load_waiting(
    autojump_clock: object, card: Host, nursery: trio.Nursery, how: str
) -> None:
    await card.bring("first")
    await answer(card, ask(model="first", max_tokens=1))
    post, held = card.driver.post, []
    card.driver.post = held.append  # type: ignore[method-assign]
    loading = card.node.load(entry("second"))
    await trio.sleep(2)
    (order,) = held
    assert isinstance(order, Resize)
    card.driver.post = post  # type: ignore[method-assign]
    if how == "crash":
        card.driver.deliver(card.worker.crash_model("first"))
    elif how == "device":
        card.worker.crash = RuntimeError("boom")
        nursery.start_soon(fails, card)
    elif how == "unload":
        nursery.start_soon(card.node.unload, "first")
    else:
        nursery.start_soon(leave, card)
    with suppress(InsufficientVram), trio.fail_after(9):  # a model that recovers keeps its room
        await loading.reply.wait()
    post(order)
    await trio.sleep(30)
    await card.bring("second")
    await card.bring("first")
    assert card.fits


async def fails(host: Host) -> None:
    with pytest.raises(ServiceUnavailable):
        await answer(host, ask(model="first", max_tokens=2))


async def leave(host: Host) -> None:
    await host.node.unload("first", if_idle=True)


async def test_a_model_that_gave_room_and_crashes_comes_back_without_it(
    autojump_clock: object, card: Host
) -> None:
    await card.bring("first")
    await card.bring("second")
    smaller = await pool_tokens(card, "first")
    card.driver.deliver(card.worker.crash_model("first"))
    await wait_all_tasks_blocked()
    with pytest.raises(InsufficientVram):  # what it will take again is nobody else's
        await card.bring("third", 2500)
    await trio.sleep(30)
    assert (await state(card, "first")).status == "loaded"
    assert await pool_tokens(card, "first") == smaller
    assert card.fits


# -- room is given back ----------------------------------------------------------------------------


async def test_a_pool_grows_back_when_another_model_is_gone(
    autojump_clock: object, host: Host
) -> None:
    await host.bring("first")
    granted = await pool_tokens(host, "first")
    await host.bring("second", 5000)
    assert await pool_tokens(host, "first") < granted
    await host.node.unload("second")
    await trio.sleep(30)
    assert await pool_tokens(host, "first") == granted
    assert host.fits


async def test_the_next_load_has_the_first_claim_to_what_came_free(
    autojump_clock: object, host: Host
) -> None:
    await host.bring("first")
    await host.bring("second", 5000)
    await host.node.unload("second")
    host.library.fetch = slow_fetch  # type: ignore[method-assign,assignment]
    await host.node.load(entry("third"), "operator").reply.wait()
    assert len(host.worker.resizes) == 1
    assert (await host.node.loaded("third")).limit.context > 1_000_000 / 2
    await trio.sleep(100)
    assert host.fits


async def slow_fetch(entry: object, progress: object = None) -> None:
    await trio.sleep(100)


async def test_what_a_pool_grows_by_is_given_to_nobody_else_before_it_has_it(
    autojump_clock: object, card: Host, nursery: trio.Nursery
) -> None:
    await card.bring("first")
    granted = await pool_tokens(card, "first")
    await card.bring("second", 5000)
    await card.node.unload("second")
    card.driver._step_seconds = 60.0
    nursery.start_soon(answer, card, ask(model="first", max_tokens=2))
    await trio.sleep(30)  # by now it was told to grow, and is in a step
    card.driver._step_seconds = 1.0
    with pytest.raises(InsufficientVram) as refused:
        await card.bring("third", 12_000)
    assert refused.value.details["free_mb"] <= KEPT_MB
    await trio.sleep(40)
    assert await pool_tokens(card, "first") == granted
    await card.bring("third", 5000)
    assert card.fits


async def test_a_cpu_promises_an_untouched_pool_of_the_size_that_it_has(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = Host("cpu")
    await host.start(nursery)
    await host.bring("first")
    await answer(host, ask("x" * 600, model="first", max_tokens=1))
    await host.bring("second", 5000)
    pool = (await state(host, "first")).pool
    assert pool.touched_tokens == 600
    assert pool.untouched_mb == (pool.tokens - 600) * KV_BYTES_PER_TOKEN >> 20
