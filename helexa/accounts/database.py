"""The ledger's file: SQLite in WAL mode, written by one thread at a time, read by any.

A commit is in the file system when it returns, so that it outlives the process; `checkpoint` also
brings it to the disk, so that it outlives the machine.
"""

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from attrs import define, evolve, field

from helexa import logs
from helexa.accounts.amount import Amount
from helexa.accounts.book import MeterId
from helexa.accounts.private import check_private, held, make_private_file
from helexa.accounts.rows import Batch, Event, Found, Row, Stamp
from helexa.accounts.tables import VERSIONS
from helexa.accounts.windows import Meter, Scope, Window
from helexa.errors import ConfigError

log = logs.get("helexa.ledger")

Values: TypeAlias = tuple[Any, ...]
Write: TypeAlias = tuple[str, Values]

LONGEST_LOG = 16 << 20  # bytes that the write-ahead log keeps after a checkpoint


@define(eq=False)
class Database:
    """An open ledger.  `commit` and `prune` are one thread's at a time; the rest is anybody's."""

    path: Path
    found: Found
    _writer: sqlite3.Connection = field(repr=False)

    def commit(self, batch: Batch) -> None:
        """Write it all or nothing; sqlite3.Error for nothing."""
        writes = list(writes_of(batch))
        if not writes:
            return
        if len(writes) == 1:  # as a reservation alone is: a transaction by itself
            self._writer.execute(*writes[0])
            return
        with transaction(self._writer) as cursor:
            for write in writes:
                cursor.execute(*write)

    def prune(self, before: float) -> bool:
        """Fold requests that began before a Unix time into the sums of their days; drop old events.

        The oldest few only: True if there may be more.
        """
        with transaction(self._writer) as cursor:
            further = cursor.execute(OLDEST, (before, MOST_FOLDED)).fetchone()
            until = further[0] if further else before
            cursor.execute(FOLD, (until,))
            cursor.execute(
                "DELETE FROM requests WHERE opened_at <= ? AND outcome != 'open'", (until,)
            )
            cursor.execute("DELETE FROM events WHERE time <= ?", (until,))
        return further is not None

    def checkpoint(self) -> None:
        """Bring what was committed to the disk, beside the writer and without holding it up."""
        with closing(self._reader()) as reader:
            reader.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def read(
        self, query: str, values: Sequence[Any] | Mapping[str, Any] = ()
    ) -> list[tuple[Any, ...]]:
        """The rows of a query, as of one moment."""
        with closing(self._reader()) as reader:
            return reader.execute(query, values).fetchall()

    def copy_to(self, path: Path) -> None:
        """The whole ledger as of one moment, into a new file, beside the writer."""
        with closing(self._reader()) as reader, closing(sqlite3.connect(path)) as copy:
            reader.backup(copy)

    def close(self) -> None:
        self._writer.close()

    def _reader(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=5.0, isolation_level=None)


@contextmanager
def open_ledger(path: Path) -> Iterator[Database]:
    """The ledger at `path`, made if absent, for this process alone.

    Raises StateInUse if another process has it, ConfigError if it cannot be used or others may read
    it.  A damaged one is set aside; `found.set_aside` then tells where until the loss is accepted.
    """
    with held(path.with_name(f"{path.name}.lock")):
        if path.exists():
            check_private(path)
        database = opened(path)
        try:
            yield database
        finally:
            database.close()


def opened(path: Path) -> Database:
    try:
        return Database(path, *connected(path))
    except sqlite3.Error as error:
        if not is_damage(error):
            raise ConfigError([f"the ledger {path} cannot be used: {error}"]) from None
        aside = set_aside(path)
        log.error(
            "the ledger is damaged and was set aside; keys with a budget are refused until a "
            "backup is restored or the loss is accepted (helexa-ctl accept-loss)",
            reason=str(error),
            kept_as=str(aside),
        )
    found, writer = connected(path)
    writer.execute("INSERT INTO damage VALUES (?)", (str(aside),))
    found = evolve(found, set_aside=str(aside))
    return Database(path, found, writer)


def connected(path: Path) -> tuple[Found, sqlite3.Connection]:
    if not path.exists():
        make_new(path)
    writer = connect(path)
    try:
        check_whole(writer)
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("PRAGMA synchronous = NORMAL")
        writer.execute("PRAGMA wal_autocheckpoint = 0")  # `checkpoint` does it elsewhere
        writer.execute(f"PRAGMA journal_size_limit = {LONGEST_LOG}")
        migrate(writer, path)
        return read_found(writer), writer
    except BaseException:
        writer.close()
        raise


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)


