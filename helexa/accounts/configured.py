"""Keys and budgets as the configuration states them."""

from helexa.accounts.budget import Budget
from helexa.accounts.keys import Key, keyed_hash, plain_hash
from helexa.accounts.windows import Cap, Scope
from helexa.config.schema import AccountKey, AccountLimit, Accounts
from helexa.conversation import Principal
from helexa.fleet.share import Share


def configured_keys(accounts: Accounts, installation: bytes) -> dict[str, Key]:
    """The keys of a configuration by their keyed hashes."""
    return {
        keyed_hash(installation, hash_of(stated)): configured_key(stated)
        for stated in accounts.keys
    }


def hash_of(stated: AccountKey) -> str:
    return stated.key_hash or plain_hash(stated.key.encode())


def configured_key(stated: AccountKey) -> Key:
    principal = principal_of(stated)
    return Key(
        principal,
        budget_of(stated).caps(Scope(principal.account_id, principal.key_id)),
        stated.allowed_models,
        Share(stated.weight, stated.priority),
        stated.expires_at,
    )


def principal_of(stated: AccountKey) -> Principal:
    return Principal(stated.account_id, stated.key_id or stated.account_id)


def budget_of(stated: AccountKey | AccountLimit) -> Budget:
    return Budget(stated.hard_cap, stated.hard_cap_usd, stated.window)


def configured_limits(accounts: Accounts) -> dict[str, tuple[Cap, ...]]:
    """The caps of each account, of which there may be several with different windows."""
    found: dict[str, tuple[Cap, ...]] = {}
    for limit in accounts.limits:
        caps = budget_of(limit).caps(Scope(limit.account_id))
        found[limit.account_id] = found.get(limit.account_id, ()) + caps
    return found
