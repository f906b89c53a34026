"""The gateway's own bounds: how many wait for a load, and for how long."""

from contextlib import aclosing
from typing import Any

import pytest
import trio
from fakes import FakeHost, ask, entry, trace
from fronts import FakeFront, asked, open_front

from helexa.accounts.amount import Used
from helexa.accounts.provider import Granted, Reservation, Unmetered, Wanted
from helexa.config.schema import Config, Fleet, RemoteNode
from helexa.conversation import Event, Finished, Progress
from helexa.errors import Busy, LedgerUnavailable, ModelNotFound, ServiceUnavailable
from helexa.fleet.catalogue import Catalogue
from helexa.fleet.entry import ModelEntry
from helexa.fleet.limits import Limit
from helexa.fleet.view import ModelView, NodeView
from helexa.listed import fleet_entries
from helexa.nodes.port import NodeLost

CATALOGUE = Catalogue((entry("tiny", aliases=("small",)),))


@pytest.fixture
async def host(nursery: trio.Nursery) -> FakeHost:
    host = FakeHost()
    await host.start(nursery)
    return host


async def front(nursery: trio.Nursery, host: FakeHost | None, **fleet: float) -> FakeFront:
    config = Config(fleet=Fleet(**fleet))  # type: ignore[arg-type]
    return await open_front(nursery, host, CATALOGUE, config)


async def test_a_cold_model_is_loaded_and_the_wait_is_told(
    autojump_clock: object, host: FakeHost, nursery: trio.Nursery
) -> None:
    host.worker.load_steps = 10
    there = await front(nursery, host)
    events = await there.answer(ask(model="small", max_tokens=2))
    assert any(isinstance(event, Progress) and event.phase == "loading" for event in events)
    assert isinstance(events[-1], Finished)


async def test_a_load_that_takes_too_long_is_not_waited_for(
    autojump_clock: object, host: FakeHost, nursery: trio.Nursery
) -> None:
    host.worker.load_steps = 1000
    there = await front(nursery, host, load_wait_secs=30)
    before = trio.current_time()
    with pytest.raises(ServiceUnavailable):
        await there.answer(ask(max_tokens=2))
    assert trio.current_time() - before == pytest.approx(30, abs=2)


async def test_no_more_than_so_many_wait_for_loads(
    autojump_clock: object, host: FakeHost, nursery: trio.Nursery
) -> None:
    host.worker.load_steps = 100
    there = await front(nursery, host, max_load_waiters=2)
    for _ in range(2):
        nursery.start_soon(there.answer, ask(max_tokens=2))
    await trio.sleep(1)
    with pytest.raises(Busy):
        await there.answer(ask(max_tokens=2))
    await trio.sleep(120)
    assert isinstance((await there.answer(ask(max_tokens=2)))[-1], Finished)


async def test_a_name_that_is_not_in_the_catalogue_is_not_found(
    autojump_clock: object, host: FakeHost, nursery: trio.Nursery
) -> None:
    with pytest.raises(ModelNotFound):
        await (await front(nursery, host)).answer(ask(model="ghost"))


