"""The control verbs about accounts: keys are made and ended here, spending and events are told."""

import base64
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from operator import itemgetter
from pathlib import Path
from typing import Any, get_args

import trio
from attrs import asdict, evolve, frozen

from helexa.accounting import Accounts
from helexa.accounts import report
from helexa.accounts.backup import archived
from helexa.accounts.bounds import UNITS, Bound, bounds
from helexa.accounts.budget import Budget
from helexa.accounts.configured import configured_key
from helexa.accounts.keyfile import StoredKey, StoredKeys, names
from helexa.accounts.keys import ANONYMOUS_KEY, Key, keyed_hash, new_secret, plain_hash
from helexa.accounts.windows import BALANCE, Cap, Scope, Standing, Window
from helexa.config import checks
from helexa.config.checks import Unfit
from helexa.control.protocol import Args, Json
from helexa.control.server import Verb
from helexa.conversation import ANONYMOUS, Principal
from helexa.errors import InvalidRequest, LedgerUnavailable, NotFound
from helexa.fleet.share import MAX_WEIGHT, PRIORITIES

CHUNK_BYTES = 48 * 1024
LONGEST_NOTE = 500
LATEST = 2**33  # Unix time of the year 2242
MOST_EVENTS = 100_000
YEAR_SECONDS = 366 * 86400.0


