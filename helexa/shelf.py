"""The catalogue in force: replaced whole when it is read again, or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

import trio
from attrs import define, field

from helexa import logs
from helexa.errors import ConfigError, ModelNotFound
from helexa.fleet.catalogue import Catalogue, CatalogueModel

log = logs.get("helexa.catalogue")

LOOK_SECONDS = 2.0

# What tells that a file was written or exchanged; None while it is not there.
Stamp = tuple[int, int, int] | None


@define(eq=False)
class Shelf:
    catalogue: Catalogue
    _read: Callable[[], Catalogue]  # reads files; raises ConfigError
    _file: Callable[[], Path | None] = lambda: None  # that it comes from
    _stamp: Stamp = field(default=None, init=False)

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
        self._stamp = self._look()
        try:
            self.catalogue = await trio.to_thread.run_sync(self._read)
        except ConfigError as error:
            for mistake in error.mistakes:
                log.error("catalogue not reloaded", mistake=mistake)
            return error.mistakes
        log.info("catalogue reloaded", models=len(self.catalogue.models))
        return []

    async def watch(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read the catalogue again whenever its file was written and is left alone since."""
        self._stamp = self._look()
        task_status.started()
        before = self._stamp
        while True:
            await trio.sleep(LOOK_SECONDS)
            now = self._look()
            if now is not None and now == before and now != self._stamp:
                log.info("catalogue file changed", file=str(self._file()))
                await self.reload()
            before = now

    def _look(self) -> Stamp:
        file = self._file()
        try:
            found = os.stat(file) if file else None
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size, found.st_ino) if found else None
