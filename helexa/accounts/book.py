"""The book: what everybody spent and holds, and whether a request may begin.  Pure but for its memory.

For every principal two meters always run, one of the key and one of its account, both for everything
ever spent; caps add those of their own windows.  Whatever is written to disk is a copy of what stands
here, so the invariant `spent + reserved <= cap` is a matter of these functions alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import TypeAlias

from attrs import define, evolve, field, frozen

from helexa.accounts import windows
from helexa.accounts.amount import NOTHING, UNUSED, Amount, Used
from helexa.accounts.provider import Remaining, Wanted
from helexa.accounts.windows import BALANCE, Cap, Meter, Scope, Standing, Window
from helexa.average import smoothed
from helexa.conversation import Principal

MeterId: TypeAlias = tuple[Scope, Window]

ENDLESS = Amount(windows.WITHOUT_END, windows.WITHOUT_END)
UNTOUCHED = Meter()
SMOOTHING, FIRST_GUESS_SECONDS = 0.2, 2.0


@frozen
class Refused:
    """`cap` has no room for `asked`.

    `remaining` is what is neither spent nor reserved of it, and `room` of all caps together.  `is_held`
    tells that there will be room once requests under way have ended; else `seconds` is when the window
    makes it, None for never.
    """

    cap: Cap
    asked: Amount
    spent: Amount
    remaining: Amount
    seconds: float | None
    is_held: bool = False
    room: Amount = NOTHING


@define(eq=False)
class Open:
    """One request under way: what it may take, and what it was charged so far."""

    id: int
    wanted: Wanted
    caps: tuple[Cap, ...]
    meters: tuple[MeterId, ...]
    most: Amount
    opened_at: float
    used: Used = UNUSED
    charged: Amount = NOTHING
    uncharged: Amount = NOTHING  # beyond what was reserved, where no cap had room for it

    @property
    def held(self) -> Amount:
        return (self.most - self.charged).not_below_zero


@define(eq=False)
class Book:
    """`changed` collects the meters that differ from what was last taken for the disk."""

    meters: dict[MeterId, Meter] = field(factory=dict)
    changed: set[MeterId] = field(factory=set, init=False)
    num_open: int = field(default=0, init=False)
    _seconds: float = field(default=FIRST_GUESS_SECONDS, init=False)

    def reserve(self, id: int, wanted: Wanted, caps: Sequence[Cap], now: float) -> Open | Refused:
        """Room for all that the request may take, on every meter or on none."""
        most = wanted.prices.at_most(wanted.prompt_tokens, wanted.max_output * wanted.num_answers)
        refused = [found for cap in caps if (found := self._refusal(cap, most, now))]
        if refused:
            return evolve(max(refused, key=severity), room=self._room(caps, now))
        opened = Open(id, wanted, tuple(caps), meters_of(wanted.principal, caps), most, now)
        for meter_id in opened.meters:
            before = self.meter(meter_id)
            self._put(meter_id, before, windows.reserve(before, meter_id[1], most, now))
        self.num_open += 1
        return opened

    def use(self, opened: Open, used: Used, now: float) -> None:
        """Charge for what `opened` took since the beginning, `used`, in the place of what it was
        charged before.

        What goes beyond its reservation is charged as far as every cap has room.
        """
        self._charge(opened, used, now, is_over=False)

    def close(self, opened: Open, used: Used, now: float) -> None:
        """As `use`, and give back what it did not take.  Once, when the request is over."""
        self._charge(opened, used, now, is_over=True)
        self.num_open -= 1
        self._seconds = smoothed(self._seconds, now - opened.opened_at, SMOOTHING)

    def _charge(self, opened: Open, used: Used, now: float, *, is_over: bool) -> None:
        price, held = opened.wanted.prices.of(used), opened.held
        beyond = (price - opened.most).not_below_zero
        if beyond != NOTHING:
            beyond = beyond.at_most(self._room_beyond(opened, now))
        charged = price.at_most(opened.most) + beyond
        difference = charged - opened.charged
        opened.used, opened.charged, opened.uncharged = used, charged, price - charged
        released = held if is_over else held - opened.held
        for meter_id in opened.meters:
            before = self.meter(meter_id)
            if difference == NOTHING:
                after = windows.give_back(before, released)
            else:
                after = windows.spend(before, meter_id[1], released, difference, now)
            self._put(meter_id, before, after)

    def remaining(self, caps: Iterable[Cap], now: float) -> Remaining | None:
        """By the cap on tokens that leaves the least."""
        found = [self._remaining(cap, cap.tokens, now) for cap in caps if cap.tokens is not None]
        return min(found, key=lambda one: one.remaining, default=None)

    def meter(self, meter_id: MeterId) -> Meter:
        return self.meters.get(meter_id, UNTOUCHED)

    def standing(self, cap: Cap, now: float) -> Standing:
        meter = self.budget(cap, now)
        return Standing(cap, meter, windows.reset_seconds(meter, cap.window, now))

    def budget(self, cap: Cap, now: float) -> Meter:
        """What counts against `cap`."""
        return windows.at(self.meter((cap.scope, cap.window)), cap.window, now)

    def take_changed(self) -> Mapping[MeterId, Meter]:
        """What to write: the newest state of every meter that changed since the last time."""
        taken = {meter_id: self.meter(meter_id) for meter_id in self.changed}
        self.changed = set()
        return taken

    # -- one meter -------------------------------------------------------------------------------

    def _put(self, meter_id: MeterId, before: Meter, after: Meter) -> None:
        """Reservations are not written: those of a dead process would be nobody's."""
        is_same = (
            after.spent == before.spent
            and after.started_at == before.started_at
            and after.slots is before.slots
        )
        if not is_same:
            self.changed.add(meter_id)
        self.meters[meter_id] = after

    def _refusal(self, cap: Cap, asked: Amount, now: float) -> Refused | None:
        meter = self.budget(cap, now)
        remaining = windows.room(meter, cap)
        if asked.fits(remaining):
            return None
        if asked.fits(windows.room(Meter(meter.spent), cap)):
            return Refused(cap, asked, meter.spent, remaining, self._seconds, is_held=True)
        seconds = windows.seconds_until_room(meter, cap, asked, now)
        if seconds is None:  # it is more than the whole cap
            seconds = windows.reset_seconds(meter, cap.window, now)
        return Refused(cap, asked, meter.spent, remaining, seconds)

    def _room_beyond(self, opened: Open, now: float) -> Amount:
        """What every cap of `opened` has room for beside all reservations, its own included; what it
        was charged beyond its own already counts as room."""
        had = (opened.charged - opened.most).not_below_zero
        return self._room(opened.caps, now) + had

    def _room(self, caps: Iterable[Cap], now: float) -> Amount:
        """What none of `caps` has spent or reserved."""
        rooms = (windows.room(self.budget(cap, now), cap) for cap in caps)
        return reduce(Amount.at_most, rooms, ENDLESS)

    def _remaining(self, cap: Cap, limit: int, now: float) -> Remaining:
        standing = self.standing(cap, now)
        return Remaining(limit, standing.room.tokens, standing.reset_seconds)


def meters_of(principal: Principal, caps: Iterable[Cap]) -> tuple[MeterId, ...]:
    """Each once: the balances that always run, and those that `caps` count by."""
    account, key = Scope(principal.account_id), Scope(principal.account_id, principal.key_id)
    ids = [(key, BALANCE), (account, BALANCE), *((cap.scope, cap.window) for cap in caps)]
    return tuple(dict.fromkeys(ids))


def severity(refused: Refused) -> tuple[bool, float]:
    """What will never pass by itself before what takes long, and that before what is merely held."""
    return not refused.is_held, float("inf") if refused.seconds is None else refused.seconds
