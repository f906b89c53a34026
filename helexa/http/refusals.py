"""What a listener refuses before, or instead of, a route: counted, and told in the log within bounds."""

from collections.abc import Callable

import trio
from attrs import define, field

from helexa import logs
from helexa.errors import HelexaError
from helexa.escape import escape

log = logs.get("helexa.http")

MAX_LINES, SECONDS = 20, 10.0  # so many lines in so long a time, however many are refused
LONGEST_METHOD, LONGEST_PATH = 20, 200  # characters

CountRefusal = Callable[[str], None]


def not_counted(code: str) -> None:
    """The default of a listener's `on_refusal`."""


@define(eq=False)
class Refusals:
    """One listener's; `count` hears the code of every error, or its status if it has none."""

    _listener: str
    _count: CountRefusal = not_counted
    _until: float = field(default=0.0, init=False)  # the end of the window that began with a line
    _num_lines: int = field(default=0, init=False)
    _num_left_out: int = field(default=0, init=False)
    _flood: trio.Event = field(factory=trio.Event, init=False)

    def note(
        self,
        error: HelexaError,
        request_id: str,
        peer: str,
        *,
        method: str = "",
        path: str = "",
        client_request_id: str | None = None,
    ) -> None:
        """A request was refused; without a path, one whose head was not understood or not read."""
        code = error.code or str(error.status)
        self._count(code)
        if not self._may_tell(trio.current_time()):
            return
        fields = {
            "listener": self._listener,
            "method": cut(method, LONGEST_METHOD),
            "path": cut(path, LONGEST_PATH),
            "status": error.status,
            "code": code,
            "peer": peer,
            "client_request_id": client_request_id,
        }
        outer = logs.request_id.set(request_id)
        log.info("request refused", **{name: value for name, value in fields.items() if value})
        logs.request_id.reset(outer)

    def _may_tell(self, now: float) -> bool:
        if now >= self._until and not self._num_left_out:
            self._until, self._num_lines = now + SECONDS, 0
        if self._num_lines < MAX_LINES:
            self._num_lines += 1
            return True
        self._num_left_out += 1
        self._flood.set()
        return False

    async def run(self) -> None:
        """Tell, at the end of a window, how many had no line of their own."""
        try:
            while True:
                await self._flood.wait()
                await trio.sleep_until(self._until)
                self._tell_left_out()
                self._flood = trio.Event()
        finally:
            self._tell_left_out()

    def _tell_left_out(self) -> None:
        if self._num_left_out:
            log.info("more requests refused", listener=self._listener, count=self._num_left_out)
        self._num_left_out = 0


def cut(text: str, length: int) -> str:
    """`text` as it may stand in a log: short and without control characters."""
    return escape(text if len(text) <= length else text[:length] + "…")
