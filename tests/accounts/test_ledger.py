"""The ledger actor over a real file: what counts at once, what is on disk when, and what fails how."""

import os
import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from ledgers import ANN, BOB, OpenLedger, Rows, granted, want
from prometheus_client import CollectorRegistry
from prometheus_client.samples import Sample
from trio.testing import MockClock, assert_no_checkpoints, wait_all_tasks_blocked

from helexa.accounts.amount import Prices, Used
from helexa.accounts.budget import Budget
from helexa.accounts.database import Database
from helexa.accounts.provider import Budgets, Remaining, Unmetered
from helexa.accounts.windows import Cap, Scope, Window
from helexa.actors.journal import LAZY_SECONDS, PACE_SECONDS, SOON_SECONDS
from helexa.errors import BudgetHeld, InsufficientQuota, LedgerUnavailable

HUNDRED = {ANN: Budget(hard_cap=100)}


class Commits:
    """The completion tokens of the one request, commit by commit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[int] = []
        self._committed = threading.Semaphore(0)
        commit = Database.commit

        def seeing(database: Database, batch: Any) -> None:
            commit(database, batch)
            self.seen += [row.used.completion for row in batch.rows.values()]
            self._committed.release()

        monkeypatch.setattr(Database, "commit", seeing)

    async def until(self, seen: list[int]) -> None:
        while self.seen != seen:
            assert await trio.to_thread.run_sync(self._committed.acquire, True, 10.0)


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> Commits:
    return Commits(monkeypatch)


REQUESTS = "SELECT outcome, reserved_tokens, prompt_tokens, completion_tokens FROM requests"
SPENT = "SELECT tokens FROM meters WHERE key_id = 'ann' AND kind = 'balance'"


async def test_a_reservation_is_on_disk_before_its_request_is_answered(
    open_at: OpenLedger, rows: Rows
) -> None:
    async with open_at(HUNDRED) as ledger:
        with await ledger.reserve(want()) as held:
            await held.written()
            assert held.max_output == 20
            assert rows(REQUESTS) == [("open", 30, 0, 0)]
        assert ledger.num_open == 0


@contextmanager
def nobody_else_runs() -> Iterator[None]:
    """The block waits for nothing, whatever it awaits."""
    others: list[None] = []
    trio.lowlevel.current_trio_token().run_sync_soon(others.append, None)
    yield
    assert not others


async def test_who_has_no_budget_waits_for_nothing_and_is_on_disk_within_half_a_second(
    open_at: OpenLedger, rows: Rows, commits: Commits, mock_clock: MockClock
) -> None:
    async with open_at(HUNDRED) as ledger:
        with nobody_else_runs():
            held = await ledger.reserve(want(BOB))
            await held.written()
        await wait_all_tasks_blocked()
        assert rows(REQUESTS) == []
        mock_clock.jump(LAZY_SECONDS)
        await commits.until([0])
        assert rows(REQUESTS) == [("open", 30, 0, 0)]
        held.release()


async def test_who_has_a_budget_waits_for_no_more_than_the_file(open_at: OpenLedger) -> None:
    """Its place is taken at once, though, for everybody who comes after it."""
    async with open_at(HUNDRED) as ledger:
        with nobody_else_runs():
            held = await ledger.reserve(want())
        assert ledger.snapshot(ANN) == Remaining(100, 70, None)
        await held.written()
        with nobody_else_runs():
            await held.written()
        held.release()


async def test_what_is_settled_counts_at_once_and_is_on_disk_after_a_flush(
    open_at: OpenLedger, rows: Rows
) -> None:
    async with open_at(HUNDRED) as ledger:
        with await ledger.reserve(want()) as held:
            held.settle(Used(10, 7))
        assert ledger.snapshot(ANN) == Remaining(100, 83, None)
        await ledger.flush()
        assert rows(REQUESTS) == [("settled", 30, 10, 7)]
        assert rows(SPENT) == [(17,)]


async def test_who_leaves_early_pays_for_what_was_made_until_then(
    open_at: OpenLedger, rows: Rows
) -> None:
    async with open_at(HUNDRED) as ledger:
        with await ledger.reserve(want()) as held:
            held.used(Used(10, 1))
            held.used(Used(10, 4))
        held.settle(Used(10, 20))  # too late: the first end counts
        assert ledger.snapshot(ANN) == Remaining(100, 86, None)
    assert rows(REQUESTS) == [("released", 30, 10, 4)]
    assert rows(SPENT) == [(14,)]


async def test_who_never_began_pays_nothing(open_at: OpenLedger, rows: Rows) -> None:
    async with open_at(HUNDRED) as ledger:
        (await ledger.reserve(want())).release()
        assert ledger.snapshot(ANN) == Remaining(100, 100, None)
    assert rows(REQUESTS) == [("released", 30, 0, 0)]


async def test_progress_is_written_within_half_a_second_and_the_first_soon(
    open_at: OpenLedger, commits: Commits, mock_clock: MockClock
) -> None:
    async with open_at(HUNDRED) as ledger:
        with await ledger.reserve(want()) as held:
            await held.written()
            held.used(Used(10, 1))
            mock_clock.jump(PACE_SECONDS)
            await commits.until([0, 1])
            held.used(Used(10, 2))
            held.used(Used(10, 3))
            await wait_all_tasks_blocked()
            mock_clock.jump(0.4)
            await wait_all_tasks_blocked()
            assert commits.seen == [0, 1]
            mock_clock.jump(0.2)
            await commits.until([0, 1, 3])


async def test_many_requests_share_a_commit_as_one_follows_the_other_at_a_pace(
    open_at: OpenLedger, commits: Commits, mock_clock: MockClock
) -> None:
    async with open_at(HUNDRED) as ledger:
        (await ledger.reserve(want())).settle(Used(10, 1))
        mock_clock.jump(SOON_SECONDS)
        await commits.until([1])
        for tokens in (2, 3):
            (await ledger.reserve(want())).settle(Used(10, tokens))
            mock_clock.jump(SOON_SECONDS)
            await wait_all_tasks_blocked()
        assert commits.seen == [1]
        mock_clock.jump(PACE_SECONDS)
        await commits.until([1, 2, 3])


async def test_settling_waits_for_nothing(open_at: OpenLedger) -> None:
    async with open_at(HUNDRED) as ledger:
        held = await ledger.reserve(want())
        with assert_no_checkpoints():
            held.used(Used(10, 5))
            held.settle(Used(10, 6))
        assert ledger.snapshot(ANN) == Remaining(100, 84, None)


async def test_a_request_that_is_cancelled_while_it_reserves_holds_nothing(
    open_at: OpenLedger,
) -> None:
    async with open_at(HUNDRED) as ledger:
        with trio.CancelScope() as scope:
            scope.cancel()
            await ledger.reserve(want())
        assert scope.cancelled_caught
        assert (ledger.num_open, ledger.snapshot(ANN)) == (0, Remaining(100, 100, None))


BURSTS = int(os.environ.get("HELEXA_TEST_BURSTS", "5"))


@pytest.mark.parametrize("burst", range(BURSTS))
async def test_two_hundred_at_once_never_take_a_token_too_many_nor_are_refused_one_too_few(
    open_at: OpenLedger, burst: int
) -> None:
    """Each wants and takes something else; afterwards there is room for exactly what is left."""
    chance = random.Random(burst)
    async with open_at({ANN: Budget(hard_cap=1000)}) as ledger:
        taken, held_up = [], []

        async def ask(prompt: int, output: int) -> None:
            try:
                with await ledger.reserve(want(prompt=prompt, output=output)) as held:
                    used = chance.randint(0, output)
                    for number in range(1, used + 1):
                        await trio.lowlevel.checkpoint()
                        held.used(Used(prompt, number))
                    held.settle(Used(prompt, used))
                    taken.append(prompt + used)
            except (BudgetHeld, InsufficientQuota) as error:
                held_up.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(ask, chance.randint(1, 30), chance.randint(1, 30))
        left = 1000 - sum(taken)
        assert left >= 0
        assert len(taken) + len(held_up) == 200
        assert ledger.snapshot(ANN) == Remaining(1000, left, None)
        if left:
            (await ledger.reserve(want(prompt=0, output=left))).settle(Used(0, left))
        with pytest.raises(InsufficientQuota):
            await ledger.reserve(want(prompt=1, output=0))


async def test_a_crowd_is_granted_exactly_what_fits_and_the_rest_is_told_to_come_back(
    open_at: OpenLedger,
) -> None:
    async with open_at({ANN: Budget(hard_cap=1000)}) as ledger:
        granted, held_up = [], []

        async def ask() -> None:
            try:
                granted.append(await ledger.reserve(want()))
            except BudgetHeld as error:
                held_up.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(ask)
        assert (len(granted), len(held_up)) == (33, 167)
        assert ledger.snapshot(ANN) == Remaining(1000, 10, None)
        for one in granted:
            one.settle(Used(10, 10))
        for _ in range(11):
            (await ledger.reserve(want())).settle(Used(10, 20))
        assert ledger.snapshot(ANN) == Remaining(1000, 10, None)
        with pytest.raises(InsufficientQuota):
            await ledger.reserve(want())
        (await ledger.reserve(want(prompt=4, output=6))).settle(Used(4, 6))
        assert ledger.snapshot(ANN) == Remaining(1000, 0, None)


async def test_an_account_bounds_its_keys_together(
    open_at: OpenLedger, mock_clock: MockClock
) -> None:
    limits = {"lab": (Cap(Scope("lab"), Window("rolling", 60), tokens=50),)}
    async with open_at(limits=limits) as ledger:
        await ledger.reserve(want(ANN))
        with pytest.raises(BudgetHeld):
            await ledger.reserve(want(BOB))
        assert ledger.snapshot(BOB) == Remaining(50, 20, 60.0)


def copied(directory: Path, to: Path) -> Path:
    """The ledger as it lies there at this moment, as a process that dies leaves it."""
    to.mkdir()
    for file in directory.glob("ledger.sqlite*"):
        shutil.copyfile(file, to / file.name)
        (to / file.name).chmod(0o600)
    return to / "ledger.sqlite"


# -- restarts ----------------------------------------------------------------------------------------


async def test_a_restart_remembers_what_was_spent_and_forgets_what_was_held(
    open_at: OpenLedger, rows: Rows, tmp_path: Path
) -> None:
    async with open_at(HUNDRED) as ledger:
        (await ledger.reserve(want())).settle(Used(10, 5))
        held = await ledger.reserve(want())
        held.used(Used(10, 3))
        await ledger.flush()
        dead = copied(tmp_path, tmp_path / "dead")
    async with open_at(HUNDRED, path=dead) as ledger:
        assert ledger.snapshot(ANN) == Remaining(100, 100 - 15 - 13, None)
    with closing(sqlite3.connect(dead)) as connection:
        found = connection.execute(REQUESTS).fetchall()
    assert found == [("settled", 30, 10, 5), ("crashed", 30, 10, 3)]


@pytest.mark.parametrize("kind", ["rolling", "sliding"])
async def test_a_window_goes_on_after_a_restart(
    open_at: OpenLedger, mock_clock: MockClock, kind: Any
) -> None:
    budgets = {ANN: Budget(100, window=Window(kind, 3600))}
    async with open_at(budgets) as ledger:
        (await ledger.reserve(want())).settle(Used(10, 20))
    mock_clock.jump(3000)
    async with open_at(budgets) as ledger:
        snapshot = ledger.snapshot(ANN)
        assert snapshot is not None
        assert snapshot.remaining == 70
        assert 600 <= (snapshot.reset_seconds or 0) <= 610
        mock_clock.jump(611)
        assert ledger.snapshot(ANN) == Remaining(100, 100, 0.0)


# -- a disk that fails -------------------------------------------------------------------------------


class Failing:
    """Stands in the way of commits while `reason` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reason = ""
        commit = Database.commit

        def failing(database: Database, batch: Any) -> None:
            if self.reason:
                raise sqlite3.OperationalError(self.reason)
            commit(database, batch)

        monkeypatch.setattr(Database, "commit", failing)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    return Failing(monkeypatch)


