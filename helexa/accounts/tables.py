"""The tables of the ledger's file, one script for each version that follows another."""

FIRST = """
CREATE TABLE meters (
    account_id TEXT NOT NULL,
    key_id     TEXT NOT NULL,     -- empty for the whole account
    kind       TEXT NOT NULL,     -- of the window
    seconds    INTEGER NOT NULL,  -- its length
    tokens     INTEGER NOT NULL,
    pico_usd   INTEGER NOT NULL,
    started_at REAL,              -- on the ledger's clock
    slots      TEXT NOT NULL,     -- JSON: [[slot, tokens, pico_usd], ...]
    PRIMARY KEY (account_id, key_id, kind, seconds)
) WITHOUT ROWID;
CREATE TABLE requests (
    id                 INTEGER PRIMARY KEY,
    request_id         TEXT NOT NULL,
    account_id         TEXT NOT NULL,
    key_id             TEXT NOT NULL,
    model              TEXT NOT NULL,
    opened_at          REAL NOT NULL,  -- Unix time
    reserved_tokens    INTEGER NOT NULL,
    outcome            TEXT NOT NULL,
    closed_at          REAL,
    prompt_tokens      INTEGER NOT NULL,
    completion_tokens  INTEGER NOT NULL,
    cached_tokens      INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    pico_usd           INTEGER NOT NULL,
    uncharged_tokens   INTEGER NOT NULL
);
CREATE INDEX requests_by_time ON requests (opened_at);
CREATE INDEX requests_open ON requests (id) WHERE outcome = 'open';
CREATE TABLE days (  -- what is left of requests that were kept long enough
    day               TEXT NOT NULL,  -- 2027-01-31, UTC
    account_id        TEXT NOT NULL,
    key_id            TEXT NOT NULL,
    model             TEXT NOT NULL,
    requests          INTEGER NOT NULL,
    prompt_tokens     INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cached_tokens     INTEGER NOT NULL,
    pico_usd          INTEGER NOT NULL,
    PRIMARY KEY (day, account_id, key_id, model)
) WITHOUT ROWID;
CREATE TABLE events (
    id         INTEGER PRIMARY KEY,
    time       REAL NOT NULL,  -- Unix time
    kind       TEXT NOT NULL,
    account_id TEXT NOT NULL,
    key_id     TEXT NOT NULL,
    request_id TEXT NOT NULL,
    text       TEXT NOT NULL,
    count      INTEGER NOT NULL
);
CREATE INDEX events_by_time ON events (time);
CREATE TABLE clock (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    boot_id      TEXT NOT NULL,
    boot_seconds REAL NOT NULL,
    seconds      REAL NOT NULL
);
CREATE TABLE damage (set_aside TEXT NOT NULL);  -- a ledger before this one, until its loss is accepted
"""

# A file of version N has had the first N scripts.
VERSIONS = (FIRST,)
