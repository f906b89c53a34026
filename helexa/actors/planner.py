"""What the fleet would do for a model now: the snapshot is taken, and the pure room asked."""

from collections.abc import Callable

from attrs import frozen

from helexa.actors.board import Board
from helexa.actors.lines import Line
from helexa.actors.members import Member
from helexa.actors.membership import Members
from helexa.actors.pins import Pins
from helexa.actors.snapshot import Waiter, site_of
from helexa.config.schema import Config
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.planning import plan
from helexa.fleet.site import Plan, Refusal, Site


@frozen(eq=False)
class Planner:
    config: Config
    members: Members
    pins: Pins
    board: Board
    now: Callable[[], float]

    def expected(self, entry: CatalogueModel) -> Plan:
        """What becomes of a model that is not loaded; raises what a request would get."""
        line = self.board.line(entry.id) or Line(entry)
        if (move := self.board.load_of(entry.id)) is not None:
            return Plan(entry.id, move.node, line.why or f"node {move.node} is loading it")
        found = self.plan(line)
        if isinstance(found, Refusal):
            raise found.error
        return found

    def plan(self, line: Line, node: str | None = None) -> Plan | Refusal:
        """For all who wait there, on the node if one is named, else wherever the line may go."""
        node, entry, now = node or line.node, line.entry, self.now()
        members = list(self.members) if node is None else [self.members[node]]
        for member in members:
            if self._is_loading(member, entry.id):
                return Plan(entry.id, member.name, f"node {member.name}: it is being loaded there")
        sites = self._sites(line, members)
        return plan(entry, sites, now, self.config.eviction.strategy, line.avoided())

    def _is_loading(self, member: Member, model: str) -> bool:
        """Whether somebody else has the node load it."""
        now, view = self.now(), member.view.model(model)
        is_loading = view is not None and view.entry.status == "loading"
        return is_loading and member.is_open(now) and not member.rests(model, now)

    def _sites(self, line: Line, members: list[Member]) -> list[Site]:
        entry, now, waiter = line.entry, self.now(), self._waiter(line)
        learned = (member.learned.get(entry.id) for member in self.members)
        measured = max((each.required_mb for each in learned if each), default=0)
        return [
            site_of(
                member,
                waiter,
                now,
                self.board.taken(member.name, line.key),
                self.board.promised_on(member.name, line.key),
                entry.vram_mb or measured,
            )
            for member in members
        ]

    def _waiter(self, line: Line) -> Waiter:
        return Waiter(
            line.entry,
            min(line.since, self.now()),
            self.config.eviction.turn_seconds,
            self.pins.entry,
            self.pins.has,
            self.board.is_held,
            self.board.num_due,
        )
