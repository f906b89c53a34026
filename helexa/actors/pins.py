"""Which models stay on which nodes: as the catalogue has it, and as operators say until a restart."""

from collections.abc import Iterator

from attrs import define, field

from helexa.fleet.catalogue import Catalogue, CatalogueModel
from helexa.shelf import Shelf


@define(eq=False)
class Pins:
    _shelf: Shelf
    _said: dict[tuple[str, str], bool] = field(factory=dict, init=False)
    _catalogue: Catalogue | None = field(default=None, init=False)  # that `_entries` are of
    _entries: dict[str, CatalogueModel] = field(factory=dict, init=False)

    def entry(self, model: str) -> CatalogueModel | None:
        """The catalogue's entry of this id."""
        if self._catalogue is not self._shelf.catalogue:
            self._catalogue = self._shelf.catalogue
            self._entries = {entry.id: entry for entry in self._catalogue.models}
        return self._entries.get(model)

    def say(self, model: str, node: str, on: bool) -> None:
        self._said[model, node] = on

    def has(self, model: str, node: str) -> bool:
        said = self._said.get((model, node))
        if said is not None:
            return said
        entry = self.entry(model)
        return entry is not None and node in entry.pinned_on

    def nodes_of(self, model: str) -> set[str]:
        """The nodes that the model is pinned on."""
        entry = self.entry(model)
        named = {*(entry.pinned_on if entry else ()), *(n for m, n in self._said if m == model)}
        return {node for node in named if self.has(model, node)}

    def wanted(self) -> Iterator[tuple[CatalogueModel, str]]:
        """The catalogue's models, in its order, with the nodes that are to have them."""
        for entry in self._shelf.catalogue.models:
            if entry.pinned_on or self._said:
                for node in sorted(self.nodes_of(entry.id)):
                    yield entry, node
