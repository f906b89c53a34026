"""What the fleet does without being asked: pinned models come up, unused ones leave, memory is mended."""

from collections.abc import Iterator

from attrs import define, field

from helexa import logs
from helexa.actors.lines import Key, LoadAsk
from helexa.actors.loading import Loading
from helexa.actors.members import Member
from helexa.actors.moves import Move
from helexa.fleet.activation import ActivationView
from helexa.fleet.backoff import Failure, failed
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.view import Activation

log = logs.get("helexa.fleet")


@define(eq=False)
class Upkeep:
    """`preload` are the models that come up first, in order, wherever they fit; who did leaves it."""

    _loading: Loading
    _preload: list[str]
    _coming: list[LoadAsk] = field(factory=list, init=False)
    _failed: dict[Key, Failure] = field(factory=dict, init=False)

    def look(self) -> None:
        """Begin what is due."""
        if not self._loading.members.are_known:
            return
        self._coming = [ask for ask in self._coming if not self._is_over(ask)]
        self._bring_up()
        self._keep_pinned()
        self._unload_unused()
        self._mend()

    @property
    def activation(self) -> ActivationView:
        loading = tuple(dict.fromkeys(ask.entry.id for ask in self._coming))
        missing = (entry for entry, _ in self._missing())
        pending = dict.fromkeys(entry.id for entry in (*self._due(), *missing))
        is_known = self._loading.members.are_known
        state: Activation = "loading" if loading or pending else "ready" if is_known else "starting"
        return ActivationView(
            state,
            loading,
            tuple(model for model in pending if model not in loading),
            {key[0]: why.error.message for key, why in self._failed.items() if self._lacks(*key)},
        )

    def forget(self, model: str) -> bool:
        """It need not come up first any more; whether it was still to do so."""
        if model not in self._preload:
            return False
        self._preload.remove(model)
        for ask in self._coming:
            if ask.by == "preload" and ask.entry.id == model:
                ask.reply.wanted = False
        self._coming = [ask for ask in self._coming if ask.reply.wanted]
        return True

    def _is_wanted(self, model: str, node: str | None) -> bool:
        return model in self._preload if node is None else self._loading.pins.has(model, node)

    def _lacks(self, model: str, node: str | None) -> bool:
        """Whether what did not come up is still to do so, and is not there."""
        having = self._loading.members.having(model)
        is_there = any(each.loaded(model) for each in having if node in (None, each.name))
        return self._is_wanted(model, node) and not is_there

    def _is_over(self, ask: LoadAsk) -> bool:
        model, key, error = ask.entry.id, (ask.entry.id, ask.node), ask.reply.error
        if not ask.reply.given:
            return False
        if error is None:
            self._failed.pop(key, None)
            if ask.by == "preload":
                self._preload.remove(model)
        elif self._is_wanted(*key):
            self._failed[key] = failed(self._failed.get(key), error, self._loading.now())
            log.error("model not brought up", model=model, reason=error.message)
        return True

    def _bring_up(self) -> None:
        """One after the other, so that the first get the room that there is."""
        if not any(ask.by == "preload" for ask in self._coming) and (due := self._due()):
            self._want(due[0], None, "preload")

    def _due(self) -> list[CatalogueModel]:
        """What is to come up wherever it fits, as the catalogue has it now; what failed comes last."""
        found = map(self._loading.pins.entry, self._preload)
        due = [entry for entry in found if entry and not self._rests(entry.id, None)]
        return sorted(due, key=lambda entry: (entry.id, None) in self._failed)

    def _rests(self, model: str, node: str | None) -> bool:
        """Whether it failed so lately that it is not tried again yet."""
        failure = self._failed.get((model, node))
        return failure is not None and failure.rest(self._loading.now()) > 0

    def _keep_pinned(self) -> None:
        """One at a time on each node, once that is done with its own."""
        for entry, member in self._missing():
            if member.view.activation == "ready" and not self._is_coming_to(member):
                self._want(entry, member.name, "pin")

    def _missing(self) -> Iterator[tuple[CatalogueModel, Member]]:
        """Pinned models, each with a node that is to have it, and could have it loaded now."""
        now = self._loading.now()
        for entry, node in self._loading.pins.wanted():
            member = self._loading.members.get(node)
            if member is None or not member.is_open(now) or self._rests(entry.id, node):
                continue
            told = member.view.model(entry.id)
            if not (told and told.is_there) and not member.changing[entry.id]:
                yield entry, member

    def _is_coming_to(self, member: Member) -> bool:
        return any(ask.node == member.name for ask in self._coming)

    def _want(self, entry: CatalogueModel, node: str | None, by: str) -> None:
        ask = LoadAsk(entry, node, by)
        self._coming.append(ask)
        self._loading.ask(ask)

    def _unload_unused(self) -> None:
        catalogue, now = self._loading.shelf.catalogue, self._loading.now()
        limits = {entry.id: entry.ttl_seconds for entry in catalogue.models if entry.ttl_seconds}
        if not limits:
            return
        for member in self._loading.members:
            for model, stay in list(member.stays.items()):
                ttl = limits.get(model, float("inf"))
                rested = max(stay.last_used, stay.stays_until)
                if now >= rested + ttl and self._may_leave(member, model):
                    move = Move(member.name, None, (model,), cause="ttl")
                    self._loading.moving.start(move)

    def _may_leave(self, member: Member, model: str) -> bool:
        loading = self._loading
        return (
            member.view.up
            and member.view.can_load
            and not member.busy(model)
            and not member.changing[model]
            and (model, None) not in loading.board.lines
            and not loading.pins.has(model, member.name)
        )

    def _mend(self) -> None:
        """After so many loads a node's models are loaded anew, once all of them rest."""
        cycles, now = self._loading.config.eviction.defrag_after_cycles, self._loading.now()
        if not cycles:
            return
        for member in self._loading.members:
            rests = not member.changing and not member.open and not member.others
            if member.cycles < cycles or not rests or not member.is_open(now):
                continue
            member.cycles = 0
            log.info("mending memory", node=member.name, loads=cycles)
            for model in sorted(member.stays):
                if entry := self._loading.shelf.catalogue.resolve(model):
                    move = Move(member.name, entry, (model,), cause="defrag")
                    self._loading.moving.start(move)
