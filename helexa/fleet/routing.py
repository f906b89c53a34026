"""Which of the nodes that have a model answers a request, and why."""

from collections.abc import Sequence

from attrs import frozen

from helexa.errors import ServiceUnavailable
from helexa.fleet.affinity import preferred
from helexa.fleet.entry import ModelStatus

UNMEASURED_SECONDS = 1.0  # of an answer, where no node has given one yet
AFFINITY_PATIENCE = (
    0.5  # of an answer's time that a session waits longer for the node that knows it
)
RECOVERING_SECONDS = 2.0


class NoOther(ServiceUnavailable):
    """Only nodes that were tried already have the model: what they said is the answer."""


@frozen
class Option:
    """A node that tells of the model.

    `busy` requests run or wait there, `width` run together; `service_seconds` is what one takes,
    None where none was measured.  `is_open` says that requests may go there now: the node is up and
    not draining, its breaker lets them pass, and no other model has its turn.
    """

    node: str
    status: ModelStatus = "loaded"
    busy: int = 0
    width: int = 1
    service_seconds: float | None = None
    is_open: bool = True


@frozen
class Route:
    node: str
    why: str


def route(
    model: str, options: Sequence[Option], session: str = "", avoid: frozenset[str] = frozenset()
) -> Route | None:
    """The node that answers; None where the model must be loaded or waited for.

    Raises NoOther where only nodes to avoid have it, ServiceUnavailable while it recovers from a crash
    and is nowhere else.
    """
    loaded = [option for option in options if option.is_open and option.status == "loaded"]
    usable = [option for option in loaded if option.node not in avoid]
    if usable:
        return chosen(usable, session)
    if loaded:
        raise NoOther(f"no other node has model {model} loaded", retry_after=RECOVERING_SECONDS)
    elsewhere = any(option.status in ("loaded", "loading") for option in options)
    if not elsewhere and any(o.is_open and o.status == "recovering" for o in options):
        raise ServiceUnavailable(
            f"model {model} is recovering from a crash", retry_after=RECOVERING_SECONDS
        )
    return None


def chosen(options: Sequence[Option], session: str) -> Route:
    """The session's own node unless its wait is too long, else the one with the least expected wait."""
    if len(options) == 1:
        return Route(options[0].node, f"node {options[0].node}: the only one that has it")
    usual = usual_seconds(options)
    waits = {option.node: expected_wait(option, usual) for option in options}
    best = min(options, key=lambda option: (waits[option.node], option.node))
    told = f"of {len(options)} that have it, expected wait {waits[best.node]:.1f} s"
    if not session:
        return Route(best.node, f"node {best.node}: the least busy {told}")
    patience = {o.node: AFFINITY_PATIENCE * (o.service_seconds or usual) for o in options}
    order = preferred(session, waits)
    node = next(each for each in order if waits[each] <= waits[best.node] + patience[each])
    told = f"of {len(options)} that have it, expected wait {waits[node]:.1f} s"
    if node == order[0]:
        return Route(node, f"node {node}: where this session's prompts are kept, {told}")
    return Route(
        node, f"node {node}: this session's own is too busy, choice {order.index(node) + 1} {told}"
    )


def expected_wait(option: Option, usual_seconds: float) -> float:
    """Seconds until one more request is answered there, if `width` are answered at a time."""
    seconds = option.service_seconds or usual_seconds
    return (option.busy + 1) * seconds / max(1, option.width)


def usual_seconds(options: Sequence[Option]) -> float:
    """What an answer takes on average over the nodes that were measured."""
    measured = [option.service_seconds for option in options if option.service_seconds]
    return sum(measured) / len(measured) if measured else UNMEASURED_SECONDS
