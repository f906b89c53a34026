"""The lines that a gateway keeps before an upstream: who waits, who is refused, whose turn is next."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
import trio
from crowds import crowd
from relayed import prepared
from trio.testing import wait_all_tasks_blocked

from helexa.config.schema import Admission, Config, RemoteNode
from helexa.conversation import Events, Finished, Principal, Progress, TextDelta, Usage
from helexa.errors import Busy, HelexaError, PrincipalBusy
from helexa.fleet.admission import Rules
from helexa.fleet.entry import ModelEntry
from helexa.fleet.share import Share
from helexa.fleet.view import ModelView, NodeView
from helexa.front import admitting
from helexa.metrics import Metrics
from helexa.nodes.admitting import AdmittingPort
from helexa.nodes.asked import Prepared
from helexa.nodes.client import Client
from helexa.nodes.upstream import UpstreamPort
from helexa.trace import Trace

ANN, BOB = Principal("ann", "ann"), Principal("bob", "bob")
MODEL = "the-model"
ANSWER_SECONDS, TICK = 10.0, 2.0


class Upstream:
    """Answers whatever is asked within ten seconds, however many ask."""

    name = "vllm"

    def __init__(self) -> None:
        self.began: list[str] = []  # the requests in the order in which they came through

    async def look(self) -> NodeView:
        return NodeView("vllm", "openai", models=(ModelView(ModelEntry(MODEL)),))

    async def generate(self, prepared: Prepared, trace: Trace) -> Events:
        self.began.append(trace.request_id)
        await trio.sleep(ANSWER_SECONDS)
        yield [TextDelta(0, "Hi")]
        trace.usage = Usage(7, 1)
        yield [Finished(trace.usage)]


class Room:
    def __init__(self, port: AdmittingPort, upstream: Upstream) -> None:
        self.port = port
        self.upstream = upstream
        self.verdicts: Counter[str] = Counter()
        self.told: dict[str, list[Progress]] = {}
        self.errors: dict[str, HelexaError] = {}
        self.traces: dict[str, Trace] = {}

    async def ask(self, name: str, who: Principal = ANN, share: Share = Share()) -> None:
        trace = self.traces[name] = Trace(name, "chat", who, share=share)
        try:
            async with aclosing(self.port.generate(prepared(max_tokens=5), trace)) as batches:
                async for batch in batches:
                    self.told.setdefault(name, []).extend(
                        event for event in batch if isinstance(event, Progress)
                    )
        except HelexaError as error:
            self.errors[name] = error

    async def view(self) -> ModelView:
        await wait_all_tasks_blocked()
        (model,) = (await self.port.look()).models
        return model


@asynccontextmanager
async def room(rules: Rules, max_wait_seconds: float = 60.0) -> AsyncIterator[Room]:
    upstream: Any = Upstream()

    def heard(model: str, node: str, verdict: str) -> None:
        assert (model, node) == (MODEL, "vllm")
        there.verdicts[verdict] += 1

    width = rules.max_in_flight
    there = Room(AdmittingPort(upstream, width, rules, max_wait_seconds, TICK, heard), upstream)
    async with trio.open_nursery() as nursery:
        await nursery.start(there.port.run)
        yield there
        await wait_all_tasks_blocked()
        assert [load.in_flight for _, load in there.port.occupancies()] in ([], [0])
        nursery.cancel_scope.cancel()


async def test_what_is_too_much_for_an_upstream_waits_in_turns_and_is_told_its_place(
    autojump_clock: object,
) -> None:
    async with room(Rules(1)) as there, trio.open_nursery() as clients:
        await crowd(there.ask, clients, "a1", "a2", "a3")
        await crowd(there.ask, clients, "b1", who=BOB)
        view = await there.view()
        assert (view.in_flight, view.queue_depth, view.width) == (1, 3, 1)
    assert there.upstream.began == ["a1", "b1", "a2", "a3"]
    assert there.told["a3"][0] == Progress("queued", 2, 3)
    assert there.verdicts == {"admitted": 1, "queued": 3}
    assert there.traces["b1"].queue_seconds == ANSWER_SECONDS
    assert "is next" in str(there.traces["b1"].decisions)


async def test_the_fleet_is_told_how_long_an_upstream_takes(autojump_clock: object) -> None:
    async with room(Rules(4)) as there:
        assert (await there.view()).service_seconds is None
        await there.ask("first")
        view = await there.view()
    assert (view.in_flight, view.queue_depth, view.service_seconds) == (0, 0, ANSWER_SECONDS)


async def test_a_full_line_before_an_upstream_is_refused_with_the_measured_wait(
    autojump_clock: object,
) -> None:
    async with room(Rules(1, 1), max_wait_seconds=5) as there, trio.open_nursery() as clients:
        await crowd(there.ask, clients, "served")
        await trio.sleep(ANSWER_SECONDS)
        await crowd(there.ask, clients, "running", "waiting", "refused")
    assert isinstance(there.errors["refused"], Busy)
    assert isinstance(there.errors["waiting"], Busy)
    assert there.errors["refused"].retry_after == 2 * ANSWER_SECONDS
    assert there.verdicts == {"admitted": 2, "queued": 1, "queue_full": 1, "waited_too_long": 1}


async def test_a_number_caps_each_principal_of_an_upstream_that_takes_all(
    autojump_clock: object,
) -> None:
    async with room(Rules(1024, 8, 2)) as there, trio.open_nursery() as clients:
        await crowd(there.ask, clients, "a1", "a2", "a3")
        await crowd(there.ask, clients, "b1", who=BOB)
    assert isinstance(there.errors.pop("a3"), PrincipalBusy)
    assert not there.errors
    assert there.verdicts == {"admitted": 3, "principal_busy": 1}


@pytest.mark.parametrize(
    ("of_node", "of_all", "asked_at_once", "told"), [(4, 2, 4, 4), (0, 2, 2, 2), (0, 0, 1024, 0)]
)
def test_how_many_an_upstream_is_asked_for_at_once_is_its_own_bound_or_that_of_all(
    of_node: int, of_all: int, asked_at_once: int, told: int
) -> None:
    config = Config(admission=Admission(max_in_flight=of_all, max_queue_depth=3))
    node = RemoteNode("vllm", "http://vllm:8000", "openai", max_in_flight=of_node)
    port = admitting(UpstreamPort(node, Client(node)), config, Metrics())
    assert port._rules == Rules(asked_at_once, 3, "auto")
    assert port._width == told


async def test_who_leaves_the_line_of_an_upstream_gives_up_the_place(
    autojump_clock: object,
) -> None:
    async with room(Rules(1)) as there, trio.open_nursery() as clients:
        await crowd(there.ask, clients, "running")
        with trio.move_on_after(1):
            await there.ask("left")
        await crowd(there.ask, clients, "next")
    assert there.upstream.began == ["running", "next"]
