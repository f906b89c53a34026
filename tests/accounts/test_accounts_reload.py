"""What of `[accounts]` changes while helexa runs, and what waits for the next start."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from ledgers import want
from prometheus_client import CollectorRegistry

from helexa.accounting import Accounts, open_accounts
from helexa.accounts.amount import Used
from helexa.accounts.changes import Change, changes
from helexa.accounts.provider import Remaining
from helexa.config import schema
from helexa.config.read import read_config
from helexa.config.schema import AccountKey, AccountLimit, Config
from helexa.conversation import Principal
from helexa.errors import InsufficientQuota
from helexa.fleet.catalogue import Catalogue
from helexa.fleet.share import Share
from helexa.reload import Reload
from helexa.shelf import Shelf

CI = AccountKey("lab", "ci", key="sk-ci", hard_cap=100)
DOC = AccountKey("lab", "doc", key="sk-doc")
BEFORE = schema.Accounts(keys=(CI, DOC))
WHO = Principal("lab", "ci")


@asynccontextmanager
async def opened(directory: Path) -> AsyncGenerator[Accounts, None]:
    async with open_accounts(Config(accounts=BEFORE), directory, CollectorRegistry()) as accounts:
        yield accounts


def with_keys(*keys: AccountKey, **more: Any) -> schema.Accounts:
    return evolve(BEFORE, keys=keys, **more)


async def test_a_key_that_is_removed_lets_nobody_in_and_what_it_began_is_charged(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as accounts:
        ledger = accounts.ledger
        running = await ledger.reserve(want(WHO))
        assert accounts.follow(with_keys(DOC)) == 1
        assert await ledger.resolve(b"sk-ci") is None
        assert await ledger.resolve(b"sk-doc") is not None
        running.used(Used(10, 5))
        running.settle(Used(10, 20))
        assert accounts.follow(BEFORE) == 1
        assert ledger.snapshot(WHO) == Remaining(100, 70, None)


async def test_other_budgets_and_shares_count_from_the_next_request_on(tmp_path: Path) -> None:
    async with opened(tmp_path) as accounts:
        ledger = accounts.ledger
        accounts.follow(with_keys(evolve(CI, hard_cap=20, weight=3), DOC))
        found = await ledger.resolve(b"sk-ci")
        assert found is not None
        assert found.share == Share(3)
        with pytest.raises(InsufficientQuota):
            await ledger.reserve(want(WHO))
        accounts.follow(with_keys(DOC, limits=(AccountLimit("lab", 40),)))
        assert ledger.snapshot(Principal("lab", "doc")) == Remaining(40, 40, None)


async def test_what_cannot_change_stays_and_everything_else_does(tmp_path: Path) -> None:
    wanted = with_keys(DOC, ledger=str(tmp_path / "other"), require_auth=True, retention_days=1.0)
    async with opened(tmp_path) as accounts:
        assert accounts.follow(wanted) == 1
        assert accounts.settings == evolve(wanted, ledger="", require_auth=False)
        assert await accounts.ledger.resolve(b"sk-ci") is None


async def test_every_change_is_an_event_and_none_tells_a_secret(tmp_path: Path) -> None:
    async with opened(tmp_path) as accounts:
        accounts.follow(with_keys(evolve(CI, key="sk-new"), limits=(AccountLimit("lab", 40),)))
        await accounts.ledger.flush()
        rows = accounts.database.read("SELECT kind, account_id, key_id, text FROM events")
    assert [row[:3] for row in rows] == [
        ("key changed", "lab", "ci"),
        ("key removed", "lab", "doc"),
        ("limit created", "lab", ""),
    ]
    assert {row[3] for row in rows} == {"in the configuration"}


def test_nothing_differs_from_itself_in_another_order() -> None:
    assert list(changes(BEFORE, with_keys(DOC, CI))) == []
    again = evolve(CI, key="sk-second")
    assert list(changes(BEFORE, with_keys(CI, again, DOC))) == [Change("key changed", WHO)]


# -- from the file -----------------------------------------------------------------------------------

KEY = '[[accounts.keys]]\naccount_id = "lab"\nkey = "sk-0123456789abcdef"\n'


def reload_of(file: Path, accounts: Accounts) -> Reload:
    shelf = Shelf(Catalogue(), Catalogue)
    config = evolve(read_config(file, {}), accounts=BEFORE)
    made = Reload(config, file, lambda: read_config(file, {}), shelf, {})
    made.accounts = accounts
    return made


async def test_a_file_is_read_again_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "helexa.toml"
    file.write_text("")
    async with opened(tmp_path) as accounts:
        reload = reload_of(file, accounts)
        file.write_text(KEY)
        done = await reload()
        assert done.mistakes == ()
        assert done.told[-1] == "keys and limits that changed: 3"
        assert await accounts.ledger.resolve(b"sk-0123456789abcdef") is not None
        file.write_text('[[accounts.keys]]\naccount_id = "lab"\n')
        done = await reload()
        assert "accounts.keys[0]: needs one of" in done.mistakes[0]
        assert done.mistakes[-1] == "the old configuration is kept"
        assert await accounts.ledger.resolve(b"sk-0123456789abcdef") is not None


async def test_what_is_read_at_start_alone_is_named_and_told_by_who_asks_and_by_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "helexa.toml"
    file.write_text("")
    async with opened(tmp_path) as accounts:
        reload = reload_of(file, accounts)
        file.write_text(
            '[accounts]\nledger = "/other"\nrequire_auth = true\n[node]\ntoken = "s3cret"\n'
            "[limits]\nmax_headers = 9\n"
            '[[nodes]]\nname = "gpu"\nendpoint = "http://gpu.lan:13131"\n'
        )
        done = await reload()
        assert done.told[-1] == "keys and limits that changed: 2"  # all that there were are gone
        told = [mistake.split(": ") for mistake in done.mistakes]
        assert [name for name, _ in told] == [
            "node.token",
            "limits.max_headers",
            "accounts.require_auth",
            "accounts.ledger",
            "nodes",
        ]
        assert {why for _, why in told} == {"cannot change while helexa runs; restart it"}
        logged = [vars(record)["fields"] for record in caplog.records if "wholly" in record.message]
        assert tuple(fields["reason"] for fields in logged) == done.mistakes
        assert "s3cret" not in str(logged)
