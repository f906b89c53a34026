"""What is told of one model: the value behind the lists of models, on a node and on the gateway."""

from typing import Literal

from attrs import frozen

from helexa.fleet.catalogue import Cost
from helexa.fleet.limits import Limit

ModelStatus = Literal["unloaded", "loading", "loaded", "unloading", "recovering", "failed"]


@frozen
class Location:
    """A node that has the model, or is about to."""

    node: str
    status: ModelStatus


@frozen
class ModelEntry:
    """One model.  `created` is in seconds since 1970, `devices` are indexes on their node.

    `status` is the model's on one node, and the best of `locations` over a fleet.  `limit` is None
    while nothing is known of the model's files; `limit_estimated` marks one that was not derived from
    the loaded model.
    """

    id: str
    harness: str = "torch"
    status: ModelStatus = "unloaded"
    devices: tuple[int, ...] = ()
    vram_used_mb: int = 0
    capabilities: tuple[str, ...] = ("text",)
    limit: Limit | None = None
    limit_estimated: bool = False
    cost: Cost | None = None
    tool_call: bool = False
    reasoning: bool = False
    created: int = 0
    aliases: tuple[str, ...] = ()
    feasible_on: tuple[str, ...] = ()
    locations: tuple[Location, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All that it goes by, the id first."""
        return (self.id, *self.aliases)

    @property
    def loaded(self) -> bool:
        return self.status == "loaded"
