"""The processes in which chat templates are rendered: killed when nobody waits, made anew when they die."""

import math
import multiprocessing
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import trio
from attrs import define, field

from helexa import logs
from helexa.errors import ServiceUnavailable
from helexa.text.render import MAX_SECONDS, Rendered, Unrendered, begin, is_spent, render, warm

if TYPE_CHECKING:
    import trio_parallel

MAX_RENDERINGS = 2  # at once
MAX_TRIES = 2
GRACE_SECONDS = 1.0
RETRY_AFTER_SECONDS = 5.0

log = logs.get("helexa.renderers")


@define(eq=False)
class Renderers:
    _context: "trio_parallel.WorkerContext"
    _max_seconds: float
    _at_once: trio.CapacityLimiter = field(
        factory=partial(trio.CapacityLimiter, MAX_RENDERINGS), init=False
    )

    async def render(self, order: bytes) -> Rendered | Unrendered:
        """What an order of `text.template` asks for.  Whoever is cancelled ends the process.

        ServiceUnavailable if there can be no process now.
        """
        from trio_parallel import BrokenWorkerError

        reason = ""
        for _ in range(MAX_TRIES):
            try:
                found: Rendered | Unrendered = await self._context.run_sync(
                    render, order, self._max_seconds, kill_on_cancel=True, limiter=self._at_once
                )
            except BrokenWorkerError as error:
                code = error.args[-1].exitcode
                if code == -signal.SIGALRM:
                    return Unrendered(f"it takes more than {self._max_seconds:g} s")
                reason = f"its process ended with code {code}"
            except (OSError, EOFError) as error:
                raise ServiceUnavailable(
                    f"No process could be started to render the prompt in: {error}.",
                    retry_after=RETRY_AFTER_SECONDS,
                ) from None
            else:
                return found
        return Unrendered(reason)

    async def warm(self) -> None:
        """Have a process ready: the first takes seconds, as it imports what all others inherit."""
        from trio_parallel import BrokenWorkerError

        try:
            await self._context.run_sync(warm, kill_on_cancel=True, limiter=self._at_once)
        except (BrokenWorkerError, OSError, EOFError) as error:
            log.warning("no process to render templates in", reason=str(error))


@asynccontextmanager
async def open_renderers(max_seconds: float = MAX_SECONDS) -> AsyncGenerator[Renderers, None]:
    """Processes as they are needed, the first at once, in the background.

    They are forked from one that has imported everything, so that a new one takes milliseconds.
    """
    import trio_parallel  # a gateway alone does not have it

    multiprocessing.set_forkserver_preload(
        ["transformers.utils.chat_template_utils", "helexa.text.render", "helexa.__main__"]
    )
    with suppress(trio_parallel.BrokenWorkerError):  # at the end, of processes that ended before
        async with (
            trio_parallel.open_worker_context(
                idle_timeout=math.inf,
                init=begin,
                retire=is_spent,
                grace_period=GRACE_SECONDS,
                worker_type=trio_parallel.WorkerType.FORKSERVER,
            ) as context,
            trio.open_nursery() as nursery,
        ):
            renderers = Renderers(context, max_seconds)
            nursery.start_soon(renderers.warm)
            yield renderers
            nursery.cancel_scope.cancel()
