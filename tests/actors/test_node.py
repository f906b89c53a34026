"""One node on the mock clock: loads once for all, serves, unloads, recovers, and settles everything."""

from contextlib import aclosing

import pytest
import trio
from attrs import evolve
from fakes import FakeHost, FakeLibrary, ask, entry, trace
from trio.testing import wait_all_tasks_blocked

from helexa.actors.admission import ModelGone
from helexa.config.schema import Admission, Config, Server
from helexa.conversation import (
    ChoiceFinished,
    Conversation,
    Event,
    Finished,
    Progress,
    Sampling,
    Started,
    TextDelta,
    Usage,
)
from helexa.errors import (
    Busy,
    ContextLengthExceeded,
    DevicePoisoned,
    HelexaError,
    InsufficientVram,
    ModelBusy,
    ModelNotFound,
    NotFound,
    NotLoaded,
    ServiceUnavailable,
    StoreError,
)


async def load(host: FakeHost, model: str = "tiny") -> None:
    await host.node.load(entry(model)).reply.wait()


async def answer(host: FakeHost, conversation: Conversation, **options: object) -> list[Event]:
    known = await host.node.known(entry(conversation.model))
    prompt = await host.node.prepare(known, conversation).reply.wait()
    its_trace = options.pop("trace", None) or trace()
    events = []
    async with aclosing(host.node.generate(known, conversation, prompt, its_trace)) as stream:  # type: ignore[arg-type]
        async for batch in stream:
            events.extend(batch)
    return events


def text(events: list[Event], choice: int = 0) -> str:
    return "".join(e.text for e in events if isinstance(e, TextDelta) and e.choice == choice)


@pytest.fixture
async def host(nursery: trio.Nursery) -> FakeHost:
    host = FakeHost()
    await host.start(nursery)
    return host


async def test_an_answer_starts_counts_and_finishes_with_its_usage(
    autojump_clock: object, host: FakeHost
) -> None:
    await load(host)
    events = await answer(host, ask("hello", max_tokens=3))
    assert [e for e in events if not isinstance(e, Progress)] == [
        Started(5),
        TextDelta(0, "1 "),
        TextDelta(0, "2 "),
        TextDelta(0, "3 "),
        ChoiceFinished(0, "length"),
        Finished(Usage(5, 3)),
    ]
    assert host.at_rest


async def test_n_answers_come_side_by_side_and_count_together(
    autojump_clock: object, host: FakeHost
) -> None:
    await load(host)
    events = await answer(host, ask("hello", max_tokens=2, n=3))
    assert [text(events, choice) for choice in range(3)] == ["1 2 "] * 3
    assert events[-1] == Finished(Usage(5, 6))


async def test_a_stop_string_ends_the_sequence_on_the_device(
    autojump_clock: object, host: FakeHost
) -> None:
    await load(host)
    events = await answer(host, ask("hi", max_tokens=100, sampling=Sampling(stop=("3",))))
    assert ChoiceFinished(0, "stop", "3") in events
    await trio.sleep(2)
    assert host.worker.live == {}


async def test_many_who_want_the_same_cold_model_share_one_load(
    autojump_clock: object, host: FakeHost
) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(load, host)
    assert host.worker.num_loads == 1
    assert host.desired.told == [("loading", "tiny"), ("loaded", "tiny")]


async def test_a_model_that_is_not_loaded_is_not_found(
    autojump_clock: object, host: FakeHost
) -> None:
    with pytest.raises(NotLoaded):
        await answer(host, ask())


async def test_a_prompt_over_the_limit_is_refused_before_any_load(
    autojump_clock: object, host: FakeHost
) -> None:
    with pytest.raises(ContextLengthExceeded) as refused:
        await host.node.prepare(await host.node.known(entry()), ask("x" * 801)).reply.wait()
    assert refused.value.details == {"prompt_len": 801, "max": 800}
    assert "maximum context length is 1000 tokens" in refused.value.message


