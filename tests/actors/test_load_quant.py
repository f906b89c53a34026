"""A load that states how the weights are kept: it is done so, joined, or refused in clear words."""

import pytest
import trio
from fakes import FakeHost, entry

from helexa.errors import ModelBusy


@pytest.fixture
async def host(nursery: trio.Nursery) -> FakeHost:
    host = FakeHost()
    await host.start(nursery)
    return host


async def quant_of(host: FakeHost) -> str:
    (place,) = host.node._places.values()
    assert place.model is not None
    return place.model.hosted.quant


async def test_what_a_load_states_overrules_the_catalogue(
    autojump_clock: object, host: FakeHost
) -> None:
    await host.node.load(entry("tiny"), "operator", quant="Q6_K").reply.wait()
    assert await quant_of(host) == "int8"


async def test_another_name_of_the_same_policy_joins(
    autojump_clock: object, host: FakeHost
) -> None:
    await host.node.load(entry("tiny", quant="int8"), "operator").reply.wait()
    for quant in ("", "int8", "Q8_0"):
        await host.node.load(entry("tiny", quant="int8"), "operator", quant=quant).reply.wait()
    assert len(host.worker.models) == 1


async def test_another_policy_is_refused_until_the_model_is_unloaded(
    autojump_clock: object, host: FakeHost
) -> None:
    await host.node.load(entry("tiny"), "operator").reply.wait()
    with pytest.raises(
        ModelBusy, match="loaded with quant none, not int4: unload it first"
    ) as busy:
        await host.node.load(entry("tiny"), "operator", quant="int4").reply.wait()
    assert (busy.value.status, busy.value.param) == (409, "quant")
    await host.node.unload("tiny")
    await host.node.load(entry("tiny"), "operator", quant="int4").reply.wait()
    assert await quant_of(host) == "int4"


async def test_a_request_takes_the_model_as_it_is(autojump_clock: object, host: FakeHost) -> None:
    await host.node.load(entry("tiny"), "operator", quant="int8").reply.wait()
    await host.node.load(entry("tiny", quant="int4")).reply.wait()
    assert await quant_of(host) == "int8"
