"""The nodes of the fleet together, and which of them have a model."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from attrs import evolve

from helexa.actors.leases import Acquire, Outcome
from helexa.actors.members import Member, Stay
from helexa.errors import NotFound
from helexa.fleet.entry import ModelEntry
from helexa.fleet.view import ModelView, NodeKind, NodeView
from helexa.nodes.port import NodePort


class Members:
    """In the order of the configuration.  Only the fleet actor has them."""

    def __init__(self, ports: Mapping[str, NodePort], kinds: Mapping[str, NodeKind]) -> None:
        self._members = {
            name: Member(
                port,
                NodeView(name, kinds.get(name, "local"), up=False, why_down="not looked at yet"),
            )
            for name, port in ports.items()
        }
        self._having: dict[str, dict[str, Member]] = defaultdict(dict)
        self._leases: dict[Acquire, Member] = {}

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def __getitem__(self, node: str) -> Member:
        """NotFound for a name that is none."""
        if node not in self._members:
            known = ", ".join(self._members)
            raise NotFound(f"there is no node {node[:80]!r}; the nodes are {known}", param="node")
        return self._members[node]

    def get(self, node: str) -> Member | None:
        return self._members.get(node)

    def having(self, model: str) -> list[Member]:
        """The nodes that tell of the model, whatever its status there."""
        return list(self._having.get(model, {}).values())

    @property
    def are_known(self) -> bool:
        """Whether each was seen, or found lost, at least once."""
        return all(member.is_known for member in self)

    def seen(self, view: NodeView, now: float) -> None:
        member = self[view.name]
        before = member.view
        if member.seen(view, now):
            self._index(member, before)

    def lease(self, node: str, acquire: Acquire, now: float) -> None:
        self[node].lease(acquire, now)
        self._leases[acquire] = self[node]

    def leave(self, acquire: Acquire, outcome: Outcome, now: float) -> Member | None:
        """The node that was leased, None if none was."""
        member = self._leases.pop(acquire, None)
        if member is not None:
            member.leave(acquire, outcome, now)
        return member

    def begin_anew(self, now: float) -> None:
        """After a crash: nothing changes any more, and what was given back meanwhile is."""
        for member in self:
            member.changing.clear()
        for acquire in [acquire for acquire in self._leases if acquire.waits.is_over]:
            self.leave(acquire, Outcome("cancelled"), now)

    def loaded(self, member: Member, model: str, now: float, asked_at: float) -> None:
        """A load ended well: the node says so, or is about to."""
        if not member.loaded(model):
            told = ModelView(ModelEntry(model, status="loaded"))
            self._replace(member, model, told)
        member.stays[model] = Stay(now, asked_at, now)

    def gone(self, member: Member, model: str) -> None:
        """The model is not on the node any more, though it may not have told so yet."""
        member.stays.pop(model, None)
        self._replace(member, model, None)

    def _replace(self, member: Member, model: str, told: ModelView | None) -> None:
        before = member.view
        others = tuple(each for each in before.models if each.entry.id != model)
        member.view = evolve(before, models=(*others, told) if told else others)
        self._index(member, before)

    def _index(self, member: Member, before: NodeView) -> None:
        for each in before.models:
            self._having[each.entry.id].pop(member.name, None)
        for each in member.view.models:
            self._having[each.entry.id][member.name] = member
