"""Refusals that are alike within a minute are one event, which counts them.  Pure but for its memory."""

import math

from attrs import define, evolve, field

from helexa.accounts.rows import Event

WINDOW_SECONDS = 60.0
MOST_KINDS = 256  # of refusal and key within a window; what comes beyond them is one more

Alike = tuple[str, str, str]
OTHERS: Alike = ("refused", "", "")


@define(eq=False)
class Tally:
    """Whatever comes, a window has one event more than MOST_KINDS at the most."""

    _counted: dict[Alike, Event] = field(factory=dict, init=False)
    _until: float = field(default=-math.inf, init=False)

    def add(self, event: Event, now: float) -> Event:
        """`event`, or the one before it that was alike, with the text of this one and their count."""
        if now >= self._until:
            self._counted.clear()
            self._until = now + WINDOW_SECONDS
        alike, event = self._place(event)
        before = self._counted.get(alike)
        if before is not None:
            event = evolve(
                before, text=event.text, request_id=event.request_id, count=before.count + 1
            )
        self._counted[alike] = event
        return event

    def _place(self, event: Event) -> tuple[Alike, Event]:
        alike = (event.kind, event.account_id, event.key_id)
        if alike in self._counted or len(self._counted) < MOST_KINDS:
            return alike, event
        return OTHERS, evolve(event, kind=OTHERS[0], account_id="", key_id="", text="")
