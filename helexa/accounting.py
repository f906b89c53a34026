"""The accounts of this process: key ring and ledger, opened together and run beside whoever asks them."""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio
from attrs import define, evolve
from prometheus_client import CollectorRegistry

from helexa import logs
from helexa.accounts import clock
from helexa.accounts.budget import UNBOUNDED
from helexa.accounts.changes import changes
from helexa.accounts.command import ledger_path
from helexa.accounts.configured import configured_keys, configured_limits
from helexa.accounts.database import Database, open_ledger
from helexa.accounts.spending import Spending
from helexa.actors.keyring import KeyRing
from helexa.actors.ledger import Ledger
from helexa.config import schema
from helexa.config.account_rules import account_warnings
from helexa.config.schema import Config
from helexa.conversation import ANONYMOUS

log = logs.get("helexa.accounts")


AT_START = ("ledger", "require_auth")  # what else a process could not change in one step


@define(eq=False)
class Accounts:
    """`ledger` is the `Budgets` of the gateway and of its listener."""

    settings: schema.Accounts
    ring: KeyRing
    ledger: Ledger
    database: Database

    def follow(self, wanted: schema.Accounts) -> int:
        """Put other keys, limits and retention in force for the requests that come from now on.

        What is in AT_START stays as it is.  How many keys and limits changed.
        """
        fixed = {name: getattr(self.settings, name) for name in AT_START}
        settings = evolve(wanted, **fixed)
        found = list(changes(self.settings, settings))
        self.settings = settings
        self.ring.follow(partial(configured_keys, settings))
        self.ledger.follow(configured_limits(settings), settings.retention_days)
        for change in found:
            self.ledger.note(change.kind, change.principal, "in the configuration")
        for warning in account_warnings(settings):
            log.warning("configuration warning", reason=warning)
        warn_of_open_door(settings, self.ring)
        return len(found)


@asynccontextmanager
async def open_accounts(
    config: Config, state_dir: Path, registry: CollectorRegistry
) -> AsyncGenerator[Accounts, None]:
    """Run key ring and ledger for as long as the block lasts; metrics go to `registry`.

    Raises ConfigError if one of their files cannot be used, StateInUse if another process has them.
    """
    settings = config.accounts
    with open_ledger(ledger_path(config, state_dir)) as database:
        ring = KeyRing(state_dir, partial(configured_keys, settings))
        found = database.found
        running = clock.resumed(found.stamp, clock.this_boot(), clock.since_boot, time.time())
        ledger = Ledger(
            database,
            lambda: ring.keys,
            configured_limits(settings),
            running,
            settings.retention_days,
            Spending(registry),
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(ledger.run)
            await nursery.start(ring.run)
            warn_of_open_door(settings, ring)
            yield Accounts(settings, ring, ledger, database)
            nursery.cancel_scope.cancel()


def warn_of_open_door(settings: schema.Accounts, ring: KeyRing) -> None:
    """The configuration warns of its own keys; here it is about those of the store."""
    is_bounded = any(limit.account_id == ANONYMOUS.account_id for limit in settings.limits)
    capped = [one for one in ring.stored.keys if one.budget != UNBOUNDED and not one.revoked_at]
    if capped and not settings.require_auth and not is_bounded:
        log.warning(
            "keys have budgets, and who leaves the key out has none: set accounts.require_auth, or a "
            "limit for the account anonymous",
            count=len(capped),
        )
