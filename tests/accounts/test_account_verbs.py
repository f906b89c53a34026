"""What `helexa-ctl` does with keys, spending and backups, on real accounts."""

import base64
import json
import tarfile
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve
from ledgers import ANN, want
from prometheus_client import CollectorRegistry

from helexa.accounting import Accounts, open_accounts
from helexa.accounts.amount import Used, prices
from helexa.accounts.backup import restore
from helexa.accounts.windows import Window
from helexa.config import schema
from helexa.config.schema import AccountKey, AccountLimit, Config
from helexa.control.accounts import AccountVerbs
from helexa.control.protocol import Args
from helexa.conversation import Principal
from helexa.errors import ConfigError, HelexaError, InsufficientQuota

CONFIG = Config(accounts=schema.Accounts(keys=(AccountKey("house", key="sk-house", hard_cap=500),)))

OpenVerbs = Callable[..., AbstractAsyncContextManager[AccountVerbs]]


@pytest.fixture
def opened(tmp_path: Path) -> OpenVerbs:
    directory = tmp_path / "state"
    directory.mkdir()
    (directory / "desired.json").write_text('{"models": []}')

    @asynccontextmanager
    async def opened() -> AsyncGenerator[AccountVerbs, None]:
        async with open_accounts(CONFIG, directory, CollectorRegistry()) as accounts:
            files = {name: directory / name for name in ("keys.json", "desired.json")}
            yield AccountVerbs(accounts, files, directory)

    return opened


async def ask(verbs: AccountVerbs, verb: str, **args: Any) -> list[Any]:
    (found,) = [one for one in verbs.verbs() if one.name == verb]
    items = [item async for item in found.handle(Args(args))]
    json.dumps(items)
    return items


async def one(verbs: AccountVerbs, verb: str, **args: Any) -> Any:
    (item,) = await ask(verbs, verb, **args)
    return item


async def spend(accounts: Accounts, principal: Principal, completion: int) -> None:
    wanted = want(principal, 10, 100, prices(1, 2))
    (await accounts.ledger.reserve(wanted)).settle(Used(10, completion))


async def test_a_key_that_is_made_lets_its_holder_in_within_its_budget(opened: OpenVerbs) -> None:
    async with opened() as verbs:
        made = await one(verbs, "keys-create", account="lab", key="ann", hard_cap=150)
        ledger = verbs.accounts.ledger
        key = await ledger.resolve(made["secret"].encode())
        assert key is not None
        assert key.principal == ANN
        await spend(verbs.accounts, ANN, 50)
        with pytest.raises(InsufficientQuota):
            await spend(verbs.accounts, ANN, 50)
        shown = await one(verbs, "keys", key="ann")
        assert (shown["spent_tokens"], left_of(shown)) == (60, [("key", 90, None, True)])
        assert made["secret"] not in json.dumps(await ask(verbs, "keys"))


def left_of(shown: Any) -> list[tuple[str, float, float | None, bool]]:
    """Of each budget whose it is, what remains, when it resets, and whether it binds."""
    return [
        (one["scope"], one["remaining"], one["reset_seconds"], one["binds"])
        for one in shown["budgets"]
    ]


async def test_a_key_is_shown_with_what_bounds_its_account(opened: OpenVerbs) -> None:
    async with opened() as verbs:
        accounts = verbs.accounts
        limits = (
            AccountLimit("lab", hard_cap=200, hard_cap_usd=1.0, window=Window("sliding", 60)),
            AccountLimit("anonymous", hard_cap=5),
        )
        accounts.follow(evolve(accounts.settings, limits=limits))
        await ask(verbs, "keys-create", account="lab", key="ann", hard_cap=180)
        await spend(accounts, Principal("lab", "bob"), 20)
        shown = await one(verbs, "keys", key="ann")
        own, together, money = left_of(shown)
        assert own == ("key", 180, None, False)
        assert together[:2] == ("account", 170)
        assert 59 <= (together[2] or 0) <= 61
        assert together[3]
        assert money[1] == pytest.approx(1 - 50e-6)
        assert money[3]
        assert [one["unit"] for one in shown["budgets"]] == ["tokens", "tokens", "usd"]
        nobody = await one(verbs, "keys", key="anonymous")
        assert left_of(nobody) == [("account", 5, None, True)]


