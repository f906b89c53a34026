"""What is said to the fleet actor: by the gateway and operators who ask, by pollers and loads that tell."""

from attrs import frozen

from helexa.actors.leases import Acquire, Outcome
from helexa.actors.lines import LoadAsk
from helexa.actors.mailbox import Request
from helexa.actors.moves import Moved, UnloadAsk
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.entry import ModelEntry
from helexa.fleet.site import Plan
from helexa.fleet.view import NodeView


@frozen(eq=False)
class PinAsk(Request[tuple[str, ...]]):
    """Pin or unpin on the node, or wherever the model is loaded; answered with the nodes."""

    model: str
    node: str | None
    on: bool


@frozen(eq=False)
class DrainAsk(Request[tuple[str, ...]]):
    """Lease nothing more on the node, or lease there again; answered with the models that move."""

    node: str
    on: bool


@frozen(eq=False)
class PlanAsk(Request[Plan]):
    """What a request for the model would bring about."""

    entry: CatalogueModel


@frozen(eq=False)
class Leave:
    """A lease, or a place among those that wait, is given back."""

    acquire: Acquire
    outcome: Outcome


@frozen(eq=False)
class Seen:
    view: NodeView


@frozen
class Lost:
    node: str
    why: str


@frozen(eq=False)
class Heard:
    """What a node knows of a model that it has the files of."""

    node: str
    model: str
    told: ModelEntry


@frozen
class Tick:
    """A second has passed."""


@frozen
class Sweep:
    """Something changed a moment ago: whoever waits may go on."""


FleetMessage = (
    Acquire
    | LoadAsk
    | UnloadAsk
    | PinAsk
    | DrainAsk
    | PlanAsk
    | Leave
    | Seen
    | Lost
    | Heard
    | Moved
    | Tick
    | Sweep
)
