"""The audit: which refusals it tells of, and that no flood of them makes it long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledgers import ANN, BOB, OpenLedger, Rows
from trio.testing import MockClock

from helexa.accounts.audit import is_refusal
from helexa.accounts.rows import Event
from helexa.accounts.tally import MOST_KINDS, WINDOW_SECONDS, Tally
from helexa.errors import (
    ActorDown,
    BodyTooLarge,
    BudgetHeld,
    Busy,
    ContextLengthExceeded,
    Forbidden,
    HelexaError,
    InsufficientVram,
    InvalidRequest,
    LedgerUnavailable,
    ModelNotFound,
    PrincipalBusy,
    ServiceUnavailable,
    TooManyAttempts,
    Unauthorized,
    UpstreamError,
)


@pytest.mark.parametrize(
    ("error", "is_told"),
    [
        (Busy, True),
        (PrincipalBusy, True),
        (ContextLengthExceeded, True),
        (BodyTooLarge, True),
        (Forbidden, True),
        (Unauthorized, True),
        (TooManyAttempts, True),
        (InsufficientVram, True),
        (ServiceUnavailable, True),
        (InvalidRequest, False),
        (ModelNotFound, False),
        (UpstreamError, False),
        (ActorDown, False),
        (BudgetHeld, False),  # by the ledger itself
        (LedgerUnavailable, False),
    ],
)
def test_what_a_rule_denies_is_a_refusal(error: type[HelexaError], is_told: bool) -> None:
    assert is_refusal(error("no")) == is_told


EVENTS = "SELECT kind, account_id, key_id, text, count FROM events ORDER BY id"


async def test_refusals_of_a_key_and_of_nobody_are_told_with_the_last_that_was_said(
    open_at: OpenLedger, rows: Rows
) -> None:
    async with open_at() as ledger:
        ledger.refused(Busy("3 wait already"), ANN, "req_1")
        ledger.refused(Busy("4 wait already"), ANN, "req_2")
        ledger.refused(Busy("4 wait already"), BOB, "req_3")
        ledger.refused(Unauthorized("who?"), None, "req_4", "10.0.0.1")
        ledger.refused(InvalidRequest("what?"), ANN, "req_5")
        await ledger.flush()
        assert rows(EVENTS) == [
            ("refused: rate_limit_exceeded", "lab", "ann", "4 wait already", 2),
            ("refused: rate_limit_exceeded", "lab", "bob", "4 wait already", 1),
            ("refused: invalid_api_key", "", "", "from 10.0.0.1", 1),
        ]


async def test_a_flood_is_one_row_a_minute_also_after_commits_in_between(
    open_at: OpenLedger, rows: Rows, mock_clock: MockClock
) -> None:
    async with open_at() as ledger:
        for _ in range(3):
            for _ in range(100):
                ledger.refused(Busy("full"), ANN, "req_1")
            await ledger.flush()
            mock_clock.jump(WINDOW_SECONDS / 3 - 1)
        mock_clock.jump(WINDOW_SECONDS)
        ledger.refused(Busy("full"), ANN, "req_1")
    assert [row[-1] for row in rows(EVENTS)] == [300, 1]


async def test_a_restart_writes_over_no_event(open_at: OpenLedger, rows: Rows) -> None:
    for _ in range(2):
        async with open_at() as ledger:
            ledger.refused(Busy("full"), ANN, "req_1")
    assert [row[-1] for row in rows(EVENTS)] == [1, 1]


async def test_what_another_server_says_may_be_any_text(open_at: OpenLedger, rows: Rows) -> None:
    error = UpstreamError("half of a pair: \ud800 " + "x" * 1000)
    error.status, error.code = 429, "y" * 1000
    async with open_at() as ledger:
        ledger.refused(error, ANN, "req_1")
        await ledger.flush()
        ((kind, _, _, text, _),) = rows(EVENTS)
    assert (len(kind), len(text)) == (60, 300)


# -- counting ------------------------------------------------------------------------------------------

KINDS = st.sampled_from(["refused: busy", "refused: forbidden"])


@given(st.lists(st.tuples(KINDS, st.integers(0, 3), st.floats(0, 40))))
def test_every_refusal_is_counted_once(told: list[tuple[str, int, float]]) -> None:
    tally, last, now = Tally(), dict[int, Event](), 0.0
    for id, (kind, key, pause) in enumerate(told, 1):
        now += pause
        event = tally.add(Event(now, kind, "lab", f"{key}", id=id), now)
        last[event.id] = event
        assert event.time > now - WINDOW_SECONDS
    assert sum(event.count for event in last.values()) == len(told)


def test_keys_without_end_make_no_rows_without_end() -> None:
    tally = Tally()
    number = MOST_KINDS * 3
    made = [tally.add(Event(0.0, "refused: busy", "lab", f"{n}", id=n), 0.0) for n in range(number)]
    rows = {event.id: event for event in made}
    assert len(rows) == MOST_KINDS + 1
    assert sum(event.count for event in rows.values()) == number
