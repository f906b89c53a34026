"""The key store: a private file of hashes, replaced as a whole, and what may happen to its keys."""

import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import attrs
from attrs import evolve, field, frozen

from helexa.accounts.budget import UNBOUNDED, Budget
from helexa.accounts.keys import Key
from helexa.accounts.private import check_private
from helexa.accounts.windows import Scope
from helexa.config.structure import Mistakes, structure
from helexa.conversation import Principal
from helexa.errors import ConfigError, InvalidRequest, NotFound
from helexa.fleet.share import Priority, Share
from helexa.replacing import replace

FILE = "keys.json"
INSTALLATION_BYTES = 32
MOST_KEYS = 10_000

KeyName: TypeAlias = str  # a key's id, or `account/key` where several accounts have that id


@frozen
class StoredKey:
    """Times are Unix time."""

    hash: str = field(repr=False)
    account_id: str
    key_id: str
    created_at: float
    budget: Budget = UNBOUNDED
    expires_at: float | None = None
    revoked_at: float | None = None
    allowed_models: tuple[str, ...] = ()
    weight: int = 1
    priority: Priority = "interactive"
    note: str = ""

    @property
    def principal(self) -> Principal:
        return Principal(self.account_id, self.key_id)

    def key(self) -> Key:
        return Key(
            self.principal,
            self.budget.caps(Scope(self.account_id, self.key_id)),
            self.allowed_models,
            Share(self.weight, self.priority),
            self.expires_at,
            is_revoked=self.revoked_at is not None,
        )


@frozen
class StoredKeys:
    """All of the file.  `installation` is the secret under which keys are hashed."""

    installation: str = field(repr=False)  # hexadecimal
    keys: tuple[StoredKey, ...] = ()

    # -- transitions -------------------------------------------------------------------------------

    def created(self, key: StoredKey) -> "StoredKeys":
        if any(key.principal == one.principal and not one.revoked_at for one in self.keys):
            raise InvalidRequest(f"there is a key {key.key_id} of {key.account_id} already")
        return self._added(key)

    def revoked(self, name: KeyName, now: float) -> "StoredKeys":
        principal = self.find(name).principal
        return self._changed(principal, lambda one: evolve(one, revoked_at=one.revoked_at or now))

    def rotated(self, name: KeyName, hash: str, now: float, overlap: float) -> "StoredKeys":
        """A new secret for the same key; the old one is good for `overlap` seconds more."""
        newest = self.find(name)
        until = now + overlap

        def ending(one: StoredKey) -> StoredKey:
            return evolve(one, expires_at=min(until, one.expires_at or until))

        fresh = evolve(newest, hash=hash, created_at=now)
        return self._changed(newest.principal, ending)._added(fresh)

    def budgeted(self, name: KeyName, budget: Budget) -> "StoredKeys":
        return self._changed(self.find(name).principal, lambda one: evolve(one, budget=budget))

    def find(self, name: KeyName) -> StoredKey:
        """The newest key in force of that name.  NotFound, or InvalidRequest where several fit."""
        there = [one for one in self.keys if one.revoked_at is None]
        found = [one for one in there if name in names(one.principal)]
        if len({one.principal for one in found}) > 1:
            fit = ", ".join(sorted({f"{one.account_id}/{one.key_id}" for one in found}))
            raise InvalidRequest(f"several keys are called {name}: {fit}", param="key")
        if not found:
            raise NotFound(f"the key store has no key {name} in force", param="key")
        return found[-1]

    def _added(self, key: StoredKey) -> "StoredKeys":
        if len(self.keys) >= MOST_KEYS:
            raise InvalidRequest(f"the key store is full: it has {MOST_KEYS} keys")
        return evolve(self, keys=(*self.keys, key))

    def _changed(self, principal: Principal, change: "Change") -> "StoredKeys":
        def changed() -> Iterator[StoredKey]:
            for one in self.keys:
                is_meant = one.principal == principal and one.revoked_at is None
                yield change(one) if is_meant else one

        return evolve(self, keys=tuple(changed()))


Change: TypeAlias = Callable[[StoredKey], StoredKey]


def names(principal: Principal) -> tuple[KeyName, KeyName]:
    return principal.key_id, f"{principal.account_id}/{principal.key_id}"


# -- the file ----------------------------------------------------------------------------------------


def open_keys(directory: Path) -> StoredKeys:
    """What the store holds; one is made if there is none.  ConfigError if it cannot be used."""
    path = directory / FILE
    try:
        if not path.exists():
            made = StoredKeys(secrets.token_hex(INSTALLATION_BYTES))
            write_keys(directory, made)
            return made
        check_private(path)
        return structure(json.loads(path.read_bytes()), StoredKeys)
    except OSError as error:
        raise ConfigError([f"the key store {path} cannot be used: {error.strerror}"]) from None
    except (ValueError, RecursionError, Mistakes):
        raise ConfigError(
            [
                f"the key store {path} is damaged: restore a backup, or move it away and make all keys anew"
            ]
        ) from None


def write_keys(directory: Path, stored: StoredKeys) -> None:
    """On disk when this returns; waits for the disk."""
    there = attrs.asdict(stored, filter=lambda _, value: value is not None)
    replace(directory / FILE, json.dumps(there, indent=1).encode())
