"""The gateway's own bounds: how many wait for a load, and for how long."""

from contextlib import aclosing

import pytest
import trio
from fakes import FakeHost, ask, entry, trace

from helexa.config.schema import Config, Fleet
from helexa.conversation import Event, Finished, Progress
from helexa.errors import Busy, ModelNotFound, ServiceUnavailable
from helexa.fleet.catalogue import Catalogue
from helexa.gateway import Gateway
from helexa.shelf import Shelf

CATALOGUE = Catalogue((entry("tiny", aliases=("small",)),))


def gateway(host: FakeHost | None, **fleet: float) -> Gateway:
    config = Config(fleet=Fleet(**fleet))  # type: ignore[arg-type]
    return Gateway(config, Shelf(CATALOGUE, lambda: CATALOGUE), host.node if host else None)


@pytest.fixture
async def host(nursery: trio.Nursery) -> FakeHost:
    host = FakeHost()
    await host.start(nursery)
    return host


async def answer(gateway: Gateway, model: str = "tiny") -> list[Event]:
    events: list[Event] = []
    async with aclosing(gateway.generate(ask(model=model, max_tokens=2), trace())) as batches:
        async for batch in batches:
            events.extend(batch)
    return events


async def test_a_cold_model_is_loaded_and_the_wait_is_told(
    autojump_clock: object, host: FakeHost
) -> None:
    host.worker.load_steps = 10
    events = await answer(gateway(host), "small")
    assert Progress("loading", 1, 10) in events
    assert isinstance(events[-1], Finished)


async def test_a_load_that_takes_too_long_is_not_waited_for(
    autojump_clock: object, host: FakeHost
) -> None:
    host.worker.load_steps = 1000
    before = trio.current_time()
    with pytest.raises(ServiceUnavailable, match="still loading after 30 s"):
        await answer(gateway(host, load_wait_secs=30))
    assert trio.current_time() - before == pytest.approx(30, abs=1)


async def test_no_more_than_so_many_wait_for_loads(
    autojump_clock: object, host: FakeHost, nursery: trio.Nursery
) -> None:
    host.worker.load_steps = 100
    door = gateway(host, max_load_waiters=2)
    for _ in range(2):
        nursery.start_soon(answer, door)
    await trio.sleep(1)
    with pytest.raises(Busy):
        await answer(door)
    await trio.sleep(120)
    assert isinstance((await answer(door))[-1], Finished)


async def test_a_name_that_is_not_in_the_catalogue_is_not_found(
    autojump_clock: object, host: FakeHost
) -> None:
    with pytest.raises(ModelNotFound):
        await answer(gateway(host), "ghost")


async def test_without_a_node_there_is_nobody_to_answer() -> None:
    with pytest.raises(ServiceUnavailable) as refused:
        await answer(gateway(None))
    assert refused.value.retry_after == 5