async def test_without_a_node_there_is_nobody_to_answer(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    with pytest.raises(ServiceUnavailable) as refused:
        await (await front(nursery, None)).answer(ask())
    assert refused.value.retry_after == 5


async def test_a_model_that_an_operator_loaded_answers_without_being_listed(
    autojump_clock: object, host: FakeHost, nursery: trio.Nursery
) -> None:
    there = await front(nursery, host)
    await host.node.load(entry("beside"), "operator").reply.wait()
    await trio.sleep(5)
    events = await there.answer(ask(model="beside", max_tokens=2))
    assert isinstance(events[-1], Finished)


class Asked(Unmetered):
    """Grants everything, and remembers what was asked for."""

    def __init__(self) -> None:
        self.wanted: list[Wanted] = []

    async def reserve(self, wanted: Wanted) -> Reservation:
        self.wanted.append(wanted)
        return await super().reserve(wanted)


async def test_the_prompt_of_a_model_that_is_not_loaded_is_counted_before_anything_is_reserved(
    autojump_clock: object, host: FakeHost, nursery: trio.Nursery
) -> None:
    budgets = Asked()
    there = await open_front(nursery, host, CATALOGUE, budgets=budgets)
    events = await there.answer(ask("some words", max_tokens=3, n=2))
    (wanted,), finished = budgets.wanted, events[-1]
    assert isinstance(finished, Finished)
    assert wanted.exact
    assert wanted.prompt_tokens == finished.usage.prompt_tokens
    assert (wanted.max_output, wanted.num_answers) == (3, 2)


class Unwritable(Granted):
    """A reservation that cannot be written, which is known after a while."""

    def __init__(self, max_output: int, settled: list[Used]) -> None:
        super().__init__(max_output)
        self.settled = settled

    async def written(self) -> None:
        await trio.sleep(3)
        raise LedgerUnavailable("the disk is full")

    def release(self) -> None:
        self.settled.append(Used())

    def settle(self, used: Used) -> None:
        self.settled.append(used)


class Full(Unmetered):
    def __init__(self) -> None:
        self.settled: list[Used] = []

    async def reserve(self, wanted: Wanted) -> Reservation:
        return Unwritable(wanted.max_output, self.settled)


async def test_nobody_is_answered_nor_charged_before_that_is_written(
    autojump_clock: object, host: FakeHost, nursery: trio.Nursery
) -> None:
    budgets, events = Full(), list[Event]()
    there = await open_front(nursery, host, CATALOGUE, budgets=budgets)

    async def consume() -> None:
        async with aclosing(there.gateway.generate(asked(ask("some words")), trace())) as batches:
            async for batch in batches:
                events.extend(batch)

    with pytest.raises(LedgerUnavailable):
        await consume()
    assert all(isinstance(event, Progress) for event in events)
    assert budgets.settled[0] == Used()  # the first counts
    await trio.sleep(10)
    assert host.worker.live == {}
    assert there.fleet.num_open == 0


# -- models that the catalogue does not list ------------------------------------------------------------


LIMIT = Limit(4096, 3072, 1024)


class Server:
    """An upstream with `models`."""

    name = "vllm"
    is_down = False
    models = ("theirs",)

    async def look(self) -> NodeView:
        if self.is_down:
            raise NodeLost("node vllm cannot be reached")
        entries = [ModelEntry(each, status="loaded", limit=LIMIT) for each in self.models]
        offered = tuple(ModelView(entry) for entry in entries)
        return NodeView(
            self.name, "openai", models=offered, can_load=False, seen_at=trio.current_time()
        )


async def test_models_of_a_server_that_went_down_are_not_unknown(
    autojump_clock: object, host: FakeHost, nursery: trio.Nursery
) -> None:
    server: Any = Server()
    there = await open_front(nursery, host, CATALOGUE, ports=[server])
    await trio.sleep(1)
    server.is_down = True
    await trio.sleep(30)
    with pytest.raises(ServiceUnavailable) as refusal:
        await there.answer(ask(model="theirs"))
    assert refusal.value.retry_after == 5
    with pytest.raises(ModelNotFound):
        await there.answer(ask(model="nobody's"))


async def test_a_server_that_was_never_up_has_the_models_that_it_is_to_offer(
    autojump_clock: object, host: FakeHost, nursery: trio.Nursery
) -> None:
    server: Any = Server()
    server.is_down = True
    node = RemoteNode("vllm", "http://vllm", kind="openai", models=("theirs",))
    there = await open_front(nursery, host, CATALOGUE, Config(nodes=(node,)), ports=[server])
    await trio.sleep(30)
    with pytest.raises(ServiceUnavailable) as refusal:
        await there.answer(ask(model="theirs"))
    assert refusal.value.retry_after == 5


async def test_while_no_node_is_healthy_no_model_is_unknown(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    server: Any = Server()
    server.is_down = True
    there = await open_front(nursery, None, CATALOGUE, ports=[server])
    await trio.sleep(1)
    with pytest.raises(ServiceUnavailable) as refusal:
        await there.answer(ask(model="theirs"))
    assert refusal.value.retry_after == 5


async def test_a_model_that_left_its_node_shows_the_limit_that_it_had_there(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    server: Any = Server()
    server.models = ("tiny",)
    fleet = (await open_front(nursery, None, CATALOGUE, ports=[server])).fleet
    await trio.sleep(1)
    server.models = ()
    await trio.sleep(30)
    (listed,) = await fleet_entries(CATALOGUE, fleet.views, fleet.told, None)
    assert (listed.status, listed.limit, listed.limit_estimated) == ("unloaded", LIMIT, True)
