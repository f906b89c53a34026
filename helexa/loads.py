"""What may be loaded by whoever can reach the node or the control socket."""

from fnmatch import fnmatchcase
from typing import Literal

from attrs import evolve, frozen

from helexa.config.checks import Unfit, is_model_id
from helexa.errors import Forbidden, InvalidRequest, ModelNotFound
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.quant import POLICIES, is_known
from helexa.library import Library
from helexa.shelf import Shelf
from helexa.store import StoredModel
from helexa.store.source import name_of

Download = Literal["never", "on_demand"]
OUR_HARNESSES = ("torch", "candle", "script")


@frozen
class LoadSpec:
    """What POST /models/load names; `devices` are indexes, empty for any.

    `on_demand` says that some gateway asks, and nobody who may have files fetched: that `download`
    alone allows, of a source that this node takes.  `by` says for whom it asks: what an operator has
    loaded is loaded again after a restart.
    """

    model_id: str
    source: str = ""
    harness: str = ""
    quant: str = ""
    tensor_parallel: int = 1
    devices: tuple[int, ...] = ()
    on_demand: bool = False
    by: Literal["request", "operator"] = "request"
    download: Download = "never"


@frozen(eq=False)
class Loads:
    """From a name to an entry: the catalogue's, one for a stored model, or one for an allowed source."""

    shelf: Shelf
    library: Library
    allow_sources: tuple[str, ...]

    def id_of(self, name: str) -> str:
        """The id behind an alias, or behind a source or store name; others stay as they are."""
        entry = self._catalogued(name, name)
        return entry.id if entry else name

    async def entry_for(self, spec: LoadSpec) -> CatalogueModel:
        """ModelNotFound, Forbidden or InvalidRequest say why there is none.

        One and the same files have one entry, whatever name they are asked for by.
        """
        check(spec)
        spec = evolve(spec, source=self.library.at_home(spec.source))
        entry = self._catalogued(spec.model_id, spec.source or spec.model_id)
        if spec.harness and (spec.harness == "script") != (entry is not None and entry.is_script):
            raise InvalidRequest(
                f"The catalogue has no {spec.harness} model {spec.model_id[:200]!r}.",
                param="harness",
            )
        if entry is not None:
            return entry
        if spec.source and spec.on_demand:
            return await self._for_gateway(spec)
        if spec.source:
            return await self._from_source(spec)
        stored = await self.library.find(spec.model_id)
        if stored is None:
            raise ModelNotFound(
                f"Model {spec.model_id[:200]!r} is neither in the catalogue nor in the store; "
                "`helexa models add SOURCE` brings one in.",
                param="model_id",
            )
        return CatalogueModel(id=self._own_id(stored), source=stored.source)

    def _catalogued(self, name: str, source_or_name: str) -> CatalogueModel | None:
        catalogue = self.shelf.catalogue
        served = (e for e in catalogue.served_from(source_or_name) if not e.is_script)
        return catalogue.resolve(name) or next(served, None)

    def _own_id(self, stored: StoredModel) -> str:
        """A hub's name for it, as clients know the model by that, else the store's."""
        hub_name = stored.source.removeprefix("hf:")
        is_free = is_model_id(hub_name) and self.shelf.catalogue.resolve(hub_name) is None
        return hub_name if stored.source.startswith("hf:") and is_free else stored.name

    async def _from_source(self, spec: LoadSpec) -> CatalogueModel:
        self._check_source(spec.source)
        check_id(spec.model_id)
        stored = await self.library.add(spec.source)
        return CatalogueModel(id=spec.model_id, source=stored.source)

    async def _for_gateway(self, spec: LoadSpec) -> CatalogueModel:
        """Files that are here may be loaded by whoever may load; others come in with the load."""
        check_id(spec.model_id)
        stored = await self.library.find(spec.source)
        if stored is not None:
            return CatalogueModel(id=spec.model_id, source=stored.source)
        if spec.download == "on_demand" or spec.by == "operator":
            self._check_source(spec.source)
        try:
            return CatalogueModel(id=spec.model_id, source=spec.source, download=spec.download)
        except Unfit as error:
            raise InvalidRequest(f"`source` must be {error.expected}.", param="source") from None

    def _check_source(self, source: str) -> None:
        if not any(fnmatchcase(source, pattern) for pattern in self.allow_sources):
            raise Forbidden(
                "This node takes no source over the network; `[node] allow_sources` can let it in.",
                param="source",
            )


def check_id(model: str) -> None:
    if not is_model_id(model):
        raise InvalidRequest(
            f'{model[:200]!r} cannot be a model\'s id: write one such as "qwen3-8b".',
            param="model_id",
        )


def check(spec: LoadSpec) -> None:
    if not is_model_id(spec.model_id) and name_of(spec.model_id) is None:
        raise InvalidRequest(
            f"{spec.model_id[:200]!r} is neither a model's id nor a source.", param="model_id"
        )
    if spec.harness and spec.harness not in OUR_HARNESSES:
        raise InvalidRequest(
            f"This node's harnesses are torch and script, not {spec.harness[:50]!r}.",
            param="harness",
        )
    if spec.tensor_parallel > 1:
        raise InvalidRequest(
            "This node runs a model on one device; tensor_parallel must be 1.",
            param="tensor_parallel",
        )
    if not is_known(spec.quant):
        raise InvalidRequest(
            f"{spec.quant[:50]!r} is no quantisation that is known here; there are "
            f"{', '.join(POLICIES)} and auto.",
            param="quant",
        )
