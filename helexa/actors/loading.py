"""Models that requests wait for: planned, taken turns with, loaded, and handed to those that waited."""

import math
from collections.abc import Callable

import trio
from attrs import define, evolve, field

from helexa import logs
from helexa.actors.board import Board, Turn
from helexa.actors.leases import Acquire, Lease
from helexa.actors.lines import Key, Line, LoadAsk
from helexa.actors.members import Member
from helexa.actors.membership import Members
from helexa.actors.moves import Move, Moved
from helexa.actors.moving import Moving
from helexa.actors.pins import Pins
from helexa.actors.planner import Planner
from helexa.actors.snapshot import option_of
from helexa.config.schema import Config
from helexa.errors import (
    Busy,
    HelexaError,
    ModelNotFound,
    ServiceUnavailable,
)
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.routing import NoOther, Route, route
from helexa.fleet.site import ANY, Plan
from helexa.metrics import Metrics
from helexa.shelf import Shelf

log = logs.get("helexa.fleet")

START_SECONDS = 10.0  # that a new fleet waits for nodes that it has not seen yet


@define(eq=False)
class Loading:
    """The part of the fleet actor that has the lines and the turns."""

    config: Config
    shelf: Shelf
    members: Members
    pins: Pins
    metrics: Metrics
    now: Callable[[], float]
    tell: Callable[[Moved], None]
    nursery: trio.Nursery
    started_at: float
    board: Board = field(factory=Board, init=False)
    planner: Planner = field(init=False)
    moving: Moving = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.planner = Planner(self.config, self.members, self.pins, self.board, self.now)
        self.moving = Moving(
            self.members, self.board, self.metrics, self.now, self.tell, self.nursery
        )

    # -- requests ----------------------------------------------------------------------------------

    def expected(self, entry: CatalogueModel) -> Plan:
        """What a request for the model would bring about now; raises what it would get."""
        found = self._route(Acquire(entry))
        return Plan(entry.id, found.node, found.why) if found else self.planner.expected(entry)

    def acquire(self, acquire: Acquire) -> None:
        """Lease it a node, or let it wait.  The errors are those of `routing.route`, and Busy."""
        if acquire.kind is not None:
            self._lease_now(acquire)
            return
        line = self.board.line(acquire.entry.id)
        if line is None or not line.waiting:
            found = self._route(acquire)
            if found is not None:
                self._lease(acquire, found.node, found.why)
                return
        self._check_waiters()
        line = self.board.line_for(acquire.entry, None)
        line.add(acquire, self.now())
        self._go_on(line)

    def ask(self, ask: LoadAsk) -> None:
        """Somebody wants a model loaded, for whatever reason."""
        ask.waits.since = self.now()
        entry = ask.entry
        if ask.by == "operator":  # whose word lets files be fetched, and failures be tried again
            entry = evolve(entry, download="on_demand")
            for member in self.members if ask.node is None else [self.members[ask.node]]:
                member.of(entry.id).failure = None
        line = self.board.line_for(entry, ask.node)
        line.asks.append(ask)
        if ask.by == "operator":
            line.entry = entry
        self._go_on(line)

    def left(self, acquire: Acquire) -> None:
        """It does not wait any more; a load that has begun goes on."""
        line = self.board.line(acquire.entry.id)
        if line is not None:
            line.remove(acquire)
            self._settle(line)

    def freed(self, model: str) -> None:
        """A request for the model ended: the next of those that wait may go."""
        if line := self.board.line(model):
            self._serve(line)
            self._settle(line)

    def _lease_now(self, acquire: Acquire) -> None:
        """Lease it one of the nodes that can answer it; it waits for none."""
        found = self._route(acquire)
        if found is None:
            raise nobody(acquire, bool(self._having(acquire)))
        self._lease(acquire, found.node, found.why)

    def _having(self, acquire: Acquire) -> list[Member]:
        """The nodes that tell of its model, of those that can answer it."""
        having = self.members.having(acquire.entry.id)
        return [each for each in having if acquire.kind in (None, each.view.kind)]

    def _check_waiters(self) -> None:
        most = self.config.fleet.max_load_waiters
        if self.board.num_waiting >= most:
            why = f"[fleet] max_load_waiters = {most}: as many wait for models to load already"
            raise Busy(why, retry_after=5)

    # -- leases ------------------------------------------------------------------------------------

    def _route(self, acquire: Acquire, *, due: bool = False, paced: bool = False) -> Route | None:
        """A node for it now.  `due`: its model's turn serves it yet; `paced`: only where it would run."""
        model, now = acquire.entry.id, self.now()
        options = [
            option_of(member, model, now, self._admits(member, model, due=due, paced=paced))
            for member in self._having(acquire)
        ]
        return route(model, options, acquire.session, acquire.avoid)

    def _admits(self, member: Member, model: str, *, due: bool, paced: bool) -> bool:
        if paced and member.open[model] >= member.width(model):
            return False
        return due or not self.board.is_held(model, member.name)

    def _lease(self, acquire: Acquire, node: str, why: str) -> None:
        self.members.lease(node, acquire, self.now())
        acquire.reply.set(Lease(node, why))

    def _serve(self, line: Line) -> None:
        """Lease nodes to those that wait, in their order.

        Those who waited for the load go as fast as they run there, so that no queue overflows.  Who came
        later is no business of ours once they are served: there is the node's own queue for that.
        """
        for acquire in line:
            try:
                found = self._find(acquire, due=line.num_due > 0)
            except HelexaError as error:
                line.remove(acquire)
                acquire.reply.fail(error)
                continue
            if found is None:
                break
            line.remove(acquire)
            waited = self.now() - acquire.waits.since
            self.metrics.waited(line.entry.id, waited)
            cause = f" for {line.why}" if line.why else ""
            self._lease(acquire, found.node, f"{found.why}; waited {waited:.1f} s{cause}")
        if line.asks and (node := self._loaded_at(line)):
            line.answer(node)

    def _find(self, acquire: Acquire, *, due: bool) -> Route | None:
        try:
            return self._route(acquire, due=due, paced=due)
        except NoOther:
            if self._route(acquire, due=due) is None:  # else there is one, which is full just now
                raise
            return None

    def _loaded_at(self, line: Line) -> str | None:
        """A node that has the line's model, and is what the line wants."""
        model, now = line.entry.id, self.now()
        nodes = (
            member.name
            for member in self.members.having(model)
            if line.node in (None, member.name)
            and (line.node or member.is_open(now))
            and member.loaded(model)
            and not member.changing[model]
        )
        return next(nodes, None)

    # -- going on ----------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Look at all that wait again: whoever has waited longest first."""
        for key in [key for key in self.board.turns if key not in self.board.lines]:
            self._end_turn(key)
        for line in sorted(self.board.lines.values(), key=lambda each: each.since):
            line.asks = [ask for ask in line.asks if ask.reply.wanted]
            if line.key in self.board.lines:
                self._go_on(line)

    def _go_on(self, line: Line) -> None:
        self._serve(line)
        if self.board.load_of(*line.key) or self._is_served(line):
            self.board.promised.pop(line.key, None)
        else:
            line.num_due = 0  # whoever was still to be served in its turn waits for a load again
            if line.is_cold:
                self._plan(line)
        self._settle(line)

    def _settle(self, line: Line) -> None:
        """Forget a line that nobody waits in, and what was planned for it."""
        if not line.is_cold:
            self.board.promised.pop(line.key, None)
            self._end_turn(line.key)
        if line.is_empty:
            self.board.lines.pop(line.key, None)

    def _end_turn(self, key: Key) -> None:
        """Whoever was held for it goes on."""
        turn = self.board.turns.pop(key, None)
        for victim in turn.victims if turn else ():
            if held := self.board.line(victim):
                if self._is_served(held):
                    held.turn_begins()
                self._serve(held)
                self._settle(held)

    def _is_served(self, line: Line) -> bool:
        """Whether the model is loaded: those that wait do so for their turn or their pace."""
        return self._loaded_at(line) is not None

    def _must_wait(self, line: Line) -> bool:
        """Whether nodes that may have the model were not seen yet, or were still there a moment ago."""
        now, model = self.now(), line.entry.id
        if not self.members.are_known and now < self.started_at + START_SECONDS:
            return True
        there = self.members.having(model) if line.node is None else []
        return any(
            member.loaded(model) and member.is_back_soon(now)
            for member in there
            if member.name not in line.avoided()
        )

    # -- plans -------------------------------------------------------------------------------------

    def _plan(self, line: Line) -> None:
        if self._must_wait(line):
            return
        found = self.planner.plan(line)
        turn = self.board.turns.get(line.key)
        if isinstance(found, Plan) and not found.busy:
            self._begin(line, found)
        elif turn is not None and isinstance(here := self.planner.plan(line, turn.node), Plan):
            self._take_turn(line, here) if here.busy else self._begin(line, here)
        elif isinstance(found, Plan):
            self._wait_for_turn(line, found)
        elif not found.passing:
            log.warning("no node for model", model=line.entry.id, reason=found.error.message)
            line.fail(found.error)

    def _wait_for_turn(self, line: Line, found: Plan) -> None:
        self._end_turn(line.key)
        if found.free_at <= self.now():
            self._take_turn(line, found)
            return
        device = ANY.index if found.device is None else found.device
        self.board.promised[line.key] = found.node, device
        line.why = found.why

    def _take_turn(self, line: Line, found: Plan) -> None:
        """The models in the way finish what they have begun, and get nothing new."""
        device = ANY.index if found.device is None else found.device
        self.board.promised.pop(line.key, None)
        if line.key not in self.board.turns:
            log.info("turn", model=line.entry.id, node=found.node, held=", ".join(found.evict))
            line.why = found.why
        self.board.turns[line.key] = Turn(found.node, device, frozenset(found.evict))

    # -- moves -------------------------------------------------------------------------------------

    def _begin(self, line: Line, found: Plan) -> None:
        self.board.promised.pop(line.key, None)
        member, line.why = self.members[found.node], found.why
        stays = ((victim, member.stays.get(victim)) for victim in found.evict)
        move = Move(
            found.node,
            line.entry,
            found.evict,
            frozenset(victim for victim, stay in stays if stay and stay.is_unclaimed),
            found.device,
            asked_at=min(line.since, self.now()),
            seconds=math.inf if line.asks else self.config.fleet.load_wait_secs,
            for_requests=bool(line.waiting),
            by="operator" if any(ask.by == "operator" for ask in line.asks) else "request",
        )
        line.show(0, 0)
        log.info("loading", model=line.entry.id, node=found.node, why=found.why)
        self.moving.start(move)
        self._end_turn(line.key)

    def moved(self, moved: Moved) -> None:
        """A move is over: serve those that waited for it."""
        self.moving.ended(moved)
        self.sweep()


def nobody(acquire: Acquire, is_somewhere: bool) -> HelexaError:
    """Why nodes of one kind cannot answer, be it for now."""
    model, kind = acquire.entry.id, acquire.kind
    if is_somewhere:
        return ServiceUnavailable(
            f"no node of kind {kind} that has model {model} takes requests now", retry_after=5
        )
    return ModelNotFound(
        f"model {model} is on no node of kind {kind}, and only those answer such requests",
        param="model",
    )
