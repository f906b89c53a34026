"""What the gateway asks of the fleet for each request, what it gets, and how it says that it is done."""

from typing import Literal

from attrs import define, field, frozen

from helexa.actors.mailbox import Request
from helexa.conversation import Phase, Progress
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.view import NodeKind

How = Literal["ok", "failed", "lost", "refused", "gone", "cancelled"]


@frozen
class Lease:
    """The node that is to answer; `why` is one sentence for the request's decision log."""

    node: str
    why: str


@frozen
class Outcome:
    """How the answer of a node ended.

    ok         it answered
    failed     it broke off, or what it sent made no sense
    lost       it could not be reached, or went away before the first token
    refused    it said 503: busy, or not able to
    gone       it does not have the model any more (NotLoaded)
    cancelled  the client left, or the request itself was refused (4xx): nothing is told of the node

    `seconds` is how long an answer that is ok ran there, from its dispatch to its end.
    """

    how: How
    seconds: float | None = None


@define(eq=False)
class Waits:
    """What an acquire that has no lease yet waits for; the fleet writes it, anybody may look.

    `is_over` says that it was given back, whether or not the fleet has heard of it yet.
    """

    is_over: bool = False
    since: float = 0.0
    phase: Phase = "queued"
    done: int = 0
    total: int = 0


@frozen(eq=False)
class Acquire(Request[Lease]):
    """A request that wants a node.  Wait on `reply`; whatever happens, give it to `Fleet.leave`.

    `kind` is that of the nodes which can answer it, where not all can: nothing is loaded for it then.
    """

    entry: CatalogueModel
    session: str = ""
    avoid: frozenset[str] = frozenset()
    kind: NodeKind | None = None
    waits: Waits = field(factory=Waits, init=False, repr=False)

    def progress(self) -> Progress:
        return Progress(self.waits.phase, self.waits.done, self.waits.total)