def make_new(path: Path) -> None:
    """In one step, so that an empty file is never one of ours."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    make_private_file(unfinished)
    with closing(connect(unfinished)) as writer:
        migrate(writer, path)
    unfinished.rename(path)


def check_whole(writer: sqlite3.Connection) -> None:
    said = writer.execute("PRAGMA integrity_check(1)").fetchone()[0]
    (version,) = writer.execute("PRAGMA user_version").fetchone()
    if said != "ok" or version == 0:
        raise sqlite3.DatabaseError("it is empty" if version == 0 else said)


def check_file(path: Path) -> None:
    """ConfigError unless the file is a whole ledger that this helexa can read."""
    try:
        with closing(connect(path)) as connection:
            check_whole(connection)
            migrate(connection, path)
    except sqlite3.Error as error:
        raise ConfigError([f"the ledger in it is damaged: {error}"]) from None


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is not what was written, rather than out of reach."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def set_aside(path: Path) -> Path:
    """Move the file, and what SQLite keeps beside it, to a name that nobody opens."""
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    for end in ("-wal", "-shm", ""):
        beside = path.with_name(path.name + end)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + end))
    return aside


def migrate(writer: sqlite3.Connection, path: Path) -> None:
    (version,) = writer.execute("PRAGMA user_version").fetchone()
    if version > len(VERSIONS):
        raise ConfigError(
            [
                f"the ledger {path} was written by a newer helexa (version {version}, this one reads "
                f"up to {len(VERSIONS)}): upgrade helexa, or set accounts.ledger"
            ]
        )
    for number, script in enumerate(VERSIONS[version:], version + 1):
        writer.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Cursor]:
    cursor = connection.cursor()
    cursor.execute("BEGIN IMMEDIATE")
    try:
        yield cursor
        cursor.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            cursor.execute("ROLLBACK")
        raise


# -- what is read at start -----------------------------------------------------------------------------


def read_found(writer: sqlite3.Connection) -> Found:
    """Settles what a dead process left open at its last recorded progress: it is charged already."""
    crashed = writer.execute(
        "UPDATE requests SET outcome = 'crashed', closed_at = ? WHERE outcome = 'open'",
        (time.time(),),
    ).rowcount
    (last_id,) = writer.execute("SELECT coalesce(max(id), 0) FROM requests").fetchone()
    (last_event_id,) = writer.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()
    stamps = writer.execute("SELECT boot_id, boot_seconds, seconds FROM clock").fetchall()
    damage = writer.execute("SELECT set_aside FROM damage").fetchall()
    return Found(
        dict(map(meter_of, writer.execute(f"SELECT {METER_COLUMNS} FROM meters"))),
        last_id + 1,
        Stamp(*stamps[0]) if stamps else None,
        last_event_id,
        crashed,
        damage[0][0] if damage else "",
    )


# -- what is written -----------------------------------------------------------------------------------

METER_COLUMNS = "account_id, key_id, kind, seconds, tokens, pico_usd, started_at, slots"
EVENT_COLUMNS = "id, time, kind, account_id, key_id, request_id, text, count"
PUT_METERS = f"INSERT OR REPLACE INTO meters ({METER_COLUMNS})"
PUT_ROWS = "INSERT OR REPLACE INTO requests"
PUT_CLOCK = "INSERT OR REPLACE INTO clock VALUES (1, ?, ?, ?)"
PUT_EVENTS = f"INSERT OR REPLACE INTO events ({EVENT_COLUMNS})"
MOST_AT_ONCE = 500  # rows of one statement
MOST_FOLDED = 2000  # requests of one transaction, and those of the same moment
OLDEST = """
SELECT opened_at FROM requests WHERE opened_at < ? AND outcome != 'open'
ORDER BY opened_at LIMIT 1 OFFSET ?
"""
FOLD = """
INSERT INTO days
SELECT date(opened_at, 'unixepoch'), account_id, key_id, model, count(*),
       sum(prompt_tokens), sum(completion_tokens), sum(cached_tokens), sum(pico_usd)
FROM requests WHERE opened_at <= ? AND outcome != 'open' GROUP BY 1, 2, 3, 4
ON CONFLICT DO UPDATE SET
    requests = requests + excluded.requests,
    prompt_tokens = prompt_tokens + excluded.prompt_tokens,
    completion_tokens = completion_tokens + excluded.completion_tokens,
    cached_tokens = cached_tokens + excluded.cached_tokens,
    pico_usd = pico_usd + excluded.pico_usd
"""


def writes_of(batch: Batch) -> Iterator[Write]:
    """One statement for many rows: between two of them this thread may have to wait for the others."""
    yield from inserts(PUT_ROWS, [row_values(row) for row in batch.rows.values()])
    yield from inserts(PUT_METERS, [meter_values(*item) for item in batch.meters.items()])
    yield from inserts(PUT_EVENTS, [event_values(event) for event in batch.events])
    if batch.accepts_loss:
        yield "DELETE FROM damage", ()
    if batch.stamp is not None:
        yield PUT_CLOCK, (batch.stamp.boot_id, batch.stamp.boot_seconds, batch.stamp.seconds)


def inserts(into: str, rows: Sequence[Values]) -> Iterator[Write]:
    for begin in range(0, len(rows), MOST_AT_ONCE):
        some = rows[begin : begin + MOST_AT_ONCE]
        one = f"({', '.join('?' * len(some[0]))})"
        yield f"{into} VALUES {', '.join([one] * len(some))}", tuple(chain.from_iterable(some))


def row_values(row: Row) -> Values:
    used = row.used
    return (
        row.id,
        row.request_id,
        row.account_id,
        row.key_id,
        row.model,
        row.opened_at,
        row.reserved_tokens,
        row.outcome,
        row.closed_at,
        used.prompt,
        used.completion,
        used.cached,
        used.cache_write,
        row.pico_usd,
        row.uncharged_tokens,
    )


def meter_values(meter_id: MeterId, meter: Meter) -> Values:
    scope, window = meter_id
    slots = [(slot, spent.tokens, spent.pico_usd) for slot, spent in meter.slots]
    spent = meter.spent
    return (
        scope.account_id,
        scope.key_id,
        window.kind,
        window.seconds,
        spent.tokens,
        spent.pico_usd,
        meter.started_at,
        json.dumps(slots),
    )


def meter_of(values: Sequence[Any]) -> tuple[MeterId, Meter]:
    account_id, key_id, kind, seconds, tokens, pico_usd, started_at, slots = values
    read = tuple((slot, Amount(*spent)) for slot, *spent in json.loads(slots))
    meter = Meter(Amount(tokens, pico_usd), started_at=started_at, slots=read)
    return (Scope(account_id, key_id), Window(kind, seconds)), meter


def event_values(event: Event) -> Values:
    return (
        event.id or None,
        event.time,
        event.kind,
        event.account_id,
        event.key_id,
        event.request_id,
        event.text,
        event.count,
    )
