"""The door of one model on the mock clock: turns, refusals, time-outs, and that every exit settles."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
import trio
from crowds import crowd
from fakes import FakeHost, ask, entry, trace
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from helexa.actors.admission import Admission, ModelGone
from helexa.config.schema import Admission as Settings
from helexa.config.schema import Config
from helexa.conversation import Principal, Progress
from helexa.errors import ActorDown, Busy, HelexaError, ModelBusy, PrincipalBusy
from helexa.fleet.admission import Rules
from helexa.fleet.pace import Demand, Spent
from helexa.fleet.share import PRIORITIES, Share
from helexa.trace import Trace

ANN, BOB, CID = Principal("ann", "ann"), Principal("bob", "bob"), Principal("cid", "cid")
TICK = 1.0


class Door:
    """An admission actor, and what became of those who asked."""

    def __init__(self, rules: Rules, max_wait_seconds: float = 30.0) -> None:
        self.verdicts: Counter[str] = Counter()
        self.admission = Admission("tiny", rules, max_wait_seconds, self._heard)
        self.log: list[str] = []
        self.told: dict[str, list[Progress]] = {}
        self.why: dict[str, str] = {}
        self.errors: dict[str, HelexaError] = {}

    def _heard(self, verdict: str) -> None:
        self.verdicts[verdict] += 1

    async def ask(
        self,
        name: str,
        principal: Principal = ANN,
        seconds: float = 10.0,
        answers: int = 1,
        share: Share = Share(),
        patience: float = float("inf"),
        tokens: int = 100,
    ) -> None:
        """One request that runs for `seconds`, of a client who leaves after `patience`."""
        self.log.append(f"{name} asks")
        with trio.move_on_after(patience) as left:
            try:
                await self._hold(name, principal, seconds, answers, share, tokens)
            except ModelGone:
                self.log.append(f"{name} gone")
            except HelexaError as error:
                self.errors[name] = error
                self.log.append(f"{name} {type(error).__name__}")
            else:
                self.log.append(f"{name} done")
        if left.cancelled_caught:
            self.log.append(f"{name} left")

    async def _hold(
        self,
        name: str,
        principal: Principal,
        seconds: float,
        answers: int,
        share: Share,
        tokens: int,
    ) -> None:
        slot = self.admission.slot(principal, share, Demand(tokens, answers, 50))
        try:
            if why := await self.admission.enter(slot):
                self.why[name] = why
                async with aclosing(self.admission.wait(slot, TICK)) as waiting:
                    async for progress in waiting:
                        self.told.setdefault(name, []).append(progress)
            self.log.append(f"{name} starts")
            await trio.sleep(seconds)
            slot.spent = Spent(tokens, 50 * answers)
        finally:
            self.admission.leave(slot)

    @property
    def started(self) -> list[str]:
        return [line.removesuffix(" starts") for line in self.log if line.endswith(" starts")]

    @property
    def at_rest(self) -> bool:
        occupancy = self.admission.occupancy()
        return (occupancy.in_flight, occupancy.queue_depth, occupancy.waiting_keys) == (0, 0, 0)


@asynccontextmanager
async def open_door(rules: Rules, max_wait_seconds: float = 30.0) -> AsyncIterator[Door]:
    door = Door(rules, max_wait_seconds)
    async with trio.open_nursery() as actor:
        await actor.start(door.admission.run)
        yield door
        actor.cancel_scope.cancel()


# -- turns -------------------------------------------------------------------------------------------


async def test_principals_take_turns_whatever_the_order_they_came_in(
    autojump_clock: object,
) -> None:
    async with open_door(Rules(1)) as door, trio.open_nursery() as clients:
        await crowd(door.ask, clients, "a1", "a2", "a3", seconds=5)
        await crowd(door.ask, clients, "b1", "b2", principal=BOB, seconds=5)
    assert door.started == ["a1", "b1", "a2", "b2", "a3"]
    assert door.at_rest


async def test_places_are_told_in_the_order_of_service(autojump_clock: object) -> None:
    async with open_door(Rules(1)) as door, trio.open_nursery() as clients:
        await crowd(door.ask, clients, "a1", "a2", "a3")
        await trio.sleep(2.5)
        await crowd(door.ask, clients, "b1", principal=BOB)
    assert door.why["a3"] == "queued: 1 of 1 slots are taken; 1 of 1 go first"
    assert door.told["a2"][:2] == [Progress("queued", 0, 2)] * 2
    assert door.told["a2"][2:5] == [Progress("queued", 1, 3)] * 3
    assert door.told["b1"][0] == Progress("queued", 0, 3)
    assert door.why["b1"] == (
        "queued: 1 of 1 slots are taken; it is next; 2 keys wait, its share is 1/2"
    )


async def test_batch_requests_wait_for_interactive_ones(autojump_clock: object) -> None:
    async with open_door(Rules(1)) as door, trio.open_nursery() as clients:
        await crowd(door.ask, clients, "a1", "a2", share=Share(1, "batch"), seconds=5)
        await crowd(door.ask, clients, "b1", "b2", principal=BOB, seconds=5)
    assert door.started == ["a1", "b1", "b2", "a2"]


# -- refusals ----------------------------------------------------------------------------------------


async def test_retry_after_is_what_was_measured_times_those_who_go_first(
    autojump_clock: object,
) -> None:
    async with open_door(Rules(1, max_queue_depth=2)) as door:
        for _ in range(3):
            await door.ask("measured", seconds=7)
        async with trio.open_nursery() as clients:
            await crowd(door.ask, clients, "runs", "waits", "waits too", seconds=7)
            await door.ask("refused")
            await door.ask("again")
            assert isinstance(door.errors["refused"], Busy)
            assert door.errors["refused"].retry_after == pytest.approx(21)
            assert door.errors["again"].retry_after == pytest.approx(21)
            await crowd(door.ask, clients, "b", principal=BOB)
            assert door.why["b"]


async def test_who_floods_is_told_that_his_own_queue_is_full(autojump_clock: object) -> None:
    async with open_door(Rules(1, max_queue_depth=4)) as door, trio.open_nursery() as clients:
        await crowd(door.ask, clients, "b", "b waits", principal=BOB)
        await crowd(door.ask, clients, "a1", "a2")
        await door.ask("a3")
    assert isinstance(door.errors["a3"], PrincipalBusy)
    assert "your share of its queue" in door.errors["a3"].message
    assert door.errors["a3"].retry_after == pytest.approx(20, abs=6)


async def test_above_a_cap_a_principal_is_told_when_one_of_its_own_ends(
    autojump_clock: object,
) -> None:
    async with open_door(Rules(4, max_per_principal=1)) as door:
        await door.ask("measured", seconds=9)
        async with trio.open_nursery() as clients:
            await crowd(door.ask, clients, "a", seconds=9)
            await trio.sleep(2)
            await door.ask("refused")
            await door.ask("b", principal=BOB, seconds=0)
    assert "you have 1 under way" in door.errors["refused"].message
    assert door.errors["refused"].retry_after == pytest.approx(7)
    assert "b done" in door.log


async def test_a_client_who_comes_back_when_told_is_served_at_once(autojump_clock: object) -> None:
    async with open_door(Rules(2, max_queue_depth=4)) as door:
        for _ in range(3):
            await door.ask("measured", seconds=9)
        async with trio.open_nursery() as clients:
            await crowd(door.ask, clients, *(f"a{i}" for i in range(6)), seconds=9)
            await door.ask("refused")
            again = door.errors["refused"].retry_after
            assert again is not None
            await trio.sleep(again + 0.1)
            before = trio.current_time()
            await door.ask("back", seconds=0)
            assert trio.current_time() == before


async def test_waiting_too_long_is_refused_with_what_is_still_ahead(autojump_clock: object) -> None:
    async with open_door(Rules(1), max_wait_seconds=12) as door, trio.open_nursery() as clients:
        await crowd(door.ask, clients, "runs", seconds=40)
        await crowd(door.ask, clients, "a", "b", seconds=5)
        await trio.sleep(13)
        assert door.admission.occupancy().queue_depth == 0
    assert "waited 12 s" in door.errors["a"].message
    assert isinstance(door.errors["b"], Busy)
    assert all(error.retry_after >= 1 for error in door.errors.values() if error.retry_after)
    assert door.at_rest


# -- leaving -----------------------------------------------------------------------------------------


async def test_every_decision_is_counted_once_with_its_reason(autojump_clock: object) -> None:
    async with open_door(Rules(1, 2), max_wait_seconds=15) as door, trio.open_nursery() as clients:
        await crowd(door.ask, clients, "a1", "a2", "a3", "a4")
        await crowd(door.ask, clients, "b1", "b2", principal=BOB)
    assert door.verdicts == {
        "admitted": 1,
        "queued": 3,
        "queue_full": 1,
        "own_queue_full": 1,
        "waited_too_long": 2,
    }


async def test_a_place_that_is_left_goes_to_the_next_at_once(autojump_clock: object) -> None:
    rules = Rules(2, max_queue_depth=2)
    async with open_door(rules) as door, trio.open_nursery() as clients:
        await crowd(door.ask, clients, "a", seconds=50)
        await crowd(door.ask, clients, "wide", principal=BOB, answers=2, patience=3)
        await crowd(door.ask, clients, "c", principal=CID)
        assert door.started == ["a"]
        await trio.sleep(3)
        await wait_all_tasks_blocked()
        assert door.started == ["a", "c"]
    assert door.at_rest


async def test_close_sends_away_who_waits_and_lets_end_who_runs(autojump_clock: object) -> None:
    async with open_door(Rules(1)) as door, trio.open_nursery() as clients:
        await crowd(door.ask, clients, "a", "b")
        await trio.sleep(1)
        with pytest.raises(ModelBusy, match="1 running, 1 waiting"):
            await door.admission.close(if_idle=True)
        await door.admission.close()
        assert trio.current_time() == pytest.approx(10)
        await door.ask("late")
    assert door.log == [
        "a asks",
        "a starts",
        "b asks",
        "b gone",
        "a done",
        "late asks",
        "late gone",
    ]
    assert door.at_rest


async def test_who_waits_when_the_actor_ends_is_told_so(autojump_clock: object) -> None:
    async with trio.open_nursery() as clients, open_door(Rules(1)) as door:
        await crowd(door.ask, clients, "a", "b")
    assert isinstance(door.errors["b"], ActorDown)
    assert door.log[-1] == "a done"


async def test_the_occupancy_tells_how_busy_it_is(autojump_clock: object) -> None:
    async with open_door(Rules(2)) as door:
        assert door.admission.occupancy().service_seconds is None
        await door.ask("measured", seconds=8)
        async with trio.open_nursery() as clients:
            await crowd(door.ask, clients, "a1", "a2", "a3", "a4", seconds=8)
            await crowd(door.ask, clients, "b", principal=BOB)
            busy = door.admission.occupancy()
    assert (busy.in_flight, busy.max_in_flight, busy.queue_depth, busy.waiting_keys) == (2, 2, 3, 2)
    assert busy.service_seconds == pytest.approx(8)
    assert busy.expected_wait_seconds == pytest.approx(8)


# -- whatever happens --------------------------------------------------------------------------------

quarters = st.integers(0, 60).map(lambda number: number / 4)
asking = st.tuples(
    st.just("ask"),
    st.sampled_from([ANN, BOB, CID]),
    quarters,
    st.integers(1, 4),
    st.builds(Share, st.integers(1, 3), st.sampled_from(PRIORITIES)),
    quarters,
)
closing = st.tuples(st.just("close"), st.booleans())
steps = st.lists(st.tuples(quarters, st.one_of(asking, asking, asking, closing)), max_size=25)
caps = st.sampled_from(["auto", 0, 2])


async def live_through(script: list[tuple[float, tuple[object, ...]]], cap: object) -> None:
    rules = Rules(3, 3, cap)  # type: ignore[arg-type]
    async with open_door(rules, max_wait_seconds=8) as door:
        async with trio.open_nursery() as clients:
            for number, (pause, (what, *rest)) in enumerate(script):
                await trio.sleep(pause / 8)
                if what == "ask":
                    clients.start_soon(door.ask, str(number), *rest)
                else:
                    clients.start_soon(close, door, bool(rest[0]))
        await wait_all_tasks_blocked()
        assert door.at_rest
        asked = [line for line in door.log if line.endswith(" asks")]
        ended = [line for line in door.log if not line.endswith((" asks", " starts"))]
        assert len(asked) == len(ended)
        assert not door.admission._turns


async def close(door: Door, if_idle: bool) -> None:
    try:
        await door.admission.close(if_idle=if_idle)
    except ModelBusy:
        door.log.append("busy asks")
        door.log.append("busy done")


@settings(max_examples=100)
@given(steps, caps)
def test_random_lives_leave_nothing_in_the_line(
    script: list[tuple[float, tuple[object, ...]]], cap: object
) -> None:
    trio.run(live_through, script, cap, clock=MockClock(autojump_threshold=0))


# -- a whole request ---------------------------------------------------------------------------------


async def answered(host: FakeHost, its_trace: Trace, tokens: int = 10) -> None:
    asked = ask(max_tokens=tokens)
    known = await host.node.loaded("tiny")
    prompts = await host.node.prepare(known, asked).reply.wait()
    async with aclosing(host.node.generate(known, asked, prompts, its_trace)) as batches:
        async for _ in batches:
            pass


@asynccontextmanager
async def loaded_host() -> AsyncIterator[FakeHost]:
    host = FakeHost(Config(admission=Settings(max_in_flight=1)))
    async with trio.open_nursery() as nursery:
        await host.start(nursery)
        await host.node.load(entry()).reply.wait()
        yield host
        nursery.cancel_scope.cancel()


async def test_the_decision_log_says_why_a_request_was_queued(autojump_clock: object) -> None:
    its_trace = trace()
    async with loaded_host() as host, trio.open_nursery() as clients:
        clients.start_soon(answered, host, trace())
        await trio.sleep(0.5)
        await answered(host, its_trace)
    assert [text for _, text in its_trace.decisions] == [
        "queued: 1 of 1 slots are taken; it is next",
        f"admitted after {its_trace.queue_seconds:.3f} s",
    ]


async def test_a_key_of_batch_priority_lets_interactive_ones_go_first(
    autojump_clock: object,
) -> None:
    batch, interactive = trace(), trace()
    batch.share, interactive.principal = Share(1, "batch"), BOB
    async with loaded_host() as host, trio.open_nursery() as clients:
        for each in (trace(), batch, interactive):
            clients.start_soon(answered, host, each)
            await trio.sleep(0.5)
    assert interactive.admitted_at is not None
    assert batch.admitted_at is not None
    assert interactive.admitted_at < batch.admitted_at


async def test_what_answers_took_is_what_the_next_ones_are_expected_to_take(
    autojump_clock: object,
) -> None:
    async with loaded_host() as host:
        await answered(host, trace(), tokens=20)
        await wait_all_tasks_blocked()
        (state,) = (await host.node.status()).models
        assert state.occupancy.service_seconds == pytest.approx(20, abs=1)
        assert (state.occupancy.max_in_flight, state.occupancy.expected_wait_seconds) == (1, 0)
