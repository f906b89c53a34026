"""What `[accounts]` must be together, and what of it is allowed and yet not well."""

from collections import Counter
from collections.abc import Iterator

from helexa.accounts.configured import configured_key, hash_of
from helexa.accounts.keys import Key
from helexa.config.schema import AccountKey, Accounts
from helexa.config.structure import Mistake
from helexa.conversation import ANONYMOUS, Principal

SHORTEST_KEY = 16  # characters, below which a key is guessed sooner or later
SECRETS = ("key", "key_hash", "key_file")


def account_rules(accounts: Accounts) -> Iterator[Mistake]:
    """Takes keys whose files are read."""
    for index, stated in enumerate(accounts.keys):
        yield from key_mistakes(("accounts", "keys", index), stated)
    yield from clashes(accounts.keys)
    for index, limit in enumerate(accounts.limits):
        if limit.hard_cap is None and limit.hard_cap_usd is None:
            text = "bounds nothing: give it a hard_cap in tokens, or a hard_cap_usd"
            yield Mistake(("accounts", "limits", index), text)


def key_mistakes(path: tuple[str | int, ...], stated: AccountKey) -> Iterator[Mistake]:
    if stated.account_id == ANONYMOUS.account_id:
        yield Mistake(
            (*path, "account_id"), "is the account of who has no key: call it something else"
        )
    given = [name for name in SECRETS if getattr(stated, name)]
    if stated.key_file and "key" in given:
        given.remove("key")  # it was read from the file
    if len(given) != 1:
        yield Mistake(path, "needs one of key, key_hash and key_file")


def clashes(keys: tuple[AccountKey, ...]) -> Iterator[Mistake]:
    """A secret is one key; a key that has several secrets is the same key with each of them."""
    secrets = Counter(hash_of(stated) for stated in keys if stated.key or stated.key_hash)
    first: dict[Principal, tuple[int, Key]] = {}
    for index, stated in enumerate(keys):
        key = configured_key(stated)
        other, as_before = first.setdefault(key.principal, (index, key))
        if secrets[hash_of(stated)] > 1 and (stated.key or stated.key_hash):
            yield Mistake(("accounts", "keys", index), "has the secret of another key too")
        if key.caps != as_before.caps or key.share != as_before.share:
            yield Mistake(
                ("accounts", "keys", index),
                f"is called as accounts.keys[{other}] is, and is not the same: give it a key_id",
            )


def account_warnings(accounts: Accounts) -> Iterator[str]:
    capped = any(configured_key(stated).caps for stated in accounts.keys)
    bounds_anonymous = any(limit.account_id == ANONYMOUS.account_id for limit in accounts.limits)
    if capped and not accounts.require_auth and not bounds_anonymous:
        yield (
            "keys have budgets, and who leaves the key out has none: set accounts.require_auth, or a "
            f'limit for the account "{ANONYMOUS.account_id}"'
        )
    for stated in accounts.keys:
        if stated.key and len(stated.key) < SHORTEST_KEY:
            key = configured_key(stated).principal.key_id
            yield f"the key of {key} is short enough to be guessed: helexa-ctl keys create makes better"
