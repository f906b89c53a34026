"""Budget windows: how much of a cap is left, when more will be, and what a charge does.  Pure.

balance   everything ever spent; it never comes back by itself
rolling   starts at the first reservation, lasts `seconds`, then begins anew
sliding   what was spent within the last `seconds`, to a 360th of the window
"""

import math
from typing import Literal

from attrs import evolve, field, frozen

from helexa.accounts.amount import NOTHING, Amount
from helexa.config.checks import Unfit, not_negative

NUM_SLOTS = 360  # of a sliding window; what was spent in a slot leaves when all of it is too old

WindowKind = Literal["balance", "rolling", "sliding"]
ScopeKind = Literal["key", "account"]


@frozen(cache_hash=True)
class Window:
    """`seconds` is the length of a rolling or sliding window, and 0 for a balance."""

    kind: WindowKind = "balance"
    seconds: int = field(default=0, validator=not_negative)

    def __attrs_post_init__(self) -> None:
        if (self.kind == "balance") != (self.seconds == 0):
            raise Unfit(
                '{ kind = "balance" }, or { kind = "rolling", seconds = N } or "sliding" likewise',
                self.kind,
            )

    @property
    def slot_seconds(self) -> int:
        return math.ceil(self.seconds / NUM_SLOTS)


BALANCE = Window()


@frozen(cache_hash=True)
class Scope:
    """Whose spending is counted: one key's, or with an empty `key_id` its whole account's."""

    account_id: str
    key_id: str = ""

    @property
    def kind(self) -> ScopeKind:
        return "key" if self.key_id else "account"


@frozen
class Cap:
    """The most that `scope` may spend within `window`; None is no bound."""

    scope: Scope
    window: Window = BALANCE
    tokens: int | None = None
    pico_usd: int | None = None


@frozen
class Meter:
    """What one scope spent within one window, and what it holds for requests under way.

    Times are seconds of the ledger's clock.  `started_at` is a rolling window's, None before its
    first reservation.  `slots` are a sliding window's, oldest first: the number of the slot and what
    was spent in it.
    """

    spent: Amount = NOTHING
    reserved: Amount = NOTHING
    started_at: float | None = None
    slots: tuple[tuple[int, Amount], ...] = ()

    @property
    def taken(self) -> Amount:
        return self.spent + self.reserved


@frozen
class Standing:
    """How much of `cap` is taken at one moment; `reset_seconds` as the function of that name tells."""

    cap: Cap
    meter: Meter
    reset_seconds: float | None

    @property
    def room(self) -> Amount:
        """What is neither spent nor reserved."""
        return room(self.meter, self.cap)


def at(meter: Meter, window: Window, now: float) -> Meter:
    """`meter` as it stands at `now`: what is too old has left it."""
    match window.kind:
        case "balance":
            return meter
        case "rolling":
            started_at = meter.started_at
            if started_at is None or now < started_at + window.seconds:
                return meter
            return evolve(meter, spent=NOTHING, started_at=None)
        case "sliding":
            return without_old(meter, window, now)


def without_old(meter: Meter, window: Window, now: float) -> Meter:
    """Drops the slots of which even the last moment is `seconds` ago."""
    slots, spent = meter.slots, meter.spent
    while slots and end_of(slots[0][0], window) + window.seconds <= now:
        spent -= slots[0][1]
        slots = slots[1:]
    return meter if slots is meter.slots else evolve(meter, slots=slots, spent=spent)


def end_of(slot: int, window: Window) -> float:
    return (slot + 1) * window.slot_seconds


def reserve(meter: Meter, window: Window, amount: Amount, now: float) -> Meter:
    meter = begun(at(meter, window, now), window, now)
    return Meter(meter.spent, meter.reserved + amount, meter.started_at, meter.slots)


def give_back(meter: Meter, amount: Amount) -> Meter:
    return Meter(meter.spent, meter.reserved - amount, meter.started_at, meter.slots)


def spend(meter: Meter, window: Window, held: Amount, amount: Amount, now: float) -> Meter:
    """`amount` is spent now, and `held` is not reserved for it any more.

    A negative amount takes back what was charged too much, as far as the window still counts it.
    """
    meter = begun(at(meter, window, now), window, now)
    reserved = meter.reserved - held
    if window.kind == "sliding":
        return in_slot(meter, int(now // window.slot_seconds), amount, reserved)
    return Meter((meter.spent + amount).not_below_zero, reserved, meter.started_at)


def begun(meter: Meter, window: Window, now: float) -> Meter:
    if window.kind != "rolling" or meter.started_at is not None:
        return meter
    return evolve(meter, started_at=now)


def in_slot(meter: Meter, slot: int, amount: Amount, reserved: Amount) -> Meter:
    """What is taken back comes off the newest slots."""
    slots, owed = list(meter.slots), amount
    if not slots or slots[-1][0] < slot:
        slots.append((slot, NOTHING))
    for index in reversed(range(len(slots))):
        number, spent = slots[index]
        slots[index] = (number, (spent + owed).not_below_zero)
        owed = spent + owed - slots[index][1]
        if owed == NOTHING:
            break
    return Meter(meter.spent + amount - owed, reserved, slots=tuple(slots))


# -- what is left ------------------------------------------------------------------------------------


def room(meter: Meter, cap: Cap) -> Amount:
    """What may still be reserved under `cap`; a bound that is not set has room without end."""
    return Amount(left(cap.tokens, meter.taken.tokens), left(cap.pico_usd, meter.taken.pico_usd))


WITHOUT_END = 2**62


def left(bound: int | None, taken: int) -> int:
    return WITHOUT_END if bound is None else max(0, bound - taken)


def reset_seconds(meter: Meter, window: Window, now: float) -> float | None:
    """Until nothing that was spent counts any more; None for never, 0 where nothing was spent."""
    match window.kind:
        case "balance":
            return None
        case "rolling":
            started_at = meter.started_at
            return 0.0 if started_at is None else max(0.0, started_at + window.seconds - now)
        case "sliding":
            if not meter.slots:
                return 0.0
            return max(0.0, end_of(meter.slots[-1][0], window) + window.seconds - now)


def seconds_until_room(meter: Meter, cap: Cap, amount: Amount, now: float) -> float | None:
    """Until `amount` fits if nobody spends meanwhile and what is reserved comes back; None for never."""
    if not amount.fits(room(Meter(), cap)):
        return None
    if amount.fits(room(Meter(meter.spent), cap)):
        return 0.0
    if cap.window.kind != "sliding":
        return reset_seconds(meter, cap.window, now)
    spent, until = meter.spent, 0.0
    for slot, in_it in meter.slots:
        if not amount.fits(room(Meter(spent), cap)):
            spent -= in_it
            until = max(0.0, end_of(slot, cap.window) + cap.window.seconds - now)
    return until