async def test_asking_for_more_than_the_window_gets_what_is_left(
    autojump_clock: object, host: FakeHost
) -> None:
    await load(host)
    events = await answer(host, ask("x" * 790, max_tokens=32_000))
    assert events[-1] == Finished(Usage(790, 210))


async def test_a_client_who_leaves_frees_its_slot_and_its_sequence(
    autojump_clock: object, host: FakeHost
) -> None:
    await load(host)
    with trio.move_on_after(5):
        await answer(host, ask(max_tokens=200))
    await trio.sleep(2)
    assert host.at_rest
    assert (await host.node.status()).models[0].in_flight == 0


async def test_closing_the_stream_early_frees_them_too(
    autojump_clock: object, host: FakeHost
) -> None:
    await load(host)
    known = await host.node.known(entry())
    prompt = await host.node.prepare(known, ask(max_tokens=200)).reply.wait()
    async with aclosing(host.node.generate(known, ask(max_tokens=200), prompt, trace())) as stream:
        async for batch in stream:
            if any(isinstance(event, TextDelta) for event in batch):
                break
    await trio.sleep(2)
    assert host.at_rest
    assert (await host.node.status()).models[0].in_flight == 0


async def test_what_was_generated_is_counted_when_a_client_leaves(
    autojump_clock: object, host: FakeHost
) -> None:
    await load(host)
    its_trace = trace()
    with trio.move_on_after(3.5):
        await answer(host, ask("hello", max_tokens=200), trace=its_trace)
    assert its_trace.usage == Usage(5, 3)


# -- admission -------------------------------------------------------------------------------------


async def narrow(nursery: trio.Nursery, **options: object) -> FakeHost:
    admission = evolve(Admission(max_in_flight=1, max_queue_depth=1), **options)
    host = FakeHost(Config(admission=admission, server=Server(drain_seconds=20)))
    await host.start(nursery)
    await load(host)
    return host


