"""A node as its fleet sees it: what it told last, whoever it is."""

from typing import Literal

from attrs import frozen

from helexa.fleet.entry import ModelEntry

NodeKind = Literal["local", "helexa", "neuron", "openai"]
Activation = Literal["starting", "loading", "ready"]


@frozen
class DeviceView:
    """In MiB; `total_mb` 0 where the node does not tell."""

    index: int
    name: str = ""
    total_mb: int = 0
    free_mb: int = 0
    compute_capability: str = ""
    poisoned: bool = False


@frozen
class ModelView:
    """A model on a node: `entry.status` tells how far it is there, `error` why it failed.

    `in_flight` counts sequences that run, `queue_depth` requests that wait, `service_seconds` is what
    one takes there on average, None where the node does not tell.  `width` is how many run together at
    most, `spare_mb` what its KV pool could give to other models, `done_bytes` of `total_bytes` how far
    its load is: 0 where the node does not tell.
    """

    entry: ModelEntry
    in_flight: int = 0
    queue_depth: int = 0
    error: str | None = None
    service_seconds: float | None = None
    width: int = 0
    spare_mb: int = 0
    done_bytes: int = 0
    total_bytes: int = 0

    @property
    def is_there(self) -> bool:
        """Whether it has memory, or is about to get it."""
        return self.entry.status not in ("unloaded", "failed")


@frozen
class NodeView:
    """What a node told; empty until it was first reached.

    `seen_at` is when it was asked, on Trio's clock: what changed after that may be missing.

    `up` is whether it may be asked now; `why_down` says what is wrong.  `stored` are the names of the
    models whose files it has (`store.source.name_of`), None where it does not tell.  `can_load` is False
    for upstreams that have what they have.
    """

    name: str
    kind: NodeKind
    url: str = ""
    up: bool = True
    why_down: str = ""
    devices: tuple[DeviceView, ...] = ()
    models: tuple[ModelView, ...] = ()
    activation: Activation = "ready"
    harnesses: tuple[str, ...] = ()
    stored: frozenset[str] | None = None
    version: str = ""
    can_load: bool = True
    seen_at: float = 0.0

    def model(self, model: str) -> ModelView | None:
        return next((each for each in self.models if each.entry.id == model), None)
