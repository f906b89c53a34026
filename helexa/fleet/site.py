"""A node as a place for a model, and what may come of a request for one: the values of planning."""

from typing import Literal

from attrs import field, frozen

from helexa.errors import HelexaError
from helexa.fleet.placement import Room

Strategy = Literal["lru", "priority"]
Standing = Literal["idle", "busy", "fixed"]

ANY = Room(-1, "", 0, 0)  # a device that its node tells nothing of


@frozen
class Resident:
    """A model on a node: `mb` and what of it its KV pool could give, MiB on each of its devices.

    An `idle` one may leave now, a `busy` one is protected until `free_at`, a `fixed` one stays, and
    `why` says so.  `reload_seconds` is what its next load would take.
    """

    model: str
    devices: tuple[int, ...] = ()
    mb: int = 0
    spare_mb: int = 0
    standing: Standing = "idle"
    why: str = ""
    free_at: float = 0.0
    last_used: float = 0.0
    priority: int = 0
    reload_seconds: float = 0.0


@frozen
class Out:
    """Why a node or a device is out of question.

    `passing` ones end by themselves soon: a load or a turn is under way there.  `down` and `failed`
    ones may come back, `full` ones when something else leaves; `files` are missing on this one.
    """

    kind: Literal["never", "files", "full", "failed", "down", "passing"]
    why: str
    retry_after: float = 5.0
    error: HelexaError | None = field(default=None, eq=False)


@frozen
class Site:
    """One node as a place for one model, which takes `required_mb` there, 0 where nobody knows yet.

    `taken` devices are about to change, `promised` ones go to a model that has waited longer: nothing
    is evicted there.  `said` is the node's own word that there is no room beside what is there now.
    """

    node: str
    rooms: tuple[Room, ...] = ()
    residents: tuple[Resident, ...] = ()
    required_mb: int = 0
    load_seconds: float = 0.0
    must_fetch: bool = False
    said: HelexaError | None = field(default=None, eq=False)
    taken: frozenset[int] = frozenset()
    promised: frozenset[int] = frozenset()
    out: Out | None = None

    @property
    def is_full(self) -> bool:
        return self.said is not None


@frozen
class Plan:
    """Load `model` on `node`; `evict` leave first, in this order.

    `device` is the index that the plan counts on, None where the node does not tell of devices; the
    node itself has the last word.  `busy` are those of `evict` that have requests now: their turn ends
    at `free_at`.
    """

    model: str
    node: str
    why: str
    device: int | None = None
    evict: tuple[str, ...] = ()
    busy: tuple[str, ...] = ()
    free_at: float = 0.0
    expected_seconds: float = 0.0


@frozen(eq=False)
class Refusal:
    """There is no plan: `error` is for whoever asked, unless it is `passing` and worth waiting for."""

    error: HelexaError
    passing: bool = False


@frozen
class Offer:
    """One device that the model can have once the `victims` are gone."""

    site: Site
    room: Room
    victims: tuple[Resident, ...] = field(default=())

    @property
    def busy(self) -> tuple[Resident, ...]:
        return tuple(victim for victim in self.victims if victim.standing == "busy")

    @property
    def free_at(self) -> float:
        return max((victim.free_at for victim in self.busy), default=0.0)


def name_of(room: Room) -> str:
    return f"device {room.index}" if room is not ANY else "it"
