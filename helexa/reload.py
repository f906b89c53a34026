"""What is read again while helexa runs: the catalogue, `[accounts]`, certificates.  The rest is read at
start alone, and whoever asks for a reload is told so."""

from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import trio
from attrs import define, field, frozen

from helexa import logs
from helexa.accounting import AT_START, Accounts
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
        return Reloaded((f"models in the catalogue: {len(self.shelf.catalogue.models)}",))

    async def _config(self) -> Reloaded:
        if self.file is None:
            return Reloaded()
        try:
            config = await trio.to_thread.run_sync(self.read)
        except ConfigError as error:
            for mistake in error.mistakes:
                log.error("configuration not reloaded", mistake=mistake)
            return Reloaded(mistakes=(*error.mistakes, "the old configuration is kept"))
        done = self._at_start(config)
        if self.accounts is not None:
            done += self._accounts(self.accounts, config)
        for mistake in done.mistakes:
            log.warning("configuration not wholly reloaded", reason=mistake)
        return done

    def _accounts(self, accounts: Accounts, config: Config) -> Reloaded:
        changed = accounts.follow(config.accounts)
        log.info("accounts reloaded", changes=changed)
        return Reloaded((f"keys and limits that changed: {changed}",))

    def _at_start(self, config: Config) -> Reloaded:
        """What differs from what runs, and is read at start alone."""
        differ = [name for name in differences(self.config, config) if not may_change(name)]
        return Reloaded(
            mistakes=tuple(
                f"{name}: cannot change while helexa runs; restart it" for name in differ
            )
        )


def differences(before: Config, after: Config) -> Iterator[str]:
    """`section.name` of every setting that is not the same; `[[nodes]]` as a whole."""
    for section in attrs.fields(Config):
        old, new = getattr(before, section.name), getattr(after, section.name)
        if not attrs.has(type(old)):
            if old != new:
                yield section.name
            continue
        for setting in attrs.fields(type(old)):
            if getattr(old, setting.name) != getattr(new, setting.name):
                yield f"{section.name}.{setting.name}"


def may_change(name: str) -> bool:
    section, _, setting = name.partition(".")
    return section == "accounts" and setting not in AT_START
