"""A node that was lost and is back is asked again, where no other node has the model."""

from typing import Any

import pytest
from relayed import prepared, trace_of

from helexa.accounts.provider import Unmetered
from helexa.actors.leases import Acquire, Lease, Outcome
from helexa.conversation import Event, Events, Progress
from helexa.errors import NotLoaded, ServiceUnavailable
from helexa.fleet.routing import NoOther
from helexa.gateway import MAX_TRIES, Gateway
from helexa.nodes.incoming import UpstreamLost
from helexa.nodes.port import NodeLost
from helexa.trace import Trace

HERE = Progress("prefill", 1, 1)


class OneNode:
    """A fleet that takes its only node to be there, whatever happens."""

    def __init__(self, *, comes_back: bool = True) -> None:
        self.outcomes: list[str] = []
        self.comes_back = comes_back

    def acquire(self, entry: Any, *, session: str, avoid: frozenset[str]) -> Acquire:
        acquire = Acquire(entry, session, avoid)
        if self.outcomes and not self.comes_back:
            acquire.reply.fail(ServiceUnavailable("no node of this fleet is healthy"))
        elif avoid:
            acquire.reply.fail(NoOther("no other node has it"))
        else:
            acquire.reply.set(Lease("east", "the only one"))
        return acquire

    def leave(self, acquire: Acquire, outcome: Outcome) -> None:
        self.outcomes.append(outcome.how)


class Failing:
    """A node that fails so often, and then answers."""

    def __init__(self, times: int, error: Exception) -> None:
        self.times, self.error = times, error

    async def generate(self, *_: object) -> Events:
        if self.times:
            self.times -= 1
            raise self.error
        yield [HERE]


async def answer_of(node: Failing, fleet: OneNode, trace: Trace | None = None) -> list[Event]:
    ports: Any = {"east": node}
    gateway = Gateway(None, fleet, ports, None, Unmetered(), 1.0, 5.0)  # type: ignore[arg-type]
    answer = gateway._answer(prepared(), trace or trace_of())
    return [event async for batch in answer for event in batch]


async def test_a_node_that_was_lost_and_is_back_is_asked_again() -> None:
    fleet = OneNode()
    assert await answer_of(Failing(1, NodeLost("node east is gone")), fleet) == [HERE]
    assert fleet.outcomes == ["lost", "cancelled", "ok"]


async def test_a_node_that_is_lost_again_and_again_is_given_up() -> None:
    fleet = OneNode()
    with pytest.raises(UpstreamLost, match="node east is gone"):
        await answer_of(Failing(99, NodeLost("node east is gone")), fleet)
    assert len(fleet.outcomes) == MAX_TRIES


async def test_a_node_that_is_lost_and_stays_away_is_an_upstream_that_cannot_be_reached() -> None:
    fleet, trace = OneNode(comes_back=False), trace_of()
    with pytest.raises(UpstreamLost, match="node east is gone") as lost:
        await answer_of(Failing(1, NodeLost("node east is gone")), fleet, trace)
    assert (lost.value.status, lost.value.code) == (502, "upstream_connection_error")
    assert trace.node == "east"


async def test_while_another_node_is_looked_for_none_is_named() -> None:
    class Slow(OneNode):
        def acquire(self, entry: Any, *, session: str, avoid: frozenset[str]) -> Acquire:
            named.append(trace.node)
            return super().acquire(entry, session=session, avoid=avoid)

    named: list[str] = []
    trace = trace_of()
    await answer_of(Failing(1, NotLoaded("not there any more")), Slow(), trace)
    assert (named, trace.node) == (["", ""], "east")


async def test_a_node_that_refuses_is_not_asked_again() -> None:
    fleet = OneNode()
    with pytest.raises(ServiceUnavailable, match="recovering"):
        await answer_of(Failing(1, ServiceUnavailable("recovering")), fleet)
    assert fleet.outcomes == ["refused", "cancelled"]
