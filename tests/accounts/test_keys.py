"""Keys: how they are made, kept, found and ended."""

import json
from pathlib import Path

import pytest
import trio
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from ledgers import ANN, BOB

from helexa.accounts.attempts import BURST, MOST_REMEMBERED, Attempts
from helexa.accounts.budget import Budget
from helexa.accounts.headers import duration, rate_headers
from helexa.accounts.keyfile import StoredKey, StoredKeys, open_keys
from helexa.accounts.keys import ANONYMOUS_KEY, Key, Keys, keyed_hash, new_secret, plain_hash
from helexa.accounts.provider import Remaining
from helexa.accounts.windows import Cap, Scope, Window
from helexa.actors.keyring import KeyRing
from helexa.conversation import Principal
from helexa.errors import ConfigError, InvalidRequest, LedgerUnavailable, NotFound
from helexa.fleet.share import Share

INSTALLATION = bytes(32)
NOW = 1e9


def kept(secret: bytes, key: Key) -> Keys:
    return Keys(INSTALLATION, {keyed_hash(INSTALLATION, plain_hash(secret)): key})


def stored(name: str = "ann", account: str = "lab", **more: object) -> StoredKey:
    return StoredKey(f"hash of {name}", account, name, NOW, **more)  # type: ignore[arg-type]


def test_a_key_has_256_bits_and_says_what_it_is() -> None:
    secret = new_secret()
    assert secret.startswith("hx_")
    assert len(secret) == 46
    assert secret != new_secret()


def test_a_key_is_found_by_its_secret_and_no_other() -> None:
    keys = kept(b"sk-ann", Key(ANN))
    assert keys.find(b"sk-ann", NOW) == Key(ANN)
    for wrong in (b"sk-an", b"sk-ann ", b"sk-bob", plain_hash(b"sk-ann").encode()):
        assert keys.find(wrong, NOW) is None


def test_a_key_that_has_expired_or_was_revoked_lets_nobody_in() -> None:
    keys = kept(b"sk-ann", Key(ANN, expires_at=NOW))
    assert keys.find(b"sk-ann", NOW - 1) is not None
    assert keys.find(b"sk-ann", NOW) is None
    assert kept(b"sk-ann", Key(ANN, is_revoked=True)).find(b"sk-ann", NOW) is None


def test_where_there_never_was_a_key_whatever_is_shown_stands_for_nobody() -> None:
    assert Keys().find(b"sk-none", NOW) is ANONYMOUS_KEY


def test_neither_keys_nor_their_secrets_show_in_a_repr() -> None:
    keys = kept(b"sk-ann", Key(ANN))
    (hash,) = keys.by_hash
    assert hash not in repr(keys)
    assert str(INSTALLATION) not in repr(keys)


def test_a_model_may_be_allowed_by_any_of_its_names() -> None:
    key = Key(ANN, allowed_models=("small", "demo"))
    assert key.may_use(["smollm2", "demo"])
    assert not key.may_use(["large"])
    assert Key(ANN).may_use(["large"])


# -- the store -----------------------------------------------------------------------------------------


def test_a_key_of_the_store_says_all_that_it_may() -> None:
    one = stored(
        budget=Budget(100, 0.5, Window("rolling", 60)),
        allowed_models=("demo",),
        weight=3,
        priority="batch",
        expires_at=NOW + 1,
    )
    cap = Cap(Scope("lab", "ann"), Window("rolling", 60), 100, 5 * 10**11)
    assert one.key() == Key(ANN, (cap,), ("demo",), Share(3, "batch"), NOW + 1)


def test_a_name_is_one_key_s_until_it_is_revoked() -> None:
    keys = StoredKeys("00").created(stored())
    with pytest.raises(InvalidRequest, match="already"):
        keys.created(stored())
    again = keys.revoked("ann", NOW).created(stored())
    assert [one.revoked_at for one in again.keys] == [NOW, None]


def test_a_rotation_gives_a_new_secret_and_lets_the_old_one_end() -> None:
    keys = StoredKeys("00").created(stored(budget=Budget(100)))
    old, new = keys.rotated("ann", "new hash", NOW, 60).keys
    assert (old.hash, old.expires_at) == ("hash of ann", NOW + 60)
    assert (new.hash, new.expires_at, new.budget) == ("new hash", None, Budget(100))
    ended = keys.rotated("ann", "new hash", NOW, 60).revoked("ann", NOW)
    assert all(one.revoked_at == NOW for one in ended.keys)


def test_a_rotation_makes_no_key_last_longer() -> None:
    keys = StoredKeys("00").created(stored(expires_at=NOW + 5))
    old, new = keys.rotated("ann", "new hash", NOW, 60).keys
    assert (old.expires_at, new.expires_at) == (NOW + 5, NOW + 5)


def test_a_budget_is_changed_for_every_secret_of_a_key() -> None:
    keys = StoredKeys("00").created(stored()).rotated("ann", "new hash", NOW, 60)
    changed = keys.budgeted("lab/ann", Budget(5))
    assert [one.budget for one in changed.keys] == [Budget(5), Budget(5)]


def test_a_name_that_several_accounts_have_needs_its_account() -> None:
    keys = StoredKeys("00").created(stored()).created(stored(account="home"))
    with pytest.raises(InvalidRequest, match="home/ann, lab/ann"):
        keys.find("ann")
    assert keys.find("home/ann").account_id == "home"
    with pytest.raises(NotFound):
        keys.find("eve")