@frozen(eq=False)
class AccountVerbs:
    """`files` are what a backup takes beside the ledger."""

    accounts: Accounts
    files: Mapping[str, Path]
    state_dir: Path

    def verbs(self) -> list[Verb]:
        return [
            Verb("keys", changes=False, handle=self.keys),
            Verb("keys-create", changes=True, handle=self.create),
            Verb("keys-rotate", changes=True, handle=self.rotate),
            Verb("keys-revoke", changes=True, handle=self.revoke),
            Verb("keys-set-budget", changes=True, handle=self.set_budget),
            Verb("spend", changes=False, handle=self.spend),
            Verb("audit", changes=False, handle=self.audit),
            Verb("backup", changes=True, handle=self.backup),
            Verb("accept-loss", changes=True, handle=self.accept_loss),
        ]

    # -- keys ------------------------------------------------------------------------------------

    async def keys(self, args: Args) -> AsyncGenerator[Json, None]:
        """Every key, or those that are called `key`."""
        wanted = args.optional_text("key")
        found = [one for one in self._listed() if wanted in (None, one["key"], one["name"])]
        if wanted is not None and not found:
            raise NotFound(f"there is no key {wanted[:80]}", param="key")
        for one in found:
            yield {name: value for name, value in one.items() if name != "name"}

    async def create(self, args: Args) -> AsyncGenerator[Json, None]:
        secret, ring = new_secret(), self.accounts.ring
        account = fitting(checks.principal, args.text("account"), "account")
        key_id = fitting(checks.principal, args.optional_text("key") or account, "key")
        principal = Principal(account, key_id)
        if account == ANONYMOUS.account_id:
            raise InvalidRequest("anonymous is the account of who has no key", param="account")
        if principal in self._configured():
            raise InvalidRequest(f"the configuration has a key {key_id} of {account} already")
        expires_at = optional(args, "expires_at")
        if expires_at is not None and expires_at <= time.time():
            raise InvalidRequest(
                "a key that has expired already would let nobody in", param="expires_at"
            )
        wanted = StoredKey(
            "",
            account,
            key_id,
            time.time(),
            budget_of(args, Budget()),
            expires_at,
            None,
            models_of(args),
            int(args.number("weight", 1, MAX_WEIGHT)) or 1,
            priority_of(args),
            (args.optional_text("note") or "")[:LONGEST_NOTE],
        )

        def create(stored: StoredKeys) -> tuple[StoredKeys, None]:
            return stored.created(evolve(wanted, hash=hash_of(stored, secret))), None

        await ring.change(create)
        await self._note("key created", principal, told(wanted.budget))
        message = f"key {key_id} of account {account}; it is shown this once"
        yield {"message": message, "secret": secret, "account": account, "key": key_id}

    async def rotate(self, args: Args) -> AsyncGenerator[Json, None]:
        secret, name = new_secret(), args.text("key")
        overlap = args.number("overlap", 0, YEAR_SECONDS)
        self._check_stored(name)

        def rotate(stored: StoredKeys) -> tuple[StoredKeys, StoredKey]:
            hash = hash_of(stored, secret)
            return stored.rotated(name, hash, time.time(), overlap), stored.find(name)

        key = await self.accounts.ring.change(rotate)
        await self._note("key rotated", key.principal, f"the old one is good for {overlap:.0f} s")
        message = f"a new key {key.key_id} of account {key.account_id}; it is shown this once"
        yield {
            "message": message,
            "secret": secret,
            "account": key.account_id,
            "key": key.key_id,
        }

    async def revoke(self, args: Args) -> AsyncGenerator[Json, None]:
        name = args.text("key")
        self._check_stored(name)

        def revoke(stored: StoredKeys) -> tuple[StoredKeys, StoredKey]:
            return stored.revoked(name, time.time()), stored.find(name)

        key = await self.accounts.ring.change(revoke)
        await self._note("key revoked", key.principal, "")
        yield {"message": f"key {key.key_id} of account {key.account_id} is revoked"}

    async def set_budget(self, args: Args) -> AsyncGenerator[Json, None]:
        name = args.text("key")
        self._check_stored(name)

        def change(stored: StoredKeys) -> tuple[StoredKeys, StoredKey]:
            changed = stored.budgeted(name, budget_of(args, stored.find(name).budget))
            return changed, changed.find(name)

        key = await self.accounts.ring.change(change)
        await self._note("budget changed", key.principal, told(key.budget))
        yield {"message": f"key {key.key_id} of account {key.account_id}: {told(key.budget)}"}

    # -- what happened ---------------------------------------------------------------------------

    async def spend(self, args: Args) -> AsyncGenerator[Json, None]:
        by = args.optional_text("by") or "key"
        for group in get_args(report.By):
            if group == by:
                since = args.number("since", 0, LATEST)
                await self._brought_up_to_date()
                database = self.accounts.database
                for row in await trio.to_thread.run_sync(report.spent, database, group, since):
                    yield row
                return
        raise InvalidRequest(f"by must be one of {', '.join(report.GROUPS)}", param="by")

    async def audit(self, args: Args) -> AsyncGenerator[Json, None]:
        since, who = args.number("since", 0, LATEST), args.optional_text("key") or ""
        limit = int(args.number("limit", 100, MOST_EVENTS))
        await self._brought_up_to_date()
        database = self.accounts.database
        for row in await trio.to_thread.run_sync(report.events, database, since, who, limit):
            yield row

    async def backup(self, args: Args) -> AsyncGenerator[Json, None]:
        """The archive in pieces, as base64."""
        await self.accounts.ledger.flush()
        with ExitStack() as stack:
            making = archived(self.accounts.database, self.files, self.state_dir)
            path = await trio.to_thread.run_sync(stack.enter_context, making)
            async with await trio.open_file(path, "rb") as file:
                while data := await file.read(CHUNK_BYTES):
                    yield {"data": base64.b64encode(data).decode()}
        await self._note("backup made", None, "")

    async def accept_loss(self, args: Args) -> AsyncGenerator[Json, None]:
        ledger = self.accounts.ledger
        if not ledger.set_aside:
            raise InvalidRequest("no damaged ledger was set aside")
        await ledger.accept_loss()
        yield {"message": "every budget starts anew; the damaged ledger stays where it is"}

    # -- the parts -------------------------------------------------------------------------------

    async def _note(self, kind: str, principal: Principal | None, text: str) -> None:
        """A change that is made is told, also where the ledger cannot be written now."""
        self.accounts.ledger.note(kind, principal, text)
        await self._brought_up_to_date()

    async def _brought_up_to_date(self) -> None:
        """The file has all there is to tell, unless it cannot be written now."""
        with suppress(LedgerUnavailable):
            await self.accounts.ledger.flush()

    def _configured(self) -> dict[Principal, Key]:
        keys = map(configured_key, self.accounts.settings.keys)
        return {key.principal: key for key in keys}

    def _check_stored(self, name: str) -> None:
        if any(name in names(principal) for principal in self._configured()):
            raise InvalidRequest(f"{name} is a key of the configuration: change it there")

    def _listed(self) -> Iterator[dict[str, Json]]:
        """Whoever shows no key is listed where that has a budget."""
        if self.accounts.ledger.caps_of(ANONYMOUS):
            yield self._json(ANONYMOUS_KEY, "configuration")
        for key in self._configured().values():
            yield self._json(key, "configuration")
        for stored in self.accounts.ring.stored.keys:
            shown = self._json(stored.key(), "key store")
            yield shown | {"created_at": stored.created_at, "note": stored.note}

    def _json(self, key: Key, origin: str) -> dict[str, Json]:
        principal, ledger = key.principal, self.accounts.ledger
        ever = ledger.standing(Cap(Scope(principal.account_id, principal.key_id))).meter.spent
        standings = [ledger.standing(cap) for cap in ledger.caps_of(principal)]
        return {
            "name": names(principal)[1],
            "account": principal.account_id,
            "key": principal.key_id,
            "state": state_of(key),
            "from": origin,
            "created_at": None,
            "expires_at": key.expires_at,
            "allowed_models": list(key.allowed_models),
            "weight": key.share.weight,
            "priority": key.share.priority,
            "spent_tokens": ever.tokens,
            "spent_usd": ever.usd,
            "budgets": list(budgets_json(standings)),
            "note": "",
        }


