"""What differs between two `[accounts]` of a configuration, for the audit.  Pure."""

from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

from helexa.accounts.configured import configured_key, configured_limits, hash_of
from helexa.accounts.keys import Key
from helexa.config.schema import AccountKey, Accounts
from helexa.conversation import Principal

# One principal's keys: what they may do, and the secrets that open them.
Of = tuple[Key, frozenset[str]]


@frozen
class Change:
    """`kind` as the audit calls it; `principal` has no key where an account's limit changed."""

    kind: str
    principal: Principal


def changes(before: Accounts, after: Accounts) -> Iterator[Change]:
    old, new = by_principal(before.keys), by_principal(after.keys)
    yield from differences("key", old, new)
    yield from differences("limit", limits(before), limits(after))


def differences(
    what: str, old: Mapping[Principal, object], new: Mapping[Principal, object]
) -> Iterator[Change]:
    for principal in dict.fromkeys((*old, *new)):
        if principal not in old:
            yield Change(f"{what} created", principal)
        elif principal not in new:
            yield Change(f"{what} removed", principal)
        elif old[principal] != new[principal]:
            yield Change(f"{what} changed", principal)


def by_principal(keys: Sequence[AccountKey]) -> dict[Principal, Of]:
    found: dict[Principal, Of] = {}
    for stated in keys:
        key = configured_key(stated)
        _, secrets = found.get(key.principal, (key, frozenset()))
        found[key.principal] = (key, secrets | {f"{hash_of(stated)} {stated.expires_at}"})
    return found


def limits(accounts: Accounts) -> dict[Principal, object]:
    return {Principal(id, ""): caps for id, caps in configured_limits(accounts).items()}
