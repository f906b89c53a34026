"""What is read again while helexa runs: the catalogue, `[accounts]`, certificates.  The rest is read at
start alone, and whoever asks for a reload is told so."""

from collections.abc import Callable
from pathlib import Path

import attrs
import trio
from attrs import define, field, frozen

from helexa import logs
from helexa.accounting import Accounts
from helexa.config.schema import Config
from helexa.errors import ConfigError
from helexa.http.tls import Certificates
from helexa.shelf import Shelf

log = logs.get("helexa.reload")


@frozen
class Reloaded:
    """`told` is what is in force now, `mistakes` why something is not."""

    told: tuple[str, ...] = ()
    mistakes: tuple[str, ...] = ()

    def __add__(self, other: "Reloaded") -> "Reloaded":
        return Reloaded(self.told + other.told, self.mistakes + other.mistakes)


@define(eq=False)
class Reload:
    """`config` is what the process was started with, and `read` reads it again; ConfigError if it cannot.

    `file` is None for a configuration that came from no file, which nobody can have changed.
    """

    config: Config
    file: Path | None
    read: Callable[[], Config]
    shelf: Shelf
    certificates: Certificates
    accounts: Accounts | None = field(default=None, init=False)  # once they are open
    _turn: trio.Semaphore = field(factory=lambda: trio.Semaphore(1), init=False)

    async def __call__(self) -> Reloaded:
        """Each part by itself: one that is wrong stays as it is, and holds up no other."""
        async with self._turn:  # what is read last counts
            done = await self._catalogue() + await self._config()
            for certificate in self.certificates.values():
                await certificate.reload()
        return done

    async def _catalogue(self) -> Reloaded:
        mistakes = await self.shelf.reload()
        if mistakes:
            return Reloaded(mistakes=(*mistakes, "the old catalogue is kept"))
        return Reloaded((f"the catalogue has {len(self.shelf.catalogue.models)} models",))

    async def _config(self) -> Reloaded:
        if self.file is None:
            return Reloaded()
        try:
            config = await trio.to_thread.run_sync(self.read)
        except ConfigError as error:
            for mistake in error.mistakes:
                log.error("configuration not reloaded", mistake=mistake)
            return Reloaded(mistakes=(*error.mistakes, "the old configuration is kept"))
        done = self._others(config)
        if self.accounts is not None:
            done += self._accounts(self.accounts, config)
        for mistake in done.mistakes:
            log.warning("configuration not wholly reloaded", reason=mistake)
        return done

    def _accounts(self, accounts: Accounts, config: Config) -> Reloaded:
        changed, refused = accounts.follow(config.accounts)
        log.info("accounts reloaded", changes=changed)
        return Reloaded((f"keys and limits that changed: {changed}",), tuple(refused))

    def _others(self, config: Config) -> Reloaded:
        """Sections that differ from what runs."""
        names = [section.name for section in attrs.fields(Config) if section.name != "accounts"]
        differ = [name for name in names if getattr(config, name) != getattr(self.config, name)]
        told = f"changes of {', '.join(differ)} count from the next start"
        return Reloaded((told,)) if differ else Reloaded()
