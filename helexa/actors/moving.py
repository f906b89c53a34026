"""Loads and unloads of the fleet: begun here, and what came of each is taken from here."""

import math
from collections import Counter
from collections.abc import Callable
from functools import partial

import trio
from attrs import frozen

from helexa import logs
from helexa.actors.board import Board
from helexa.actors.members import Member
from helexa.actors.membership import Members
from helexa.actors.moves import Move, Moved, carry_out
from helexa.errors import HelexaError, InsufficientVram
from helexa.fleet.catalogue import CatalogueModel
from helexa.metrics import Metrics

log = logs.get("helexa.fleet")

BUSY_SECONDS = 1.0  # that a model is left alone after its node said that it is busy
MOST_TRIES = 8  # loads that found no room, until that counts as a failure of the node


@frozen(eq=False)
class Moving:
    """The part of the fleet actor that has the moves."""

    members: Members
    board: Board
    metrics: Metrics
    now: Callable[[], float]
    tell: Callable[[Moved], None]
    nursery: trio.Nursery

    def start(self, move: Move) -> None:
        member = self.members[move.node]
        member.changing.update(move.models)
        self.board.moves.append(move)
        self.nursery.start_soon(partial(carry_out, move, member.port, self.tell))

    def having(self, model: str, node: str | None) -> list[Member]:
        """The nodes, or the one that is meant, on which the model is or comes."""
        coming = {move.node for move in self.board.moves if move.entry and move.entry.id == model}
        named = self.members if node is None else [self.members[node]]
        return [member for member in named if member.name in coming or member.stays.get(model)]

    def progressed(self, member: Member) -> None:
        """A node tells how far its loads are."""
        for move in self.board.moves:
            if move.node != member.name or move.entry is None:
                continue
            told, line = member.view.model(move.entry.id), self.board.line(move.entry.id)
            if line is not None and told is not None:
                line.show(told.done_bytes, told.total_bytes)

    def give_up_on_lost(self, seconds: float) -> None:
        """End what nodes were asked to do that have not answered for so long."""
        for move in self.board.moves:
            lost_at = self.members[move.node].lost_at
            if lost_at is not None and self.now() >= lost_at + seconds and not move.lost:
                move.lost = self.members[move.node].view.why_down or "it does not answer"
                move.scope.cancel()

    def ended(self, moved: Moved) -> None:
        """A move is over: take what came of it."""
        move, member, now = moved.move, self.members[moved.move.node], self.now()
        self.board.moves.remove(move)
        member.changing -= Counter(move.models)
        member.changed(move.ended_at)
        for victim in move.gone:
            self.members.gone(member, victim)
            member.of(victim).left_at = now
            self.metrics.evicted(victim, move.node, move.cause)
            log.info("model left", model=victim, node=move.node, cause=move.cause)
        if moved.view is not None:
            self.members.seen(moved.view, now)
        else:
            member.is_stale = True
        if move.refused:
            self._stayed(member, move.refused, moved)
        elif moved.error is not None and move.entry is not None:
            self._not_loaded(move, member, move.entry, moved.error)
        elif move.entry is not None:
            self._loaded(move, member, move.entry)
        elif moved.error is not None:
            self._not_unloaded(move, member, moved.error)

    def _stayed(self, member: Member, victim: str, moved: Moved) -> None:
        """The node would not let a model go: it is busy, or nobody came for it yet."""
        stay = member.stays.get(victim)
        if stay is None:
            return
        stay.stays_until = self.now() + BUSY_SECONDS
        told = moved.view.model(victim) if moved.view else None
        runs = told is None or told.in_flight or told.queue_depth or member.open[victim]
        stay.is_unclaimed = not runs
        log.info("model stays", model=victim, node=member.name, unclaimed=stay.is_unclaimed)

    def _not_unloaded(self, move: Move, member: Member, error: HelexaError) -> None:
        """It is let be for a while, as one that its node calls busy."""
        for model in move.evict:
            if stay := member.stays.get(model):
                stay.stays_until = self.now() + BUSY_SECONDS
                log.warning("not unloaded", model=model, node=member.name, reason=error.message)

    def _loaded(self, move: Move, member: Member, entry: CatalogueModel) -> None:
        model = entry.id
        self.members.loaded(member, model, self.now(), move.asked_at)
        member.load_ended(model, move.load_seconds)
        member.cycles += move.cause != "defrag"  # which is what they are counted for
        self.metrics.fleet_load_ended(model, member.name, "loaded", move.load_seconds)
        if move.for_requests and member.view.kind != "local":  # a node here counts it itself
            self.metrics.cold_start(model, member.name)
        log.info("loaded", model=model, node=member.name, seconds=round(move.load_seconds, 3))
        if line := self.board.line(model):
            line.turn_begins()

    def _not_loaded(
        self, move: Move, member: Member, entry: CatalogueModel, error: HelexaError
    ) -> None:
        model, learned = entry.id, member.of(entry.id)
        self.metrics.fleet_load_ended(model, member.name, "failed")
        lines = [
            line for node in (None, member.name) if (line := self.board.lines.get((model, node)))
        ]
        if isinstance(error, InsufficientVram) and error.retry_after != math.inf:
            learned.required_mb = int(error.details.get("required_mb") or learned.required_mb)
            learned.full_with, learned.said = frozenset(member.stays), error
            for line in lines:
                line.tries += 1
            if all(line.tries < MOST_TRIES for line in lines):
                log.info("no room", model=model, node=member.name, reason=error.message)
                return
        failure = member.load_failed(model, error, self.now())
        log.warning(
            "not loaded",
            model=model,
            node=member.name,
            reason=error.message,
            retry_in=round(failure.rest(self.now())),
        )
