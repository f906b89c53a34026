"""The poller: every node looked at again and again, whatever the others do.  On virtual time."""

import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, cast

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock

from helexa.actors.poller import LOOK_SECONDS, Poller, pause
from helexa.fleet.view import NodeView
from helexa.nodes.port import NodeLost

Look = Callable[["Port"], Awaitable[NodeView]]


async def well(port: "Port") -> NodeView:
    return NodeView(port.name, "helexa")


async def gone(port: "Port") -> NodeView:
    raise NodeLost(f"node {port.name} cannot be reached")


async def hanging(port: "Port") -> NodeView:
    await trio.sleep_forever()
    raise AssertionError


async def broken(port: "Port") -> NodeView:
    raise KeyError("index")


async def slow(port: "Port") -> NodeView:
    await trio.sleep(LOOK_SECONDS - 1)
    return await well(port)


@define(eq=False)
class Port:
    """A node as far as a poller knows one."""

    name: str
    how: Look = well
    looked_at: list[float] = field(factory=list)
    num_looking: int = 0

    async def look(self) -> NodeView:
        self.looked_at.append(trio.current_time())
        self.num_looking += 1
        assert self.num_looking == 1
        try:
            return await self.how(self)
        finally:
            self.num_looking -= 1


@define(eq=False)
class Watched:
    """What a fleet is told, with the time."""

    told: list[tuple[float, str, str]] = field(factory=list)

    def seen(self, view: NodeView) -> None:
        self.told.append((trio.current_time(), view.name, "seen"))

    def lost(self, node: str, why: str) -> None:
        self.told.append((trio.current_time(), node, why))

    def of(self, node: str) -> list[str]:
        return [why for _, name, why in self.told if name == node]


def middle(low: float, high: float) -> float:
    return (low + high) / 2


@asynccontextmanager
async def polling(
    *ports: Port, seconds: float = 2.0, uniform: Callable[[float, float], float] = middle
) -> AsyncGenerator[Watched, None]:
    watched = Watched()
    poller = Poller(cast(Any, ports), watched, seconds, uniform)
    async with trio.open_nursery() as nursery:
        await nursery.start(poller.run)
        yield watched
        nursery.cancel_scope.cancel()


def gaps(times: Iterable[float]) -> list[float]:
    return [round(b - a, 3) for a, b in pairwise(times)]


async def test_a_node_is_looked_at_at_once_and_then_regularly(autojump_clock: MockClock) -> None:
    port = Port("a")
    async with polling(port) as watched:
        await trio.sleep(9)
    assert (len(port.looked_at), set(gaps(port.looked_at))) == (5, {2.0})
    assert watched.of("a") == ["seen"] * 5


async def test_pauses_differ_so_that_nodes_are_not_looked_at_in_step(
    autojump_clock: MockClock,
) -> None:
    ports = [Port(str(i)) for i in range(20)]
    async with polling(*ports, uniform=random.Random(7).uniform):
        await trio.sleep(60)
    last = [port.looked_at[-1] for port in ports]
    assert len(set(last)) == 20
    for port in ports:
        assert all(1.6 <= gap <= 2.4 for gap in gaps(port.looked_at))


async def test_a_node_that_is_down_is_looked_at_less_and_less_often(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    port = Port("a", gone)
    caplog.set_level("INFO")
    async with polling(port) as watched:
        await trio.sleep(119)
        assert gaps(port.looked_at)[:6] == [2, 4, 8, 16, 30, 30]
        assert set(watched.of("a")) == {"node a cannot be reached"}
        port.how = well
        await trio.sleep(6)
        assert watched.of("a")[-1] == "seen"
        assert gaps(port.looked_at)[-1] == 2
    assert caplog.text.count("node lost") == 1
    assert caplog.text.count("node is back") == 1


async def test_a_node_that_comes_and_goes_is_told_of_each_time(autojump_clock: MockClock) -> None:
    async def flapping(port: Port) -> NodeView:
        return await (gone if len(port.looked_at) % 2 else well)(port)

    async with polling(Port("a", flapping)) as watched:
        await trio.sleep(11)
    assert watched.of("a") == ["node a cannot be reached", "seen"] * 3


async def test_another_reason_for_which_a_node_is_lost_is_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    port = Port("a", gone)
    async with polling(port):
        await trio.sleep(15)
        port.how = broken
        await trio.sleep(60)
    assert caplog.text.count("node lost") == 2


async def test_a_node_that_hangs_is_lost_and_holds_up_no_other(autojump_clock: MockClock) -> None:
    stuck, other = Port("stuck", hanging), Port("other")
    async with polling(stuck, other) as watched:
        await trio.sleep(LOOK_SECONDS + 1)
    assert watched.of("stuck") == ["node stuck has not answered within 10 s"]
    assert len(watched.of("other")) == 6


async def test_a_slow_node_is_seen_and_never_looked_at_twice_at_once(
    autojump_clock: MockClock,
) -> None:
    port = Port("a", slow)
    async with polling(port) as watched:
        await trio.sleep(40)
    assert set(watched.of("a")) == {"seen"}


async def test_a_bug_in_a_look_is_logged_and_loses_that_node_alone(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with polling(Port("a", broken), Port("b")) as watched:
        await trio.sleep(5)
    assert set(watched.of("a")) == {"what node a tells cannot be used"}
    assert set(watched.of("b")) == {"seen"}
    assert "look failed by a bug" in caplog.text


async def test_of_very_many_nodes_each_is_looked_at_less_often(autojump_clock: MockClock) -> None:
    ports = [Port(str(i)) for i in range(640)]
    async with polling(*ports):
        await trio.sleep(6)
        assert {len(port.looked_at) for port in ports} == {1}
        assert gaps(port.looked_at[0] for port in ports) == pytest.approx(
            [1 / 128] * 639, abs=0.001
        )
        await trio.sleep(20)
        assert {len(port.looked_at) for port in ports} == {2}


@pytest.mark.parametrize(
    ("poll_seconds", "failures", "seconds"),
    [(2, 0, 2), (2, 1, 2), (2, 2, 4), (2, 5, 30), (2, 10_000, 30), (60, 3, 60), (0.5, 2, 1)],
)
def test_a_pause_doubles_up_to_half_a_minute(
    poll_seconds: float, failures: int, seconds: float
) -> None:
    assert pause(poll_seconds, failures) == seconds
