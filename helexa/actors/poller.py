"""The poller: looks at every node again and again, each in a task of its own."""

import random
from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from helexa import logs
from helexa.errors import HelexaError
from helexa.fleet import backoff
from helexa.fleet.view import NodeView
from helexa.nodes.port import NodePort

log = logs.get("helexa.fleet")

LOOK_SECONDS = 10.0  # for one look, however little of it comes at a time
LONGEST_PAUSE_SECONDS = 30.0  # between looks at a node that is down
LEAST_PAUSE_SECONDS = 0.2  # however small poll_seconds is
LOOKS_PER_SECOND = (
    32  # at all nodes together: of so many that this binds, each is looked at less often
)
FIRST_LOOKS_PER_SECOND = 128
JITTER = 0.2  # of a pause, so that nodes are not looked at in step


class Watcher(Protocol):
    """Who is told, of every look; neither may wait."""

    def seen(self, view: NodeView) -> None: ...
    def lost(self, node: str, why: str) -> None: ...


class Poller:
    """Never two looks at one node at once, and no node that hangs holds up another."""

    def __init__(
        self,
        ports: Sequence[NodePort],
        watcher: Watcher,
        poll_seconds: float,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._ports = ports
        self._watcher = watcher
        self._seconds = max(poll_seconds, len(ports) / LOOKS_PER_SECOND)
        self._uniform = uniform

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            for index, port in enumerate(self._ports):
                nursery.start_soon(self._follow, port, index / FIRST_LOOKS_PER_SECOND)
            task_status.started()

    async def _follow(self, port: NodePort, after: float) -> None:
        num_failures, before = 0, None
        await trio.sleep(after)
        while True:
            why = await self._look(port)
            tell(port.name, why, before)
            num_failures, before = (0 if why is None else num_failures + 1), why
            await trio.sleep(self._pause(num_failures))

    async def _look(self, port: NodePort) -> str | None:
        """Why the node is lost, None if it is not; the watcher knows already."""
        try:
            with trio.fail_after(LOOK_SECONDS):
                view = await port.look()
        except HelexaError as error:
            why = error.message
        except trio.TooSlowError:
            why = f"node {port.name} has not answered within {LOOK_SECONDS:.0f} s"
        except Exception as bug:  # what one node sends must not end the looks at all others
            log.exception("look failed by a bug", bug, node=port.name)
            why = f"what node {port.name} tells cannot be used"
        else:
            self._watcher.seen(view)
            return None
        self._watcher.lost(port.name, why)
        return why

    def _pause(self, num_failures: int) -> float:
        """Seconds to the next look: twice as many after each one that failed."""
        seconds = pause(self._seconds, num_failures)
        return max(LEAST_PAUSE_SECONDS, seconds * self._uniform(1 - JITTER, 1 + JITTER))


def pause(poll_seconds: float, num_failures: int) -> float:
    longest = max(poll_seconds, LONGEST_PAUSE_SECONDS)
    return backoff.pause(num_failures, poll_seconds, longest)


def tell(node: str, why: str | None, before: str | None) -> None:
    """In the log, when a node goes, when it is gone for another reason, and when it is back."""
    if why is not None and why != before:
        log.warning("node lost", node=node, reason=why)
    elif why is None and before is not None:
        log.info("node is back", node=node)