async def test_a_full_queue_refuses_at_once_with_a_measured_retry_after(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = await narrow(nursery)
    await answer(host, ask(max_tokens=40))  # one service time is measured
    nursery.start_soon(answer, host, ask(max_tokens=100))
    nursery.start_soon(answer, host, ask(max_tokens=100))
    await trio.sleep(0.5)
    before = trio.current_time()
    with pytest.raises(Busy) as refused:
        await answer(host, ask())
    assert trio.current_time() == before
    assert refused.value.retry_after is not None
    assert refused.value.retry_after > 20
    nursery.cancel_scope.cancel()


async def test_waiting_too_long_is_refused_and_frees_the_place(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = await narrow(nursery, max_wait_secs=10)
    nursery.start_soon(answer, host, ask(max_tokens=100))
    await trio.sleep(0.5)
    with pytest.raises(Busy, match="waited 10 s"):
        await answer(host, ask())
    await wait_all_tasks_blocked()
    assert (await host.node.status()).models[0].queue_depth == 0
    nursery.cancel_scope.cancel()


async def test_who_waits_hears_of_it_and_is_served_next(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = await narrow(nursery)
    nursery.start_soon(answer, host, ask(max_tokens=8))
    await trio.sleep(0.5)
    its_trace = trace()
    events = await answer(host, ask(max_tokens=1), trace=its_trace)
    assert Progress("queued", 0, 1) in events
    assert text(events) == "1 "
    assert 7 <= its_trace.queue_seconds <= 9
    assert host.at_rest


async def test_leaving_the_queue_frees_the_place_at_once(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = await narrow(nursery)
    nursery.start_soon(answer, host, ask(max_tokens=100))
    await trio.sleep(0.5)
    with trio.move_on_after(1):
        await answer(host, ask())
    await wait_all_tasks_blocked()
    state = (await host.node.status()).models[0]
    assert (state.in_flight, state.queue_depth) == (1, 0)
    nursery.cancel_scope.cancel()


# -- unloading -------------------------------------------------------------------------------------


async def test_an_unload_lets_the_running_answer_end_and_refuses_new_ones(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = await narrow(nursery)
    ended: list[list[Event]] = []

    async def run() -> None:
        ended.append(await answer(host, ask(max_tokens=10)))

    nursery.start_soon(run)
    await trio.sleep(1.5)
    async with trio.open_nursery() as unloading:
        unloading.start_soon(host.node.unload, "tiny")
        await wait_all_tasks_blocked()
        with pytest.raises(NotLoaded):
            await answer(host, ask())
    assert isinstance(ended[0][-1], Finished)
    assert host.worker.models == {}
    assert (await host.node.status()).models == ()
    assert host.desired.told[-1] == ("gone", "tiny")


async def test_an_unload_ends_what_outlasts_the_drain(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = await narrow(nursery)
    errors: list[HelexaError] = []

    async def run() -> None:
        try:
            await answer(host, ask(max_tokens=190))
        except HelexaError as error:
            errors.append(error)

    nursery.start_soon(run)
    await trio.sleep(1.5)
    began = trio.current_time()
    await host.node.unload("tiny")
    assert 20 <= trio.current_time() - began <= 23
    await wait_all_tasks_blocked()
    assert isinstance(errors[0], ServiceUnavailable)
    assert host.at_rest


async def test_a_request_that_waits_when_its_model_leaves_is_told_to_look_again(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = await narrow(nursery)
    nursery.start_soon(answer, host, ask(max_tokens=10))
    await trio.sleep(0.5)
    gone = trio.Event()

    async def wait_in_line() -> None:
        with pytest.raises(ModelGone):
            await answer(host, ask())
        gone.set()

    nursery.start_soon(wait_in_line)
    await trio.sleep(1)
    await host.node.unload("tiny")
    await gone.wait()


async def test_if_idle_refuses_a_busy_model_and_one_that_has_not_served(
    autojump_clock: object, host: FakeHost
) -> None:
    await load(host)
    with pytest.raises(ModelBusy, match="not served"):
        await host.node.unload("tiny", if_idle=True)
    await answer(host, ask(max_tokens=1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer, host, ask(max_tokens=10))
        await trio.sleep(0.5)
        with pytest.raises(ModelBusy, match="1 running"):
            await host.node.unload("tiny", if_idle=True)
    await host.node.unload("tiny", if_idle=True)
    assert (await host.node.status()).models == ()


async def test_a_load_asked_for_during_an_unload_follows_it(
    autojump_clock: object, host: FakeHost
) -> None:
    await load(host)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer, host, ask(max_tokens=5))
        await trio.sleep(0.5)
        nursery.start_soon(host.node.unload, "tiny")
        await wait_all_tasks_blocked()
        nursery.start_soon(load, host)
    assert (await host.node.status()).models[0].status == "loaded"
    assert host.worker.num_loads == 2


async def test_unloading_calls_off_a_load_in_progress(
    autojump_clock: object, host: FakeHost
) -> None:
    host.worker.load_steps = 100
    waiting = host.node.load(entry())
    await trio.sleep(5)
    await host.node.unload("tiny")
    with pytest.raises(ServiceUnavailable, match="called off"):
        await waiting.reply.wait()
    await trio.sleep(2)
    assert host.worker.idle
    assert (await host.node.status()).models == ()


async def test_unloading_what_is_not_there_says_so(autojump_clock: object, host: FakeHost) -> None:
    with pytest.raises(NotFound):
        await host.node.unload("ghost")


# -- failing ---------------------------------------------------------------------------------------


async def test_a_failed_load_is_remembered_and_tried_again_after_its_backoff(
    autojump_clock: object, host: FakeHost
) -> None:
    host.worker.refuse_loads = [StoreError("the weights are torn")]
    with pytest.raises(StoreError, match="torn"):
        await load(host)
    with pytest.raises(StoreError, match="torn") as refused:
        await load(host)
    assert refused.value.retry_after is not None
    assert host.worker.num_loads == 1
    await trio.sleep(refused.value.retry_after)
    await load(host)
    assert (await host.node.status()).models[0].status == "loaded"


async def test_an_operator_may_insist_on_another_try(
    autojump_clock: object, host: FakeHost
) -> None:
    host.worker.refuse_loads = [StoreError("the weights are torn")]
    with pytest.raises(StoreError):
        await load(host)
    await host.node.load(entry(), "operator").reply.wait()
    assert host.desired.told[-2:] == [("loading", "tiny"), ("loaded", "tiny")]


async def test_a_crashed_model_fails_its_answers_recovers_and_serves_again(
    autojump_clock: object, host: FakeHost
) -> None:
    await load(host)
    errors: list[HelexaError] = []

    async def run() -> None:
        try:
            await answer(host, ask(max_tokens=100))
        except HelexaError as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.sleep(2.5)
        host.driver.deliver(host.worker.crash_model("tiny"))
        await wait_all_tasks_blocked()
        with pytest.raises(ServiceUnavailable, match="recovering") as refused:
            await answer(host, ask())
    assert refused.value.retry_after == 2
    assert [type(error) for error in errors] == [ServiceUnavailable]
    await trio.sleep(10)
    assert text(await answer(host, ask(max_tokens=2))) == "1 2 "
    assert host.at_rest


async def test_a_poisoned_device_fails_what_runs_and_is_reported(
    autojump_clock: object, host: FakeHost
) -> None:
    await load(host)
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            with pytest.raises(ServiceUnavailable):
                await answer(host, ask(max_tokens=100))

        nursery.start_soon(run)
        await trio.sleep(2.5)
        host.worker.crash = DevicePoisoned("illegal address")
    assert host.poisoned == ["fake"]
    status = await host.node.status()
    assert status.devices[0].poisoned
    assert status.devices[0].num_sequences == 0


# -- placement and start ---------------------------------------------------------------------------


async def test_a_model_that_fits_no_device_is_refused_with_the_figures(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = FakeHost(library=FakeLibrary(num_parameters=10**10))
    await host.start(nursery)
    with pytest.raises(ModelNotFound, match="fits no device") as refused:
        await load(host)
    assert refused.value.details["required_mb"] > 38_000
    assert refused.value.details["free_mb"] == 16_000


@pytest.mark.parametrize(
    ("wanted", "quant"), [("", "none"), ("auto", "none"), ("int8", "int8"), ("Q4_K_M", "int4")]
)
async def test_a_load_keeps_weights_as_the_entry_says(
    autojump_clock: object, host: FakeHost, wanted: str, quant: str
) -> None:
    await host.node.load(entry("one", quant=wanted)).reply.wait()
    (order,) = host.worker.loads.values()
    assert order.quant == quant


async def test_what_other_loads_were_promised_is_not_promised_again(
    autojump_clock: object, host: FakeHost
) -> None:
    host.worker.load_steps = 50
    host.node.load(entry("one", vram_mb=8_000))
    await trio.sleep(1)
    with pytest.raises(InsufficientVram) as refused:
        await host.node.load(entry("two", vram_mb=8_000)).reply.wait()
    assert refused.value.details["required_mb"] == 8_000
    assert 8_000 <= refused.value.details["free_mb"] < 8_500  # the load has taken 2 % by now


async def test_the_models_of_the_start_come_up_in_order_and_a_failure_stops_nobody(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = FakeHost()
    host.worker.refuse_loads = [StoreError("torn")]
    await host.start(nursery, [entry("one"), entry("two"), entry("three")])
    await trio.sleep(0.5)
    assert (await host.node.status()).activation == "loading"
    await host.node.activated.wait()
    status = await host.node.status()
    assert status.activation == "ready"
    assert status.failed == {"one": "torn"}
    assert {m.entry.id: m.status for m in status.models} == {
        "one": "failed",
        "two": "loaded",
        "three": "loaded",
    }
