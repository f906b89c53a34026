"""What the node actor needs of others: its model files, and a memory of what it should have loaded."""

from collections.abc import Callable, Sequence
from typing import Protocol

from helexa.conversation import Conversation
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.known import Known
from helexa.text.prompt import Prompt


class Library(Protocol):
    """The models whose files this host has (`helexa.library`)."""

    async def known(self, entry: CatalogueModel) -> Known: ...
    async def fetch(
        self, entry: CatalogueModel, progress: Callable[[str, int, int], None] | None = None
    ) -> None: ...
    async def touch(self, entry: CatalogueModel) -> None: ...
    async def prompts(
        self, known: Known, conversation: Conversation, salt: str = ""
    ) -> Sequence[Prompt]: ...
    async def count(self, known: Known, conversation: Conversation, salt: str = "") -> int: ...


class Desired(Protocol):
    """What must be loaded again after a restart (`helexa.state`)."""

    def loading(
        self, model: str, source: str, devices: tuple[str, ...], *, asked: bool
    ) -> None: ...
    def loaded(self, model: str) -> None: ...
    def gone(self, model: str) -> None: ...
    def failed(self, model: str) -> None: ...
    async def saved(self) -> None: ...