async def test_a_budget_may_be_raised_and_counts_at_once(opened: OpenVerbs) -> None:
    async with opened() as verbs:
        await ask(verbs, "keys-create", account="lab", key="ann", hard_cap=5)
        with pytest.raises(InsufficientQuota):
            await spend(verbs.accounts, ANN, 1)
        told = await one(
            verbs,
            "keys-set-budget",
            key="lab/ann",
            hard_cap=1000,
            window={"kind": "rolling", "seconds": 60},
        )
        assert told["message"].endswith("1000 tokens, rolling of 60 s")
        await spend(verbs.accounts, ANN, 1)
        await ask(verbs, "keys-set-budget", key="ann", hard_cap=None)
        assert verbs.accounts.ledger.snapshot(ANN) is None


async def test_a_rotated_key_has_one_budget_whichever_secret_is_shown(opened: OpenVerbs) -> None:
    async with opened() as verbs:
        ledger = verbs.accounts.ledger
        old = (await one(verbs, "keys-create", account="lab", key="ann", hard_cap=200))["secret"]
        new = (await one(verbs, "keys-rotate", key="ann", overlap=60))["secret"]
        assert await ledger.resolve(old.encode()) is not None
        found = await ledger.resolve(new.encode())
        assert found is not None
        assert found.principal == ANN
        newest = (await one(verbs, "keys-rotate", key="ann"))["secret"]
        assert await ledger.resolve(new.encode()) is None
        await ask(verbs, "keys-revoke", key="ann")
        assert await ledger.resolve(newest.encode()) is None


@pytest.mark.parametrize(
    ("verb", "args", "said"),
    [
        ("keys-create", {"account": "anonymous"}, "who has no key"),
        ("keys-create", {"account": "a b"}, "printable ASCII"),
        ("keys-create", {"account": "house"}, "configuration has a key"),
        ("keys-create", {"account": "lab", "window": {"kind": "weekly"}}, "window must be"),
        ("keys-create", {"account": "lab", "models": ["../x"]}, "models must be"),
        ("keys-create", {"account": "lab", "priority": "royal"}, "priority must be"),
        ("keys-create", {"account": "lab", "weight": 5000}, "weight must be"),
        ("keys-create", {"account": "lab", "expires_at": 5.0}, "has expired already"),
        ("keys-create", {}, "account is missing"),
        ("keys-revoke", {"key": "house"}, "change it there"),
        ("keys-rotate", {"key": "nobody"}, "no key nobody"),
        ("keys", {"key": "nobody"}, "no key nobody"),
        ("spend", {"by": "colour"}, "by must be"),
        ("accept-loss", {}, "no damaged ledger"),
    ],
)
async def test_what_cannot_be_done_is_told(
    opened: OpenVerbs, verb: str, args: dict[str, Any], said: str
) -> None:
    async with opened() as verbs:
        with pytest.raises(HelexaError, match=said):
            await ask(verbs, verb, **args)


async def test_what_was_spent_is_told_by_key_account_and_model(opened: OpenVerbs) -> None:
    async with opened() as verbs:
        await spend(verbs.accounts, ANN, 5)
        await spend(verbs.accounts, Principal("lab", "bob"), 7)
        by_key = await ask(verbs, "spend")
        assert [(row["account"], row["key"], row["tokens"]) for row in by_key] == [
            ("lab", "bob", 17),
            ("lab", "ann", 15),
        ]
        by_account = await one(verbs, "spend", by="account")
        assert (by_account["requests"], by_account["prompt_tokens"]) == (2, 20)
        assert by_account["usd"] == pytest.approx(44e-6)
        assert (await one(verbs, "spend", by="model"))["model"] == "demo"
        assert await ask(verbs, "spend", since=2**33) == []


