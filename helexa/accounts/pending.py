"""What gathers between two commits of the ledger: the newest state of each row, and events."""

from collections.abc import Mapping
from typing import TypeAlias

from attrs import define, evolve, field

from helexa.accounts.book import MeterId
from helexa.accounts.rows import Batch, Event, Row, Stamp
from helexa.accounts.windows import Meter

MAX_EVENTS = 256  # kinds of events in one commit; further ones are told without names

EventId: TypeAlias = tuple[str, str, str, str]


@define(eq=False)
class Pending:
    rows: dict[int, Row] = field(factory=dict)
    events: dict[EventId, Event] = field(factory=dict)
    accepts_loss: bool = False

    def put(self, row: Row) -> None:
        self.rows[row.id] = row

    def add(self, event: Event, *, as_one: bool = False) -> None:
        """With `as_one`, events of one kind and key become one that counts them and tells the last."""
        id = (event.kind, event.account_id, event.key_id, "" if as_one else event.text)
        if id not in self.events and len(self.events) >= MAX_EVENTS:
            id, event = (event.kind, "", "", ""), Event(event.time, event.kind, count=event.count)
        before = self.events.get(id)
        self.events[id] = evolve(event, count=event.count + (before.count if before else 0))

    def take(self, meters: Mapping[MeterId, Meter], stamp: Stamp | None) -> Batch:
        batch = Batch(self.rows, meters, tuple(self.events.values()), self.accepts_loss, stamp)
        self.rows, self.events, self.accepts_loss = {}, {}, False
        return batch

    def put_back(self, batch: Batch) -> None:
        """`batch` was not written: what gathered since then is newer."""
        self.rows = {**batch.rows, **self.rows}
        self.accepts_loss |= batch.accepts_loss
        newer, self.events = self.events, {}
        for event in (*batch.events, *newer.values()):
            self.add(event, as_one=event.count > 1)
