"""Script models on a device, on virtual time: their pace, their ends, and what else runs beside them."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.lowlevel
from fakes import FakeWorker, VirtualDriver, cpu, readings
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from helexa.actors.device import Device, DeviceThread, Inbox
from helexa.actors.generation import drain
from helexa.actors.script import AT_ONCE, spoken
from helexa.devices.monitor import Readings
from helexa.engine.orders import (
    Add,
    Crashed,
    Failed,
    Load,
    Loaded,
    LoadProgress,
    Notice,
    Piece,
    PrefillProgress,
    PromptScores,
    SamplingParams,
    Script,
    ScriptLoad,
    Unloaded,
)
from helexa.errors import ServiceUnavailable

END = 99


async def read() -> Readings:
    await trio.lowlevel.checkpoint()
    return readings(free_mb=10_000)


def no_worker() -> FakeWorker:
    raise AssertionError("a script model needs no thread")


def make_device(driver: object = None) -> Device:
    driver = driver or DeviceThread("fake", no_worker)
    return Device(cpu(), driver, read, lambda name: None)  # type: ignore[arg-type]


@pytest.fixture
async def device(nursery: trio.Nursery) -> Device:
    device = make_device()
    await nursery.start(device.run)
    return device


def load(script: ScriptLoad | None, uid: int) -> Load:
    return Load(uid, "tiny", Path("/nowhere"), "cpu", "fp32", 8, 256, script)


def load_of(seconds: float = 0.0, megabytes: int = 1) -> "partial[Load]":
    return partial(load, ScriptLoad(seconds, megabytes << 20))


async def loaded(device: Device, seconds: float = 0.0, megabytes: int = 1) -> int:
    uid, inbox = device.load(load_of(seconds, megabytes))
    while not isinstance(await inbox.receive(), Loaded):
        pass
    return uid


def add(
    model: int,
    tokens: Sequence[int],
    pace: float = 0.0,
    fail_after: int | None = None,
    max_tokens: int = 1000,
    **options: object,
) -> "partial[Add]":
    script = Script((*tokens, END), pace, fail_after)
    return partial(
        Add,
        model_uid=model,
        prompt=(1, 2, 3),
        max_tokens=max_tokens,
        stop_ids=options.pop("stop_ids", frozenset({END})),
        script=script,
        **options,
    )


async def answers(device: Device, *orders: "partial[Add]") -> list[list[tuple[float, Notice]]]:
    """What came of each order, with the seconds after which it came."""
    began = trio.current_time()
    with device.sequences(orders) as (uids, inbox):
        found: dict[int, list[tuple[float, Notice]]] = {uid: [] for uid in uids}
        unfinished = set(uids)
        while unfinished:
            notice = await inbox.receive()
            found[notice.uid].append((trio.current_time() - began, notice))
            if isinstance(notice, Failed) or (isinstance(notice, Piece) and notice.finish):
                unfinished.discard(notice.uid)
    return list(found.values())


def told(answer: list[tuple[float, Notice]]) -> list[int]:
    return [notice.token for _, notice in answer if isinstance(notice, Piece)]


def moments(answer: list[tuple[float, Notice]]) -> list[float]:
    return [round(moment, 6) for moment, notice in answer if isinstance(notice, Piece)]


# -- what is said ----------------------------------------------------------------------------------


async def test_a_script_is_said_and_ends_with_the_token_that_ends_answers(
    device: Device, autojump_clock: MockClock
) -> None:
    (answer,) = await answers(device, add(await loaded(device), (5, 6, 7)))
    notices = [notice for _, notice in answer]
    uid = notices[0].uid
    assert notices == [
        PrefillProgress(uid, 3, 3),
        Piece(uid, 5),
        Piece(uid, 6),
        Piece(uid, 7),
        Piece(uid, END, "stop"),
    ]


async def test_tokens_come_at_their_pace(device: Device, autojump_clock: MockClock) -> None:
    (answer,) = await answers(device, add(await loaded(device), (5, 6, 7), pace=4.0))
    assert moments(answer) == [0.25, 0.5, 0.75, 1.0]


async def test_many_sequences_keep_a_pace_of_their_own(
    device: Device, autojump_clock: MockClock
) -> None:
    model, other = await loaded(device), await loaded(device)
    slow, fast, instant = await answers(
        device,
        add(model, (1,) * 3, pace=1.0),
        add(model, (2,) * 99, pace=100.0),
        add(other, (3,) * 200),
    )
    assert moments(slow) == [1.0, 2.0, 3.0, 4.0]
    assert moments(fast)[-1] == 1.0
    assert moments(instant)[-1] == 0.0
    assert len(told(instant)) == 201


async def test_a_pace_faster_than_the_clock_is_kept_on_average(
    device: Device, autojump_clock: MockClock
) -> None:
    (answer,) = await answers(
        device, add(await loaded(device), (1,) * 9_999, pace=1e5, max_tokens=10**6)
    )
    assert moments(answer)[-1] == pytest.approx(0.1, rel=0.01)


async def test_the_oddest_paces_do_no_harm(device: Device, autojump_clock: MockClock) -> None:
    model = await loaded(device)
    (answer,) = await answers(device, add(model, (1,) * 200, pace=1e308))
    assert len(told(answer)) == 201
    uid, _ = device.load(load_of(seconds=1e308))
    with device.sequences([add(model, (1,), pace=5e-324)]):
        await trio.sleep(100)
    device.abandon(uid)


async def test_an_answer_ends_at_its_length_and_at_an_end_that_is_written_in_it(
    device: Device,
    autojump_clock: MockClock,
) -> None:
    model = await loaded(device)
    short, early = await answers(
        device, add(model, (5, 6, 7), max_tokens=2), add(model, (5, END, 7))
    )
    assert (told(short), short[-1][1].finish) == ([5, 6], "length")  # type: ignore[union-attr]
    assert (told(early), early[-1][1].finish) == ([5, END], "stop")  # type: ignore[union-attr]


async def test_what_nothing_ends_begins_anew(device: Device, autojump_clock: MockClock) -> None:
    order = add(await loaded(device), (5, 6), max_tokens=7, stop_ids=frozenset())
    (answer,) = await answers(device, order)
    assert told(answer) == [5, 6, END, 5, 6, END, 5]


async def test_log_probabilities_are_those_of_a_certain_model(
    device: Device, autojump_clock: MockClock
) -> None:
    model = await loaded(device)
    bare, one = await answers(
        device,
        add(model, (5,), sampling=SamplingParams(top_logprobs=0), prompt_logprobs=0),
        add(model, (5,), sampling=SamplingParams(top_logprobs=3), prompt_logprobs=2),
    )
    assert [(n.logprob, n.top) for _, n in bare if isinstance(n, Piece)] == [(0.0, ())] * 2
    assert [n.top for _, n in one if isinstance(n, Piece)] == [((5, 0.0),), ((END, 0.0),)]
    (scores,) = [n for _, n in one if isinstance(n, PromptScores)]
    (first, nan, none), *others = scores.tokens
    assert (first, none) == (1, ())
    assert math.isnan(nan)
    assert others == [(2, 0.0, ((2, 0.0),)), (3, 0.0, ((3, 0.0),))]


# -- failing, leaving, unloading -------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 2])
async def test_an_answer_fails_after_its_tokens_and_hurts_no_other(
    device: Device, autojump_clock: MockClock, after: int
) -> None:
    model = await loaded(device)
    failing, fine = await answers(
        device, add(model, (5, 6, 7), pace=1.0, fail_after=after), add(model, (8,) * 9, pace=1.0)
    )
    assert told(failing) == [5, 6][:after]
    failed = failing[-1][1]
    assert isinstance(failed, Failed)
    assert failed.error.message == (
        f"the script model failed after {after} tokens, as its rules say"
    )
    assert failed.error.retry_after == 2.0
    assert told(fine) == [8] * 9 + [END]


async def test_an_answer_that_is_complete_before_its_failure_is_complete(
    device: Device, autojump_clock: MockClock
) -> None:
    model = await loaded(device)
    whole, cut = await answers(
        device, add(model, (5,), fail_after=2), add(model, (5, 6, 7), fail_after=2, max_tokens=2)
    )
    assert (told(whole), told(cut)) == ([5, END], [5, 6])


async def test_an_abort_ends_an_answer_at_once(device: Device, autojump_clock: MockClock) -> None:
    model = await loaded(device)
    with device.sequences([add(model, (5,) * 9, pace=1.0)]) as (uids, inbox):
        await trio.sleep(2.5)
        device.abort(uids[0])
        await trio.sleep(10.0)
        pieces = [n for n in await drain(inbox, 0.0) if isinstance(n, Piece)]
    assert len(pieces) == 2
    assert device.status().num_sequences == 0


async def test_a_load_that_is_called_off_gives_back_what_it_filled(
    device: Device, autojump_clock: MockClock
) -> None:
    uid, _ = device.load(load_of(seconds=60.0, megabytes=100))
    await trio.sleep(30.1)
    assert device.status().readings == Readings(50, 9_950)
    device.abandon(uid)
    await wait_all_tasks_blocked()
    assert device.status().readings == Readings(0, 10_000)


async def test_an_abort_in_the_moment_of_a_token_leaves_nothing(
    device: Device, autojump_clock: MockClock
) -> None:
    model = await loaded(device)
    for _ in range(3):
        with device.sequences([add(model, (5,) * 9, pace=1.0)]):
            await trio.sleep(1.0)
        uid, _ = device.load(load_of(seconds=1.0, megabytes=100))
        await trio.sleep(1.0)
        device.abandon(uid)
    await trio.sleep(5.0)
    assert device.status().readings == Readings(1, 9_999)  # the model's


async def test_an_unload_ends_what_runs_and_frees_what_was_filled(
    device: Device, autojump_clock: MockClock
) -> None:
    uid, inbox = device.load(load_of(megabytes=300))
    while not isinstance(await inbox.receive(), Loaded):
        pass
    assert device.status().readings == Readings(300, 9_700)
    other = await loaded(device)
    with (
        device.sequences([add(uid, (5,) * 9, pace=1.0)]) as (_, running),
        device.sequences([add(other, (5,) * 9, pace=1.0)]) as (_, neighbour),
    ):
        await trio.sleep(1.5)
        device.unload(uid)
        assert await inbox.receive() == Unloaded(uid)
        failed = await failure(running)
        assert "unloaded while this request ran" in failed.error.message
        (late,) = await answers(device, add(uid, (5,)))
        assert "unloaded before this request" in late[0][1].error.message  # type: ignore[union-attr]
        await trio.sleep(1.0)
        neighbour.receive_nowait()
    assert device.status().readings == Readings(1, 9_999)


async def failure(inbox: Inbox) -> Failed:
    while not isinstance(notice := await inbox.receive(), Failed):
        pass
    return notice


# -- loading ---------------------------------------------------------------------------------------


async def test_a_load_takes_its_time_and_fills_memory_as_it_goes(
    device: Device, autojump_clock: MockClock
) -> None:
    uid, inbox = device.load(load_of(seconds=2.0, megabytes=4))
    notices = []
    while not (notices and isinstance(notices[-1], Loaded)):
        notices.append(await inbox.receive())
    assert notices == [
        *(LoadProgress(uid, quarters << 20, 4 << 20) for quarters in range(5)),
        Loaded(uid, 4 << 20, 2.0),
    ]
    assert device.status().readings == Readings(4, 9_996)


async def test_two_loads_go_on_beside_each_other(device: Device, autojump_clock: MockClock) -> None:
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loaded, device, 3.0)
        nursery.start_soon(loaded, device, 2.0)
    assert trio.current_time() - began == 3.0


# -- the device's thread beside it -----------------------------------------------------------------


async def test_a_model_of_the_thread_crashes_alone(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    driver = VirtualDriver(FakeWorker())
    device = make_device(driver)
    await nursery.start(device.run)
    torch, inbox = device.load(partial(load, None))
    while not isinstance(await inbox.receive(), Loaded):
        pass
    script = await loaded(device)
    assert torch > 0 > script
    with (
        device.sequences([partial(Add, model_uid=torch, prompt=(1,), max_tokens=99)]) as (_, one),
        device.sequences([add(script, (5,) * 9, pace=1.0)]) as (_, two),
    ):
        await trio.sleep(2.5)
        driver.deliver(driver.worker.crash_model("tiny"))
        await failure(one)
        while not isinstance(last := await two.receive(), Piece) or not last.finish:
            pass
    assert last.token == END


async def test_a_device_that_crashes_takes_its_script_models_along(
    autojump_clock: MockClock,
) -> None:
    driver = VirtualDriver(FakeWorker())
    device = make_device(driver)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_crash, device)
        await wait_all_tasks_blocked()
        uid, inbox = device.load(load_of(megabytes=300))
        while not isinstance(await inbox.receive(), Loaded):
            pass
        with device.sequences([add(uid, (5,) * 9, pace=1.0)]) as (_, running):
            device.load(partial(load, None))
            driver.worker.crash = OSError("boom")
            failed = await failure(running)
        assert isinstance(failed.error, ServiceUnavailable)
        assert isinstance(await inbox.receive(), Crashed)
        assert device.status().readings == Readings(0, 10_000)


async def expect_crash(device: Device) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="boom"), allow_unwrapped=True):
        await device.run()


# -- as a law --------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 5), max_size=2 * AT_ONCE),
    st.integers(1, 3 * AT_ONCE),
    st.none() | st.integers(0, 3 * AT_ONCE),
    st.frozensets(st.integers(0, 5)),
)
def test_an_answer_has_one_end_and_never_more_than_it_may(
    tokens: list[int], max_tokens: int, fail_after: int | None, stop_ids: frozenset[int]
) -> None:
    order = Add(-1, -2, (1,), max_tokens, stop_ids=stop_ids)
    *before, last = spoken(order, Script((*tokens, END), 0.0, fail_after))
    assert all(isinstance(n, Piece) and n.finish is None for n in before)
    assert all(n.token not in stop_ids for n in before)  # type: ignore[union-attr]
    if isinstance(last, Failed):
        assert len(before) == fail_after
    else:
        assert isinstance(last, Piece)
        assert last.finish == ("stop" if last.token in stop_ids else "length")
        assert (len(before) + 1 == max_tokens) or last.finish == "stop"
        assert fail_after is None or len(before) < fail_after