async def test_the_audit_tells_of_keys_and_refusals_and_of_no_secret(opened: OpenVerbs) -> None:
    async with opened() as verbs:
        made = await one(verbs, "keys-create", account="lab", key="ann", hard_cap=5)
        with pytest.raises(InsufficientQuota):
            await spend(verbs.accounts, ANN, 1)
        await ask(verbs, "keys-revoke", key="ann")
        told = await ask(verbs, "audit")
        assert [row["kind"] for row in told] == [
            "key revoked",
            "refused: insufficient_quota",
            "key created",
        ]
        assert made["secret"] not in json.dumps(told)
        assert len(await ask(verbs, "audit", key="lab", limit=1)) == 1
        assert await ask(verbs, "audit", key="house") == []


# -- backups -------------------------------------------------------------------------------------------


async def saved(verbs: AccountVerbs, file: Path) -> Path:
    items = await ask(verbs, "backup")
    data = b"".join(base64.b64decode(item["data"]) for item in items)
    await trio.Path(file).write_bytes(data)
    return file


async def test_a_backup_brings_back_keys_and_spending(opened: OpenVerbs, tmp_path: Path) -> None:
    async with opened() as verbs:
        secret = (await one(verbs, "keys-create", account="lab", key="ann", hard_cap=200))["secret"]
        await spend(verbs.accounts, ANN, 50)
        with await verbs.accounts.ledger.reserve(want()):
            file = await saved(verbs, tmp_path / "backup.tar")
        await spend(verbs.accounts, ANN, 1)
        await ask(verbs, "keys-revoke", key="ann")
    state = tmp_path / "state"
    done = restore(file, state, state / "ledger.sqlite", {})
    assert {path.name for path in done.written} == {"ledger.sqlite", "keys.json", "desired.json"}
    assert len(list(state.glob("ledger.sqlite.before-restore-*"))) == 1
    async with opened() as verbs:
        assert await verbs.accounts.ledger.resolve(secret.encode()) is not None
        assert (await one(verbs, "keys", key="ann"))["spent_tokens"] == 60
        assert (await ask(verbs, "audit"))[0]["kind"] == "restored"


async def test_configuration_and_catalogue_are_put_where_nothing_is(
    opened: OpenVerbs, tmp_path: Path
) -> None:
    config, models = tmp_path / "helexa.toml", tmp_path / "models.toml"
    config.write_text("[server]\n")
    models.write_text("")
    async with opened() as verbs:
        with_files = AccountVerbs(
            verbs.accounts,
            {**verbs.files, "helexa.toml": config, "models.toml": models},
            verbs.state_dir,
        )
        file = await saved(with_files, tmp_path / "backup.tar")
    config.unlink()
    models.write_text("# newer\n")
    state = tmp_path / "state"
    places = {"helexa.toml": config, "models.toml": models}
    done = restore(file, state, state / "ledger.sqlite", places)
    assert config.read_text() == "[server]\n"
    assert models.read_text() == "# newer\n"
    assert done.kept == (models,)
    assert (done.beside / "models.toml").read_text() == ""


@pytest.mark.parametrize("harm", ["cut", "changed", "foreign", "empty"])
async def test_what_is_no_whole_backup_changes_nothing(
    opened: OpenVerbs, tmp_path: Path, harm: str
) -> None:
    async with opened() as verbs:
        file = await saved(verbs, tmp_path / "backup.tar")
    damage(file, harm)
    state = tmp_path / "state"
    before = {path.name: path.read_bytes() for path in state.iterdir()}
    with pytest.raises(ConfigError, match=r"damaged|no backup"):
        restore(file, state, state / "ledger.sqlite", {})
    assert {path.name: path.read_bytes() for path in state.iterdir()} == before


def damage(file: Path, harm: str) -> None:
    match harm:
        case "cut":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        case "changed":
            data = bytearray(file.read_bytes())
            place = data.index(b"SQLite format 3") + 5000
            data[place : place + 4] = b"\xff\xff\xff\xff"
            file.write_bytes(data)
        case "foreign":
            with tarfile.open(file, "w") as archive:
                archive.add(__file__, "manifest.json")
        case _:
            file.write_bytes(b"")
