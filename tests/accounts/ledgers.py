"""Who asks a ledger in these tests, and for what."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from helexa.accounts.amount import FREE, Prices
from helexa.accounts.budget import Budget
from helexa.accounts.keys import Key, Keys, keyed_hash, plain_hash
from helexa.accounts.provider import Reservation, Wanted
from helexa.accounts.windows import Scope
from helexa.actors.ledger import Ledger
from helexa.conversation import Principal

ANN = Principal("lab", "ann")
BOB = Principal("lab", "bob")
INSTALLATION = b"installation"

Rows = Callable[..., list[tuple[Any, ...]]]  # what stands in the file, seen from outside
OpenLedger = Callable[..., AbstractAsyncContextManager[Ledger]]


def keys_with(budgets: Mapping[Principal, Budget]) -> Keys:
    """Each principal's key is `sk-` and its key id."""
    return Keys(
        INSTALLATION,
        {
            keyed_hash(INSTALLATION, plain_hash(f"sk-{who.key_id}".encode())): Key(
                who, budget.caps(Scope(who.account_id, who.key_id))
            )
            for who, budget in budgets.items()
        },
    )


def want(
    principal: Principal = ANN,
    prompt: int = 10,
    output: int = 20,
    prices: Prices = FREE,
    **more: Any,
) -> Wanted:
    return Wanted(principal, "req_1", "demo", prompt, output, prices=prices, **more)


async def granted(ledger: Ledger, wanted: Wanted) -> Reservation:
    """A reservation whose request may be answered, or why it may not."""
    held = await ledger.reserve(wanted)
    try:
        await held.written()
    except BaseException:
        held.release()
        raise
    return held
