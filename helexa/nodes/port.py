"""What every node of a fleet can be asked, wherever its models run."""

from typing import Protocol

from helexa.actors.place import Asker
from helexa.conversation import Events
from helexa.errors import ServiceUnavailable
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.entry import ModelEntry
from helexa.fleet.view import NodeView
from helexa.nodes.asked import Prepared
from helexa.trace import Trace


class NodeLost(ServiceUnavailable):
    """The node cannot be reached, or went away before the first token: another one may be tried."""


class NodePort(Protocol):
    """One node.  Above it nothing knows where a model runs.

    Every method raises NodeLost where the node cannot be reached.
    """

    @property
    def name(self) -> str: ...

    async def look(self) -> NodeView:
        """What the node tells of itself now."""

    async def tell(self, entry: CatalogueModel) -> ModelEntry | None:
        """What the node knows of a model that need not be loaded; None where it tells no such things."""

    async def load(self, entry: CatalogueModel, by: Asker = "request") -> None:
        """Have the model loaded; ends when it is.  The node joins a load in progress.

        What an operator asks for is loaded again after a restart of the node.

        InsufficientVram where there is no room now, ModelNotFound where there never will be; what else
        a load may fail with is the node's to say.  Cancelling does not call the load off.
        """

    async def unload(self, model: str, *, if_idle: bool) -> None:
        """Ends when the memory is free.  ModelBusy where it must be idle and is not."""

    def generate(self, prepared: Prepared, trace: Trace) -> Events:
        """Answer on the loaded model; NotLoaded where it is not, before anything else is yielded.

        NodeLost only before the first token; after it a lost node is an UpstreamError.  A batch with
        `Passed` bytes in it is already written in the client's dialect.
        """