async def test_a_full_disk_serves_nobody_and_forgets_nothing(
    open_at: OpenLedger, failing: Failing, rows: Rows, virtual_time: MockClock
) -> None:
    async with open_at(HUNDRED) as ledger:
        running = await granted(ledger, want())
        failing.reason = "database or disk is full"
        with pytest.raises(LedgerUnavailable, match="disk is full") as caught:
            await granted(ledger, want())
        assert caught.value.retry_after == 5
        running.settle(Used(10, 9))
        with pytest.raises(LedgerUnavailable):
            await granted(ledger, want(BOB))
        failing.reason = ""
        await ledger.flush()
        (await granted(ledger, want())).settle(Used(10, 1))
        assert ledger.snapshot(ANN) == Remaining(100, 70, None)
    assert rows(SPENT) == [(30,)]
    outcomes = [row[0] for row in rows(REQUESTS)]
    assert outcomes == ["settled", "released", "settled"]


async def test_a_file_that_may_only_be_read_is_told_as_such(
    open_at: OpenLedger, virtual_time: MockClock
) -> None:
    async with open_at(HUNDRED) as ledger:
        ledger._database._writer.execute("PRAGMA query_only = ON")
        with pytest.raises(LedgerUnavailable, match="readonly"):
            await granted(ledger, want())
        ledger._database._writer.execute("PRAGMA query_only = OFF")


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """While it is not set, commits do not come back."""
    going, commit = threading.Event(), Database.commit
    going.set()

    def hang(database: Database, batch: Any) -> None:
        going.wait()
        commit(database, batch)

    monkeypatch.setattr(Database, "commit", hang)
    yield going
    going.set()


