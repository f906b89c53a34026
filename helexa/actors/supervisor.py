"""Restarting what crashes: one for one, with backoff, up to a limit.

What depends on an actor runs in a nursery inside it and so dies and restarts with it; that nesting is
also the order of shutdown, which makes other restart strategies unnecessary.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from attrs import define, field, frozen

from helexa import logs
from helexa.errors import DevicePoisoned, GaveUp, HelexaError
from helexa.fleet.backoff import pause

log = logs.get("helexa.supervisor")

Actor = Callable[..., Awaitable[None]]  # async def actor(*, task_status)


@frozen
class RestartPolicy:
    """At most `max_restarts` within any `within` seconds; delays double from `first_delay`."""

    max_restarts: int = 5
    within: float = 60.0
    first_delay: float = 0.5
    max_delay: float = 30.0


@define
class Intensity:
    """Restart intensity as plain arithmetic (OTP's supervisor): no clock, no sleep."""

    policy: RestartPolicy
    _crashes: deque[float] = field(factory=deque, init=False)

    def crashed(self, now: float) -> float | None:
        """Count a crash.  The seconds to wait before restarting, or None to give up."""
        self._crashes.append(now)
        while now - self._crashes[0] > self.policy.within:
            self._crashes.popleft()
        if len(self._crashes) > self.policy.max_restarts:
            return None
        return pause(len(self._crashes), self.policy.first_delay, self.policy.max_delay)


@define
class FirstStart:
    """Passes on the first `started`: a restarted actor calls it again, which Trio forbids."""

    _status: trio.TaskStatus[Any]
    _done: bool = field(default=False, init=False)

    def started(self, value: Any = None) -> None:
        if not self._done:
            self._done = True
            self._status.started(value)


def ignore_crash(name: str) -> None:
    """The default of `on_crash`."""


async def keep_running(
    name: str,
    actor: Actor,
    policy: RestartPolicy,
    *,
    on_crash: Callable[[str], None] = ignore_crash,
    task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run `actor` until it returns, restarting it when it crashes.

    Raises GaveUp when it crashes too often.  What no restart can help passes through at once: an
    expected HelexaError (bad files, no memory) and DevicePoisoned.
    """
    intensity = Intensity(policy)
    status = FirstStart(task_status)
    while True:
        try:
            return await actor(task_status=status)
        except Exception as error:
            final = hopeless(error)
            if final is not None:
                raise final from final.__cause__  # not from the group around it: that would be a cycle
            delay = intensity.crashed(trio.current_time())
            log.exception("actor crashed", error, actor=name, restart_in=delay)
            on_crash(name)
            if delay is None:
                raise GaveUp(f"{name} crashed too often: {first_leaf(error)!r}") from error
        await trio.sleep(delay)


def hopeless(error: Exception) -> Exception | None:
    """The error inside `error` that a restart cannot help, if there is one."""
    if isinstance(error, ExceptionGroup):
        found = (hopeless(inner) for inner in error.exceptions if isinstance(inner, Exception))
        return next((inner for inner in found if inner is not None), None)
    return error if isinstance(error, DevicePoisoned | GaveUp | HelexaError) else None


def first_leaf(error: BaseException) -> BaseException:
    """What a nursery's group is about: its own words only count its members."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
