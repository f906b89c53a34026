"""What `helexa-ctl` shows of accounts, and how it reads what is typed."""

import argparse
import time
from typing import Any

import pytest

from helexa import ctl
from helexa.control import account_screen as screen
from helexa.control import times
from helexa.control.account_commands import UNSAID, budget, write_csv

BUDGET: dict[str, Any] = {
    "scope": "key",
    "unit": "tokens",
    "cap": 100,
    "spent": 40,
    "reserved": 10,
    "remaining": 50,
    "window": {"kind": "rolling", "seconds": 60},
    "reset_seconds": 30.0,
    "binds": False,
}
OF_ACCOUNT = BUDGET | {
    "scope": "account",
    "unit": "usd",
    "cap": 1.5,
    "remaining": 0.000086,
    "window": {"kind": "balance", "seconds": 0},
    "reset_seconds": None,
    "binds": True,
}
KEY: dict[str, Any] = {
    "account": "lab",
    "key": "ann",
    "state": "in force",
    "from": "key store",
    "created_at": 1.0,
    "expires_at": None,
    "allowed_models": [],
    "weight": 1,
    "priority": "interactive",
    "spent_tokens": 70,
    "spent_usd": 0.5,
    "budgets": [BUDGET, OF_ACCOUNT],
    "note": "a \x1b[31mlaptop",
}


def test_keys_are_a_table_without_what_a_terminal_would_obey() -> None:
    header, row = screen.keys([KEY])
    assert header.split() == [
        *("ACCOUNT", "KEY", "STATE", "SPENT", "LEFT", "OF", "BUDGET", "OF", "WINDOW"),
        *("EXPIRES", "NOTE"),
    ]
    assert row.startswith("lab      ann  in force     70  0.000086 USD  1.500000 USD  account")
    assert "\x1b" not in row
    assert screen.keys([KEY | {"budgets": []}])[1].split()[4:10] == ["70", *"-----"]
    assert screen.keys([]) == []


def test_one_key_is_a_list_of_what_is_known_and_of_all_that_bounds_it() -> None:
    *facts, _, header, own, of_account = screen.key(KEY)
    assert "models   all" in facts
    assert "spent    70 tokens, 0.500000 USD" in facts
    assert header.split() == [
        *("BUDGET", "OF", "WINDOW", "CAP", "SPENT", "RESERVED", "LEFT", "RESETS")
    ]
    assert own.strip().startswith("key        rolling 60 s")
    assert own.split()[-5:] == ["10", "50", "in", "30", "s"]
    assert of_account.startswith("->  account    balance")
    assert of_account.endswith("0.000086 USD  never")


def test_a_key_that_nothing_bounds_says_so() -> None:
    assert "budgets  none" in screen.key(KEY | {"budgets": []})


def test_spending_is_a_table() -> None:
    row = {
        "model": "demo",
        "requests": 2,
        "prompt_tokens": 20,
        "completion_tokens": 5,
        "cached_tokens": 1,
        "tokens": 25,
        "usd": 0.00004,
    }
    header, line = screen.spend([row])
    assert header.split() == [
        "MODEL",
        "REQUESTS",
        "PROMPT",
        "COMPLETION",
        "CACHED",
        "TOKENS",
        "USD",
    ]
    assert line.split() == ["demo", "2", "20", "5", "1", "25", "0.000040"]


def test_spending_is_a_spreadsheet_whose_money_every_program_reads(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_csv([{"model": "demo", "tokens": 25, "usd": 0.00004}])
    write_csv([])
    assert capsys.readouterr().out == "model,tokens,usd\ndemo,25,0.000040000\n"


def test_events_are_a_table() -> None:
    event = {"time": 1.0, "kind": "restored", "account": "", "key": "", "count": 1, "text": "x"}
    assert screen.audit([event])[1].split()[2:] == ["restored", "-", "-", "1", "x"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("balance", {"kind": "balance", "seconds": 0}),
        ("rolling:1h", {"kind": "rolling", "seconds": 3600}),
        ("sliding:7d", {"kind": "sliding", "seconds": 604800}),
    ],
)
def test_a_window_is_typed_as_a_kind_and_a_length(text: str, expected: Any) -> None:
    assert times.window(text) == expected


@pytest.mark.parametrize("text", ["rolling", "balance:1h", "weekly:1h", "rolling:soon"])
def test_what_is_no_window_is_told(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        times.window(text)


def test_a_moment_is_a_length_of_time_or_a_date() -> None:
    assert times.until("1h") == pytest.approx(time.time() + 3600, abs=5)
    assert times.since("1h") == pytest.approx(time.time() - 3600, abs=5)
    assert times.since("2030-01-31") == 1896048000.0


@pytest.mark.parametrize(("text", "expected"), [("5_000", 5000), ("0.5", 0.5), ("none", None)])
def test_a_bound_is_a_number_or_none(text: str, expected: float | None) -> None:
    assert times.bound(text) == expected


@pytest.mark.parametrize("text", ["-1", "many", "1e300"])
def test_what_is_no_bound_is_told(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        times.bound(text)


def test_of_a_budget_only_what_is_typed_is_changed() -> None:
    parse = ctl.parser().parse_args
    assert budget(parse(["keys", "set-budget", "ann"])) == {}
    assert budget(parse(["keys", "set-budget", "ann", "--cap", "none"])) == {"hard_cap": None}
    args = parse(["keys", "create", "--account", "lab", "--window", "rolling:1h"])
    assert budget(args) == {"window": {"kind": "rolling", "seconds": 3600}}
    assert args.cap is UNSAID