async def test_a_disk_that_does_not_answer_is_not_waited_for(
    open_at: OpenLedger, stuck: threading.Event, virtual_time: MockClock
) -> None:
    async with open_at(HUNDRED) as ledger:
        await ledger.flush()
        stuck.clear()
        with pytest.raises(LedgerUnavailable, match="does not answer"):
            await granted(ledger, want())
        stuck.set()
        await ledger.flush()
        assert ledger.snapshot(ANN) == Remaining(100, 100, None)


async def test_who_has_no_budget_goes_on_until_the_file_is_a_second_behind(
    open_at: OpenLedger, stuck: threading.Event, virtual_time: MockClock
) -> None:
    async with open_at(HUNDRED) as ledger:
        await ledger.flush()
        stuck.clear()
        (await granted(ledger, want(BOB))).release()
        await trio.sleep(0.9)
        (await granted(ledger, want(BOB))).release()
        await trio.sleep(0.2)
        with pytest.raises(LedgerUnavailable, match="does not answer"):
            await granted(ledger, want(BOB))
        stuck.set()
        await ledger.flush()
        (await granted(ledger, want(BOB))).release()


async def test_a_full_disk_is_noticed_for_those_too_who_do_not_wait_for_it(
    open_at: OpenLedger, failing: Failing, rows: Rows, virtual_time: MockClock
) -> None:
    """What went on until then is charged and written when it can be."""
    async with open_at(HUNDRED) as ledger:
        failing.reason = "database or disk is full"
        running = await granted(ledger, want(BOB))
        await trio.sleep(LAZY_SECONDS + 0.1)
        with pytest.raises(LedgerUnavailable, match="disk is full"):
            await ledger.reserve(want(BOB))
        running.settle(Used(10, 5))
        failing.reason = ""
        await ledger.flush()
    assert rows(REQUESTS) == [("settled", 30, 10, 5)]


