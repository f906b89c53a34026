"""What became of each request: the last 10 000, in memory and on disk.  Never a prompt or an answer.

`Records.add` only appends to memory; the `run` task writes what has gathered, in a thread, so that a
slow disk delays no request.  A crash loses what was added since the last write, GATHER_SECONDS at most.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
import orjson
import trio
from attrs import define, field, frozen

from helexa import logs

log = logs.get("helexa.records")

KEPT = 10_000
GATHER_SECONDS = 0.25  # for one write
FILE, OLD_FILE = "requests.jsonl", "requests.1.jsonl"


@frozen
class Record:
    """One finished request.  Seconds; `time` is Unix time at its arrival; None is not known.

    `status` is the HTTP status, `code` the error's, also where a stream ended with one.  `decisions`
    is why it went as it went: seconds since its arrival, and a sentence.
    """

    request_id: str
    time: float
    account: str
    key: str
    model: str
    dialect: str
    stream: bool
    status: int
    seconds: float
    client_request_id: str | None = None
    node: str | None = None
    code: str | None = None
    queue_seconds: float | None = None
    load_seconds: float | None = None
    prefill_seconds: float | None = None
    decode_seconds: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    tokens_per_second: float | None = None
    finish: str | None = None
    decisions: tuple[tuple[float, str], ...] = ()

    @property
    def has_failed(self) -> bool:
        return self.status >= 400 or self.code is not None


NAMES = frozenset(field.name for field in attrs.fields(Record))


def encode(record: Record) -> bytes:
    """One line of JSON, with its line break."""
    return orjson.dumps(as_json(record)) + b"\n"


def as_json(record: Record) -> dict[str, Any]:
    return attrs.asdict(record, recurse=False)


def decode(line: bytes) -> Record | None:
    """None for a line that is torn or foreign; fields that a newer version added are left out."""
    try:
        data = orjson.loads(line)
        known = {name: value for name, value in data.items() if name in NAMES}
        known["decisions"] = tuple((float(t), str(text)) for t, text in known.get("decisions", ()))
        return Record(**known)
    except (ValueError, TypeError, AttributeError):
        return None


@define(eq=False)
class Records:
    """The last requests and their file.  One owner; `run` must be running for anything to be saved."""

    _directory: Path
    _kept: deque[Record] = field(factory=lambda: deque(maxlen=KEPT))
    _unsaved: list[Record] = field(factory=list)
    _lines: int = 0  # in the current file
    _added: trio.Event = field(factory=trio.Event)

    @classmethod
    def open(cls, directory: Path) -> "Records":
        """Read back what an earlier process left; a line that a crash tore is skipped."""
        records = cls(directory)
        old, current = read_lines(directory / OLD_FILE), read_lines(directory / FILE)
        last = (old + current)[-KEPT:]
        records._kept.extend(record for line in last if (record := decode(line)))
        records._lines = len(current)
        return records

    def add(self, record: Record) -> None:
        self._kept.append(record)
        self._unsaved.append(record)
        self._added.set()

    def find(self, request_id: str) -> Record | None:
        """The newest with this id, ours or the client's own."""
        newest_first = reversed(self._kept)
        return next(
            (r for r in newest_first if request_id in (r.request_id, r.client_request_id)), None
        )

    def select(
        self, *, slow: bool = False, failed: bool = False, key: str | None = None, limit: int = 20
    ) -> list[Record]:
        """The newest, newest first; with `slow` the slowest of all that fit, slowest first."""
        fitting: Iterable[Record] = reversed(self._kept)
        if failed:
            fitting = (record for record in fitting if record.has_failed)
        if key is not None:
            fitting = (record for record in fitting if key in (record.key, record.account))
        if slow:
            fitting = sorted(fitting, key=lambda record: record.seconds, reverse=True)
        return [record for record, _ in zip(fitting, range(limit), strict=False)]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Save what is added, until cancelled; then save the rest."""
        task_status.started()
        try:
            while True:
                await self._added.wait()
                await trio.sleep(GATHER_SECONDS)
                self._added = trio.Event()
                batch = self._take()
                with trio.CancelScope(shield=True):  # a batch that is taken is saved
                    await trio.to_thread.run_sync(self._save, batch)
        finally:
            self._save(self._take())

    def _take(self) -> list[Record]:
        batch, self._unsaved = self._unsaved, []
        return batch

    def _save(self, batch: list[Record]) -> None:
        """Append `batch`.  Waits for the disk; a disk that fails is logged."""
        if not batch:
            return
        try:
            if self._lines >= KEPT:
                (self._directory / FILE).replace(self._directory / OLD_FILE)
                self._lines = 0
            append(self._directory / FILE, map(encode, batch))
            self._lines += len(batch)
        except OSError as error:
            log.error("request records not saved", count=len(batch), reason=error.strerror)


def read_lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines()
    except OSError:
        return []


def append(path: Path, lines: Iterator[bytes]) -> None:
    """Add whole lines to a private file; one that a crash left unfinished is ended first."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        file.write((b"\n" if torn else b"") + b"".join(lines))
