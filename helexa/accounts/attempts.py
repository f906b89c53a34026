"""How often an address may try keys that nobody knows.  Pure; its memory is bounded."""

from collections import OrderedDict
from typing import Any

from attrs import define, field, frozen

from helexa.conversation import Principal

BURST = 30  # wrong keys in a row
SECONDS_EACH = 2.0  # until one more may be tried
MOST_REMEMBERED = 4096  # addresses, and keys at addresses; the oldest are forgotten first


@frozen
class Tried:
    """`debt` is the number of tries that count against an address at the time `at`."""

    debt: float
    at: float

    def now(self, now: float) -> float:
        return max(0.0, self.debt - (now - self.at) / SECONDS_EACH)


@define(eq=False)
class Attempts:
    """After too many wrong keys an address must wait, but for keys that it showed before: many clients
    may share it."""

    _tried: OrderedDict[str, Tried] = field(factory=OrderedDict, init=False)
    _known: OrderedDict[tuple[str, Principal], None] = field(factory=OrderedDict, init=False)

    def failed(self, address: str, now: float) -> float:
        """Count a wrong key.  The seconds until the next may be tried, 0 while any may."""
        before = self._tried.pop(address, Tried(0.0, now)).now(now)
        self._tried[address] = Tried(min(before + 1, BURST + 1), now)
        forget_oldest(self._tried)
        return self._wait(address, now)

    def came(self, address: str, principal: Principal, now: float) -> float:
        """A right key.  The seconds until it lets anybody in, 0 for now."""
        who = (address, principal)
        wait = 0.0 if who in self._known else self._wait(address, now)
        if not wait:
            self._known[who] = None
            self._known.move_to_end(who)
            forget_oldest(self._known)
        return wait

    def _wait(self, address: str, now: float) -> float:
        tried = self._tried.get(address)
        return 0.0 if tried is None else max(0.0, (tried.now(now) - BURST) * SECONDS_EACH)


def forget_oldest(remembered: "OrderedDict[Any, Any]") -> None:
    if len(remembered) > MOST_REMEMBERED:
        remembered.popitem(last=False)
