"""What is said to the node actor: by others who ask it, and by its models who tell it.

Imperatives are questions and get one answer; past participles are told and get none.
"""

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import trio
from attrs import field, frozen

from helexa.actors.mailbox import Request
from helexa.actors.model import Model, ModelNews
from helexa.actors.place import Asker, NodeStatus, Place
from helexa.conversation import Conversation, Progress
from helexa.errors import HelexaError
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.known import Known
from helexa.text.prompt import Prompt


@frozen(eq=False)
class LoadModel(Request[None]):
    """Answered once the model is loaded; joins a load in progress.

    An operator's load fetches files that are not here and tries at once what failed a moment ago.
    `quant` overrules the entry's; an operator who states it gets it, or is told why not.
    """

    entry: CatalogueModel
    by: Asker = "request"
    devices: tuple[int, ...] = ()  # indexes it may go to; empty for any
    quant: str = ""


@frozen(eq=False)
class UnloadModel(Request[None]):
    """Answered once the memory is free."""

    model: str
    if_idle: bool = False


@frozen(eq=False)
class FindModel(Request[Model]):
    """The loaded model; NotLoaded when it is not, ServiceUnavailable while it recovers."""

    model: str


@frozen(eq=False)
class Prepare(Request[Sequence[Prompt]]):
    """Have the prompts of a conversation made, whether or not the model is loaded.

    ContextLengthExceeded when one is too long.  Those of one `salt` share what was made.
    """

    known: Known
    conversation: Conversation
    salt: str = ""
    scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)

    async def waiting(self, seconds: float) -> AsyncGenerator[Progress, None]:
        """Progress every `seconds` until the answer is there; closing it calls the work off."""
        try:
            async with aclosing(self.reply.ticks(seconds, math.inf)) as ticks:
                async for _ in ticks:
                    yield Progress("queued")
        finally:
            self.scope.cancel()


@frozen(eq=False)
class GetStatus(Request[NodeStatus]):
    """A snapshot of devices and models."""


@frozen(eq=False)
class Emptied:
    """The model was idle and admits nobody any more, as `request` wanted."""

    place: Place
    request: UnloadModel


@frozen
class Gone:
    """The model's task ended: unloaded as asked, or by the error."""

    error: HelexaError | None


@frozen(eq=False)
class Told:
    """What became of a place.  It may come late: from a life of the node that is over, even."""

    place: Place
    what: ModelNews | Gone


NodeMessage = LoadModel | UnloadModel | FindModel | Prepare | GetStatus | Emptied | Told
