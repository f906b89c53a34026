"""The key ring: the one writer of the key store, and of which keys are in force."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import trio
from attrs import define, field, frozen

from helexa.accounts.keyfile import StoredKeys, open_keys, write_keys
from helexa.accounts.keys import Key, Keys
from helexa.actors.mailbox import Mailbox, Request
from helexa.errors import HelexaError, LedgerUnavailable

T = TypeVar("T")

# The store as it is to be, and what whoever asked is told.  A HelexaError leaves it as it is.
Change = Callable[[StoredKeys], tuple[StoredKeys, T]]


@frozen(eq=False)
class Asked(Request[Any], Generic[T]):
    change: Change[T]


@define(eq=False)
class KeyRing:
    """`configured` makes the keys of the configuration from the secret of this installation."""

    _directory: Path
    _configured: Callable[[bytes], Mapping[str, Key]]
    stored: StoredKeys = field(init=False)
    keys: Keys = field(init=False)
    _mailbox: Mailbox[Asked[Any]] = field(factory=lambda: Mailbox("key ring"), init=False)

    def __attrs_post_init__(self) -> None:
        self._hold(open_keys(self._directory))

    async def change(self, change: Change[T]) -> T:
        """Change the store, on disk and in force when this returns what `change` tells.

        Raises what `change` does, or LedgerUnavailable if the store cannot be written.
        """
        told: T = await self._mailbox.ask(Asked(change))
        return told

    def follow(self, configured: Callable[[bytes], Mapping[str, Key]]) -> None:
        """Other keys of the configuration, in force at once beside those of the store."""
        self._configured = configured
        self._hold(self.stored)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        send, receive = trio.open_memory_channel[Asked[Any]](math.inf)
        task_status.started()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._change_in_turn, receive)
                await self._mailbox.serve(send.send_nowait)
        finally:
            self._mailbox.close()

    async def _change_in_turn(self, receive: trio.MemoryReceiveChannel[Asked[Any]]) -> None:
        async for asked in receive:
            if not asked.reply.wanted:
                continue
            try:
                asked.reply.set(await self._changed(asked.change))
            except HelexaError as error:
                asked.reply.fail(error)

    async def _changed(self, change: Change[T]) -> T:
        stored, told = change(self.stored)
        try:
            with trio.CancelScope(shield=True):  # what is on disk is in force
                await trio.to_thread.run_sync(write_keys, self._directory, stored)
                self._hold(stored)
        except OSError as error:
            raise LedgerUnavailable(f"the key store cannot be written: {error.strerror}") from None
        return told

    def _hold(self, stored: StoredKeys) -> None:
        installation = bytes.fromhex(stored.installation)
        of_store = {one.hash: one.key() for one in stored.keys}
        self.keys = Keys(installation, {**of_store, **self._configured(installation)})
        self.stored = stored