async def test_a_request_that_is_not_written_has_no_answer_and_holds_nothing(
    open_at: OpenLedger, failing: Failing, virtual_time: MockClock
) -> None:
    async with open_at(HUNDRED) as ledger:
        failing.reason = "disk I/O error"
        with await ledger.reserve(want()) as held, pytest.raises(LedgerUnavailable, match="I/O"):
            await held.written()
        failing.reason = ""
        assert (ledger.num_open, ledger.snapshot(ANN)) == (0, Remaining(100, 100, None))


async def test_what_changed_last_is_written_however_slow_the_disk_is(
    open_at: OpenLedger, stuck: threading.Event, rows: Rows
) -> None:
    async with open_at(HUNDRED) as ledger:
        await ledger.flush()
        stuck.clear()
        held = await ledger.reserve(want())
        held.settle(Used(10, 3))
        trio.lowlevel.current_trio_token().run_sync_soon(stuck.set)
    assert rows(REQUESTS) == [("settled", 30, 10, 3)]


async def test_reservations_without_end_keep_nothing_else_from_the_file(
    open_at: OpenLedger,
) -> None:
    async with open_at({ANN: Budget(hard_cap=2**40)}) as ledger, trio.open_nursery() as nursery:

        async def crowd() -> None:
            while True:
                (await granted(ledger, want())).release()

        for _ in range(4):
            nursery.start_soon(crowd)
        await ledger.flush()
        nursery.cancel_scope.cancel()


