"""What may be loaded by whoever can reach the node or the control socket."""

from fnmatch import fnmatchcase

from attrs import frozen

from helexa import logs
from helexa.errors import Forbidden, InvalidRequest, ModelNotFound
from helexa.fleet.catalogue import CatalogueModel
from helexa.library import Library
from helexa.shelf import Shelf

log = logs.get("helexa.node")

OUR_HARNESSES = ("torch", "candle")


@frozen
class LoadSpec:
    """What POST /models/load names; `devices` are indexes, empty for any."""

    model_id: str
    source: str = ""
    harness: str = ""
    quant: str = ""
    tensor_parallel: int = 1
    devices: tuple[int, ...] = ()


@frozen(eq=False)
class Loads:
    """From a name to an entry: the catalogue's, one for a stored model, or one for an allowed source."""

    shelf: Shelf
    library: Library
    allow_sources: tuple[str, ...]

    def id_of(self, name: str) -> str:
        """The id behind an alias; other names stay as they are."""
        entry = self.shelf.catalogue.resolve(name)
        return entry.id if entry else name

    async def entry_for(self, spec: LoadSpec) -> CatalogueModel:
        """ModelNotFound, Forbidden or InvalidRequest say why there is none."""
        check(spec)
        entry = self.shelf.catalogue.resolve(spec.model_id)
        if entry is not None:
            return entry
        if spec.source:
            return await self._from_source(spec)
        stored = await self.library.find(spec.model_id)
        if stored is None:
            raise ModelNotFound(
                f"Model {spec.model_id[:200]!r} is neither in the catalogue nor in the store; "
                "`helexa models add SOURCE` brings one in.",
                param="model_id",
            )
        return CatalogueModel(id=spec.model_id, source=stored.source)

    async def _from_source(self, spec: LoadSpec) -> CatalogueModel:
        if not any(fnmatchcase(spec.source, pattern) for pattern in self.allow_sources):
            raise Forbidden(
                "This node takes no source over the network; `[node] allow_sources` can let it in.",
                param="source",
            )
        stored = await self.library.add(spec.source)
        return CatalogueModel(id=spec.model_id, source=stored.source)


def check(spec: LoadSpec) -> None:
    if spec.harness and spec.harness not in OUR_HARNESSES:
        raise InvalidRequest(
            f"This node's harness is torch, not {spec.harness[:50]!r}.", param="harness"
        )
    if spec.tensor_parallel > 1:
        raise InvalidRequest(
            "This node runs a model on one device; tensor_parallel must be 1.",
            param="tensor_parallel",
        )
    if spec.quant:
        log.info(
            "quantisation not applied: weights run as they are",
            model=spec.model_id,
            quant=spec.quant,
        )
