"""The catalogue in force: replaced whole when it is read again, or not at all."""

from collections.abc import Callable

import trio
from attrs import define

from helexa import logs
from helexa.errors import ConfigError, ModelNotFound
from helexa.fleet.catalogue import Catalogue, CatalogueModel

log = logs.get("helexa.catalogue")


@define(eq=False)
class Shelf:
    catalogue: Catalogue
    _read: Callable[[], Catalogue]  # reads files; raises ConfigError

    def resolve(self, name: str) -> CatalogueModel:
        entry = self.catalogue.resolve(name)
        if entry is None:
            raise ModelNotFound(
                f"There is no model {name[:200]!r}; GET /v1/models lists what there is.",
                param="model",
            )
        return entry

    def lists(self, model: str) -> bool:
        """Whether `model` is the id of an entry."""
        return any(entry.id == model for entry in self.catalogue.models)

    async def reload(self) -> list[str]:
        """Read the catalogue again; the mistakes, if it has any and the old one is kept."""
        try:
            self.catalogue = await trio.to_thread.run_sync(self._read)
        except ConfigError as error:
            for mistake in error.mistakes:
                log.error("catalogue not reloaded", mistake=mistake)
            return error.mistakes
        log.info("catalogue reloaded", models=len(self.catalogue.models))
        return []
