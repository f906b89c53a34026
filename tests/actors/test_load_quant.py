"""A load that states how the weights are kept: it is done so, joined, or refused in clear words."""

import pytest
import trio
import trio.testing
from fakes import FakeHost, entry

from helexa.engine.orders import Quant
from helexa.errors import ModelBusy, ServiceUnavailable
from helexa.fleet.quant import Packable


@pytest.fixture
async def host(nursery: trio.Nursery) -> FakeHost:
    host = FakeHost()
    await host.start(nursery)
    return host


def quant_of(host: FakeHost) -> str:
    *_, load = host.worker.loads.values()
    return load.quant


async def test_what_a_load_states_overrules_the_catalogue(
    autojump_clock: object, host: FakeHost
) -> None:
    await host.node.load(entry("tiny"), "operator", quant="Q6_K").reply.wait()
    assert quant_of(host) == "int8"


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
    assert quant_of(host) == "int4"


async def test_a_request_takes_the_model_as_it_is(autojump_clock: object, host: FakeHost) -> None:
    await host.node.load(entry("tiny"), "operator", quant="int8").reply.wait()
    await host.node.load(entry("tiny", quant="int4")).reply.wait()
    assert quant_of(host) == "int8"


# -- auto ------------------------------------------------------------------------------------------

LAYERS = Packable(layers=1 << 20, bits=4, shapes=((1024, 1024, 1),))
SPEEDS: tuple[tuple[Quant, float], ...] = (("int4", 2.0), ("int4+bf16", 1.0), ("none", 4.0))


async def test_auto_is_measured_on_the_device_before_the_load(
    autojump_clock: object, host: FakeHost
) -> None:
    host.library.packable, host.worker.speeds = LAYERS, SPEEDS
    await host.node.load(entry("tiny", quant="auto"), "operator").reply.wait()
    (asked,) = host.worker.measurements
    assert (asked.quants, asked.shapes) == (("int4", "int4+bf16", "none"), LAYERS.shapes)
    assert quant_of(host) == "int4+bf16"
    state = (await host.node.status()).model("tiny")
    assert state is not None
    assert state.choice.reason == "measured: int4+bf16 1 s, int4 2 s, none 4 s"


async def test_what_cannot_be_measured_is_loaded_as_usual(
    autojump_clock: object, host: FakeHost
) -> None:
    host.library.packable = LAYERS
    await host.node.load(entry("tiny", quant="auto"), "operator").reply.wait()
    assert quant_of(host) == "int4"


async def test_nothing_is_measured_for_what_is_stated(
    autojump_clock: object, host: FakeHost
) -> None:
    host.library.packable, host.worker.speeds = LAYERS, SPEEDS
    await host.node.load(entry("tiny", quant="int8"), "operator").reply.wait()
    assert (host.worker.measurements, quant_of(host)) == ([], "int8")


async def test_a_load_that_is_called_off_is_not_waited_for_by_a_measurement(
    autojump_clock: object, host: FakeHost
) -> None:
    host.library.packable, host.worker.measures = LAYERS, False
    load = host.node.load(entry("tiny", quant="auto"), "operator")
    await trio.testing.wait_all_tasks_blocked()
    await host.node.unload("tiny")
    with pytest.raises(ServiceUnavailable, match="called off"):
        await load.reply.wait()
    assert (await host.node.status()).models == ()