# -- its file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o644, 0o640])
def test_a_store_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    open_keys(tmp_path)
    (tmp_path / "keys.json").chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        open_keys(tmp_path)


@pytest.mark.parametrize("content", ["", "{", '{"installation": 1}', "[]"])
def test_a_damaged_store_is_never_taken_for_an_empty_one(tmp_path: Path, content: str) -> None:
    open_keys(tmp_path)
    (tmp_path / "keys.json").write_text(content)
    with pytest.raises(ConfigError, match="restore a backup"):
        open_keys(tmp_path)
    assert (tmp_path / "keys.json").read_text() == content


async def test_a_change_is_in_force_and_on_disk_when_it_is_told(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path, lambda _: {"of config": Key(BOB)})
    secret = new_secret()

    def create(keys: StoredKeys) -> tuple[StoredKeys, str]:
        hash = keyed_hash(bytes.fromhex(keys.installation), plain_hash(secret.encode()))
        return keys.created(evolve(stored(), hash=hash)), "done"

    async with trio.open_nursery() as nursery:
        await nursery.start(ring.run)
        before = ring.keys
        assert await ring.change(create) == "done"
        assert before.find(secret.encode(), NOW) is None
        assert ring.keys.find(secret.encode(), NOW) == Key(ANN)
        with pytest.raises(InvalidRequest):
            await ring.change(create)
        nursery.cancel_scope.cancel()
    text = await trio.Path(tmp_path / "keys.json").read_text()
    assert secret not in text
    assert KeyRing(tmp_path, lambda _: {}).keys.find(secret.encode(), NOW) == Key(ANN)
    assert "of config" not in text


async def test_changes_at_once_are_all_kept(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path, lambda _: {})

    async def create(name: str) -> None:
        await ring.change(lambda keys: (keys.created(stored(name)), None))

    async with trio.open_nursery() as nursery:
        await nursery.start(ring.run)
        async with trio.open_nursery() as many:
            for number in range(20):
                many.start_soon(create, f"key-{number}")
        nursery.cancel_scope.cancel()
    assert len(json.loads(await trio.Path(tmp_path / "keys.json").read_text())["keys"]) == 20


async def test_a_store_that_cannot_be_written_keeps_its_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = KeyRing(tmp_path, lambda _: {})

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("helexa.actors.keyring.write_keys", fail)
    async with trio.open_nursery() as nursery:
        await nursery.start(ring.run)
        with pytest.raises(LedgerUnavailable, match="No space left"):
            await ring.change(lambda keys: (keys.created(stored()), None))
        nursery.cancel_scope.cancel()
    assert ring.stored.keys == ()


# -- guessing ------------------------------------------------------------------------------------------


def test_an_address_that_shows_too_many_wrong_keys_must_wait() -> None:
    attempts = Attempts()
    waits = [attempts.failed("10.0.0.1", 0.0) for _ in range(BURST + 3)]
    assert waits[:BURST] == [0.0] * BURST
    assert all(wait > 0 for wait in waits[BURST:])
    assert attempts.came("10.0.0.1", ANN, 0.0) > 0
    assert attempts.came("10.0.0.2", ANN, 0.0) == 0
    assert attempts.came("10.0.0.1", ANN, 0.0 + waits[-1]) == 0


def test_who_came_in_before_is_not_shut_out_by_a_neighbour() -> None:
    attempts = Attempts()
    assert attempts.came("10.0.0.1", ANN, 0.0) == 0
    for _ in range(BURST + 5):
        attempts.failed("10.0.0.1", 1.0)
    assert attempts.came("10.0.0.1", ANN, 1.0) == 0
    assert attempts.came("10.0.0.1", BOB, 1.0) > 0


def test_what_is_remembered_of_strangers_is_bounded() -> None:
    attempts = Attempts()
    for number in range(MOST_REMEMBERED + 100):
        attempts.failed(f"address {number}", 0.0)
        attempts.came(f"address {number}", Principal("lab", f"{number}"), 0.0)
    assert len(attempts._tried) == len(attempts._known) == MOST_REMEMBERED


# -- what every answer tells -----------------------------------------------------------------------------


def test_what_is_left_is_told_in_both_families_words() -> None:
    told = dict(rate_headers(Remaining(1000, 40, 3723.2), unix_time=0.0))
    assert told == {
        b"x-ratelimit-limit-tokens": b"1000",
        b"x-ratelimit-remaining-tokens": b"40",
        b"x-ratelimit-reset-tokens": b"1h2m4s",
        b"anthropic-ratelimit-tokens-limit": b"1000",
        b"anthropic-ratelimit-tokens-remaining": b"40",
        b"anthropic-ratelimit-tokens-reset": b"1970-01-01T01:02:04Z",
    }


def test_a_balance_has_no_time_of_reset_and_who_has_no_cap_no_headers() -> None:
    told = dict(rate_headers(Remaining(1000, 40, None), unix_time=0.0))
    assert not any(b"reset" in name for name in told)
    assert rate_headers(None, 0.0) == []


@given(st.integers(0, 10**8))
def test_a_duration_means_what_it_says(seconds: int) -> None:
    text, total = duration(seconds), 0
    for unit, length in (("h", 3600), ("m", 60), ("s", 1)):
        number, found, rest = text.partition(unit)
        if found:
            total, text = total + int(number) * length, rest
    assert total == seconds