def budgets_json(standings: Sequence[Standing]) -> Iterator[dict[str, Json]]:
    """The bounds on tokens, then those on USD; of each the one that leaves the least `binds`."""
    for unit in UNITS:
        alike = [
            bound_json(one, bound)
            for one in standings
            for bound in bounds(one)
            if bound.unit == unit
        ]
        least = min(alike, key=itemgetter("remaining"), default=None)
        yield from ({**one, "binds": one is least} for one in alike)


def bound_json(standing: Standing, bound: Bound) -> dict[str, Json]:
    scope, window = standing.cap.scope, standing.cap.window
    return {
        "scope": scope.kind,
        **asdict(bound),
        "window": {"kind": window.kind, "seconds": window.seconds},
        "reset_seconds": standing.reset_seconds,
    }


def state_of(key: Key) -> str:
    if key.is_revoked:
        return "revoked"
    return "in force" if key.opens(time.time()) else "expired"


def hash_of(stored: StoredKeys, secret: str) -> str:
    return keyed_hash(bytes.fromhex(stored.installation), plain_hash(secret.encode()))


def told(budget: Budget) -> str:
    tokens = "no bound on tokens" if budget.hard_cap is None else f"{budget.hard_cap} tokens"
    money = "" if budget.hard_cap_usd is None else f", {budget.hard_cap_usd:g} USD"
    length = f" of {budget.window.seconds} s" if budget.window.seconds else ""
    return f"{tokens}{money}, {budget.window.kind}{length}"


# -- arguments ---------------------------------------------------------------------------------------


def fitting(check: Any, value: str, param: str) -> str:
    try:
        check(None, None, value)
    except Unfit as error:
        raise InvalidRequest(f"{param} must be {error.expected}", param=param) from None
    return value


def budget_of(args: Args, before: Budget) -> Budget:
    """What is said of a budget, and for the rest what it was `before`."""
    cap, usd = before.hard_cap, before.hard_cap_usd
    if args.has("hard_cap"):
        said = optional(args, "hard_cap")
        cap = None if said is None else int(said)
    if args.has("hard_cap_usd"):
        usd = optional(args, "hard_cap_usd")
    return Budget(cap, usd, window_of(args, before.window))


def window_of(args: Args, before: Window) -> Window:
    match args.value("window"):
        case None:
            return before
        case {"kind": "balance"}:
            return BALANCE
        case {"kind": "rolling" | "sliding" as kind, "seconds": int(seconds)} if seconds > 0:
            return Window(kind, seconds)
        case _:
            raise InvalidRequest(
                'window must be {"kind": "balance"}, or "rolling" or "sliding" with its seconds',
                param="window",
            )


def optional(args: Args, name: str) -> float | None:
    return None if args.value(name) is None else args.number(name, 0, 2.0**62)


def models_of(args: Args) -> tuple[str, ...]:
    models = args.value("models") or []
    if not isinstance(models, list) or not all(isinstance(model, str) for model in models):
        raise InvalidRequest("models must be a list of ids", param="models")
    return tuple(fitting(checks.model_id, model, "models") for model in models)


def priority_of(args: Args) -> Any:
    said = args.optional_text("priority") or "interactive"
    if said not in PRIORITIES:
        raise InvalidRequest(f"priority must be one of {', '.join(PRIORITIES)}", param="priority")
    return said
