"""Structured logging: one line per event, for a person or for a machine, never with a prompt in it.

`log = logs.get("helexa.node")`, then `log.info("model loaded", model="x", seconds=1.2)`: a plain
sentence and fields.  The request in hand is named on every line by `request_id`.  `configure` is
called once, by whoever owns the process; the `Ring` it returns holds the last lines for
`helexa-ctl logs`.
"""

import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Literal, TextIO

from helexa.escape import escape
from helexa.log_lines import Event, human, journal, machine, to_event

__all__ = ["Event", "Logger", "Ring", "configure", "escape", "get", "human", "request_id"]

Format = Literal["auto", "human", "json"]

request_id: ContextVar[str] = ContextVar("helexa_request_id", default="")

RING_LINES = 2000


class Logger:
    """Where one module's events go."""

    __slots__ = ("_stdlib",)

    def __init__(self, stdlib: logging.Logger) -> None:
        self._stdlib = stdlib

    def debug(self, event: str, /, **fields: object) -> None:
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        self._write(logging.ERROR, event, fields)

    def exception(
        self, event: str, error: BaseException | None = None, /, **fields: object
    ) -> None:
        """An error with the traceback of `error`, or of the exception being handled."""
        self._write(logging.ERROR, event, fields, error or sys.exc_info()[1])

    def _write(
        self,
        level: int,
        event: str,
        fields: Mapping[str, object],
        error: BaseException | None = None,
    ) -> None:
        if self._stdlib.isEnabledFor(level):
            trace = (type(error), error, error.__traceback__) if error else None
            self._stdlib.log(level, "%s", event, extra={"fields": fields}, exc_info=trace)


def get(name: str) -> Logger:
    return Logger(logging.getLogger(name))


class Ring:
    """The last lines, numbered from 0, and who wants to hear of new ones.

    Written by whichever thread logs, one at a time (the handler sees to that), and read by any: a
    slot is replaced whole, so that a reader needs no lock.  A reader that is too slow loses lines
    and is told how many.
    """

    def __init__(self, size: int = RING_LINES) -> None:
        self._slots: list[tuple[int, Event]] = [(-1, {})] * size
        self._wakers: frozenset[Callable[[], object]] = frozenset()
        self.end = 0  # the number of the next line

    def add(self, event: Event) -> None:
        self._slots[self.end % len(self._slots)] = (self.end, event)
        self.end += 1
        for wake in self._wakers:
            wake()

    def since(self, number: int) -> tuple[list[Event], int, int]:
        """The lines from `number` on, the number to ask for next, and how many are lost."""
        end = self.end
        first = max(number, end - len(self._slots), 0)
        taken = [self._slots[n % len(self._slots)] for n in range(first, end)]
        lines = [
            event for n, (kept, event) in zip(range(first, end), taken, strict=True) if n == kept
        ]
        return lines, end, max(0, end - number - len(lines))

    def watch(self, wake: Callable[[], object]) -> Callable[[], None]:
        """Call `wake` after every line, in the thread that wrote it; returns how to stop that."""
        self._wakers |= {wake}

        def stop() -> None:
            self._wakers -= {wake}

        return stop


class LineHandler(logging.Handler):
    """Writes every record to a stream and to the ring.  A broken stream never hurts the writer."""

    def __init__(self, stream: TextIO, show: Callable[[Event], str], ring: Ring) -> None:
        super().__init__()
        self._stream, self._show, self._ring = stream, show, ring

    def emit(self, record: logging.LogRecord) -> None:
        event = to_event(record, request_id.get())
        self._ring.add(event)
        try:
            self._stream.write(self._show(event) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass  # the terminal or the pipe is gone; the ring still has the line


# -- setting it up -----------------------------------------------------------------------------------


def configure(
    level: str, form: Format, environ: Mapping[str, str], stream: TextIO | None = None
) -> Ring:
    """Send every event to `stream` (standard error) and to the ring that is returned.

    Our own events from `level` on, those of other packages from warnings on.
    """
    ring = Ring()
    stream = stream or sys.stderr
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(LineHandler(stream, choose(form, environ, stream), ring))
    root.setLevel(logging.WARNING)
    logging.getLogger("helexa").setLevel(level.upper())
    logging.captureWarnings(True)
    return ring


def choose(form: Format, environ: Mapping[str, str], stream: TextIO) -> Callable[[Event], str]:
    """JSON where it is asked for, or where systemd started us and nobody watches; else for people."""
    under_systemd = "JOURNAL_STREAM" in environ or "INVOCATION_ID" in environ
    if form == "human" or (form == "auto" and (stream.isatty() or not under_systemd)):
        return human
    return journal if is_journal(environ, stream) else machine


def is_journal(environ: Mapping[str, str], stream: TextIO) -> bool:
    """Whether `stream` is the connection to the journal that JOURNAL_STREAM names."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
