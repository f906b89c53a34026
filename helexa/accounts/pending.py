"""What gathers between two commits of the ledger: the newest state of each row, and events."""

from collections.abc import Mapping

from attrs import define, field

from helexa.accounts.book import MeterId
from helexa.accounts.rows import Batch, Event, Row, Stamp
from helexa.accounts.windows import Meter


@define(eq=False)
class Pending:
    rows: dict[int, Row] = field(factory=dict)
    events: dict[int, Event] = field(factory=dict)
    accepts_loss: bool = False

    def put(self, row: Row) -> None:
        self.rows[row.id] = row

    def add(self, event: Event) -> None:
        self.events[event.id] = event

    def take(self, meters: Mapping[MeterId, Meter], stamp: Stamp | None) -> Batch:
        batch = Batch(self.rows, meters, tuple(self.events.values()), self.accepts_loss, stamp)
        self.rows, self.events, self.accepts_loss = {}, {}, False
        return batch

    def put_back(self, batch: Batch) -> None:
        """`batch` was not written: what gathered since then is newer."""
        self.rows = {**batch.rows, **self.rows}
        self.accepts_loss |= batch.accepts_loss
        self.events = {**{event.id: event for event in batch.events}, **self.events}
