"""Loads and unloads as they are carried out, beside the fleet's mailbox."""

from collections.abc import Callable

import trio
from attrs import define, field, frozen

from helexa import logs
from helexa.actors.mailbox import Request
from helexa.actors.place import Asker
from helexa.errors import HelexaError, ModelBusy, ModelNotFound, ServiceUnavailable
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.view import NodeView
from helexa.nodes.port import NodeLost, NodePort

log = logs.get("helexa.fleet")

EVICTION_SECONDS = 120.0  # for a model without requests; a node that takes longer hangs
LOOK_SECONDS = 10.0


@frozen(eq=False)
class UnloadAsk(Request[tuple[str, ...]]):
    """Unload the model on the node, or wherever it is; answered with the nodes that had it."""

    model: str
    node: str | None


@define(eq=False)
class Move:
    """One change on one node: `evict` leave in order, then `entry` is loaded if there is one.

    `drained` are those of them that leave whatever they do: their answers may take the node's time.
    `asked_at` is since when somebody waits for the model, `for_requests` whether requests do, `by` who
    asks for the load, `cause` a word for the metrics.  The task writes `gone`, `refused` when a victim
    stays, and its times.
    """

    node: str
    entry: CatalogueModel | None
    evict: tuple[str, ...] = ()
    drained: frozenset[str] = frozenset()
    device: int | None = None
    asked_at: float = 0.0
    seconds: float = float("inf")  # that the load may take
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    lost: str = ""  # why the node was found lost meanwhile
    cause: str = "room"
    for_requests: bool = False
    by: Asker = "request"
    load_seconds: float = 0.0
    ended_at: float = 0.0
    gone: list[str] = field(factory=list)
    refused: str = ""
    ask: UnloadAsk | None = None

    @property
    def models(self) -> set[str]:
        return {*self.evict, *([self.entry.id] if self.entry else [])}


@frozen(eq=False)
class Moved:
    """A move is over: by the error, if any.  `view` is what the node looks like since, if it answers."""

    move: Move
    error: HelexaError | None
    view: NodeView | None


async def carry_out(move: Move, port: NodePort, tell: Callable[[Moved], None]) -> None:
    """Whatever happens, it is told; unless the whole fleet is cancelled."""
    error: HelexaError | None = NodeLost(f"node {move.node} was lost meanwhile", retry_after=5)
    with move.scope:
        error = await attempt(move, port)
    if move.lost:
        error = NodeLost(move.lost, retry_after=5)
    move.ended_at = trio.current_time()
    tell(Moved(move, error, None if isinstance(error, NodeLost) else await look(port)))


async def attempt(move: Move, port: NodePort) -> HelexaError | None:
    try:
        for victim in move.evict:
            await evict(move, victim, port)
        if move.entry is not None:
            await load(move, move.entry, port)
    except HelexaError as error:
        return error
    except Exception as bug:  # of one port: the fleet goes on
        log.exception("load ended by a bug", bug, node=move.node)
        return ServiceUnavailable(f"node {move.node}: internal error", retry_after=5)
    return None


async def evict(move: Move, victim: str, port: NodePort) -> None:
    if_idle = victim not in move.drained
    try:
        with trio.fail_after(EVICTION_SECONDS if if_idle else float("inf")):
            await port.unload(victim, if_idle=if_idle)
    except ModelNotFound:
        pass  # somebody was quicker
    except ModelBusy:
        move.refused = victim
        raise
    except trio.TooSlowError:
        raise ServiceUnavailable(
            f"node {move.node} has not unloaded {victim} within {EVICTION_SECONDS:.0f} s"
        ) from None
    move.gone.append(victim)


async def load(move: Move, entry: CatalogueModel, port: NodePort) -> None:
    began_at = trio.current_time()
    try:
        with trio.fail_after(move.seconds):
            await port.load(entry, move.by)
        move.load_seconds = trio.current_time() - began_at
    except trio.TooSlowError:
        raise ServiceUnavailable(
            f"node {move.node} has not loaded {entry.id} within {move.seconds:.0f} s"
        ) from None


async def look(port: NodePort) -> NodeView | None:
    """None where the node does not answer: the poller follows that."""
    try:
        with trio.move_on_after(LOOK_SECONDS):
            return await port.look()
    except HelexaError:
        return None
    except Exception as bug:
        log.exception("look failed by a bug", bug, node=port.name)
    return None