async def test_a_disk_that_is_really_full_is_waited_for(
    open_at: OpenLedger, virtual_time: MockClock
) -> None:
    async with open_at(HUNDRED) as ledger:
        writer = ledger._database._writer
        (pages,) = writer.execute("PRAGMA page_count").fetchone()
        writer.execute(f"PRAGMA max_page_count = {pages}")
        for number in range(100):
            ledger.note("something long", ANN, f"{number} " + "x" * 1000)
        with pytest.raises(LedgerUnavailable, match="full"):
            await ledger.flush()
        writer.execute(f"PRAGMA max_page_count = {pages + 10_000}")
        await ledger.flush()
        (await granted(ledger, want())).release()


# -- a file that is damaged ----------------------------------------------------------------------------


async def test_a_damaged_ledger_is_set_aside_and_nobody_with_a_budget_spends_until_that_is_accepted(
    open_at: OpenLedger, tmp_path: Path
) -> None:
    async with open_at(HUNDRED) as ledger:
        (await ledger.reserve(want())).settle(Used(10, 20))
    file = tmp_path / "ledger.sqlite"
    damaged = bytearray(file.read_bytes())
    damaged[100:8000] = b"\xff" * 7900
    file.write_bytes(damaged)
    for _ in range(2):  # a second start has not forgotten it
        async with open_at(HUNDRED) as ledger:
            assert content(ledger.set_aside) == damaged
            with pytest.raises(LedgerUnavailable, match="damaged"):
                await ledger.reserve(want())
            assert ledger.snapshot(ANN) is None
            (await ledger.reserve(want(BOB))).release()
    async with open_at(HUNDRED) as ledger:
        await ledger.accept_loss()
        (await ledger.reserve(want())).release()
    async with open_at(HUNDRED) as ledger:
        assert ledger.set_aside == ""
        assert ledger.snapshot(ANN) == Remaining(100, 100, None)


def content(path: str) -> bytes:
    return Path(path).read_bytes()


# -- what is told --------------------------------------------------------------------------------------


async def test_refusals_that_are_alike_are_one_event(open_at: OpenLedger, rows: Rows) -> None:
    async with open_at({ANN: Budget(hard_cap=5)}) as ledger:
        for _ in range(3):
            with pytest.raises(InsufficientQuota):
                await ledger.reserve(want())
        await ledger.flush()
        ((kind, key, count),) = rows("SELECT kind, key_id, count FROM events")
    assert (kind, key, count) == ("refused: insufficient_quota", "ann", 3)


async def test_spending_and_budgets_are_metrics(
    open_at: OpenLedger,
) -> None:
    registry = CollectorRegistry()
    async with open_at(HUNDRED, registry=registry) as ledger:
        (await ledger.reserve(want(prices=Prices(10**6, 2 * 10**6)))).settle(Used(10, 7, cached=4))
        who = {"account": "lab", "key": "ann"}
        value = registry.get_sample_value
        assert value("helexa_spend_tokens_total", who) == 17
        assert value("helexa_spend_prompt_tokens_total", who) == 10
        assert value("helexa_spend_completion_tokens_total", who) == 7
        assert value("helexa_spend_cached_tokens_total", who) == 4
        assert value("helexa_spend_usd_total", who) == pytest.approx(20e-6)
        capped = {**who, "window": "balance"}
        assert value("helexa_budget_tokens", capped) == 100
        assert value("helexa_budget_spent_tokens", capped) == 17
        assert value("helexa_budget_usd", capped) is None
        with pytest.raises(InsufficientQuota):
            await ledger.reserve(want(output=100))
        refused = {**who, "reason": "balance"}
        assert value("helexa_budget_refusals_total", refused) == 1


async def test_of_budgets_with_the_same_labels_the_smallest_is_a_metric(
    open_at: OpenLedger,
) -> None:
    registry = CollectorRegistry()
    caps = (
        Cap(Scope("lab"), tokens=50, pico_usd=2 * 10**12),
        Cap(Scope("lab"), tokens=40),
        Cap(Scope("lab"), pico_usd=10**12),
    )
    async with open_at(limits={"lab": caps}, registry=registry):
        (tokens,) = samples(registry, "helexa_budget_tokens")
        (usd,) = samples(registry, "helexa_budget_usd")
        assert (tokens.value, usd.value) == (40, 1.0)
        assert tokens.labels == {"account": "lab", "key": "", "window": "balance"}


def samples(registry: CollectorRegistry, name: str) -> list[Sample]:
    return [one for family in registry.collect() for one in family.samples if one.name == name]


async def test_old_requests_become_the_sums_of_their_days(open_at: OpenLedger, rows: Rows) -> None:
    async with open_at() as ledger:
        (await ledger.reserve(want())).settle(Used(10, 7))
        (await ledger.reserve(want())).settle(Used(10, 3))
    async with open_at(retention_days=1e-9) as ledger:
        await ledger.flush()
    assert rows("SELECT requests, prompt_tokens, completion_tokens FROM days") == [(2, 20, 10)]
    assert rows("SELECT * FROM requests") == []
    assert rows(SPENT) == [(30,)]


async def test_a_shorter_retention_counts_at_once_and_a_few_rows_are_folded_at_a_time(
    open_at: OpenLedger, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helexa.accounts.database.MOST_FOLDED", 2)
    async with open_at() as ledger:
        for _ in range(7):
            (await ledger.reserve(want())).settle(Used(10, 7))
        await ledger.flush()
        ledger.follow({}, 1e-9)
        await wait_all_tasks_blocked(0.05)
    assert rows("SELECT sum(requests), sum(prompt_tokens) FROM days") == [(7, 70)]
    assert rows("SELECT * FROM requests") == []


async def test_a_wall_clock_that_is_set_forth_makes_nothing_old(
    open_at: OpenLedger, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_at() as ledger:
        (await ledger.reserve(want())).settle(Used(10, 7))
    monkeypatch.setattr(time, "time", lambda: 4e9)
    async with open_at() as ledger:
        await ledger.flush()
        await wait_all_tasks_blocked()
    assert len(rows(REQUESTS)) == 1


async def test_a_ledger_and_none_are_providers_alike(open_at: OpenLedger) -> None:
    async with open_at() as ledger:
        providers: list[Budgets] = [ledger, Unmetered()]
        for budgets in providers:
            with await budgets.reserve(want()) as held:
                assert held.max_output == 20
                held.used(Used(1, 1))
                held.settle(Used(1, 1))
            assert budgets.snapshot(ANN) is None


async def test_keys_are_found_by_their_secret_alone(open_at: OpenLedger) -> None:
    async with open_at(HUNDRED) as ledger:
        key = await ledger.resolve(b"sk-ann")
        assert key is not None
        assert (key.principal, key.caps) == (ANN, (Cap(Scope("lab", "ann"), tokens=100),))
        assert await ledger.resolve(b"sk-eve") is None
