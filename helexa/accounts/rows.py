"""What the ledger's file holds, as values."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

from attrs import field, frozen

from helexa.accounts.amount import UNUSED, Used
from helexa.accounts.book import MeterId
from helexa.accounts.windows import Meter

# `settled` by its usage, `released` with what it had used when it broke off, `crashed` with the process
Outcome: TypeAlias = Literal["open", "settled", "released", "crashed"]


@frozen
class Row:
    """One request.  Times are Unix time; `uncharged_tokens` are those that no cap had room for."""

    id: int
    request_id: str
    account_id: str
    key_id: str
    model: str
    opened_at: float
    reserved_tokens: int
    outcome: Outcome = "open"
    closed_at: float | None = None
    used: Used = UNUSED
    pico_usd: int = 0
    uncharged_tokens: int = 0


@frozen
class Event:
    """Something for the audit: a change of a key, or `count` refusals that were alike.

    One whose `id` is there already takes its place; 0 is a new one.
    """

    time: float
    kind: str
    account_id: str = ""
    key_id: str = ""
    request_id: str = ""
    text: str = ""
    count: int = 1
    id: int = 0


@frozen
class Stamp:
    """What the ledger's clock showed when a boot of this machine was `boot_seconds` old."""

    boot_id: str
    boot_seconds: float
    seconds: float


@frozen
class Batch:
    """What is written in one transaction: the newest state of what changed, and what happened."""

    rows: Mapping[int, Row] = field(factory=dict)
    meters: Mapping[MeterId, Meter] = field(factory=dict)
    events: tuple[Event, ...] = ()
    accepts_loss: bool = False  # of the ledger that was set aside
    stamp: Stamp | None = None


@frozen
class Found:
    """What an earlier process left.  `num_crashed` requests were open when it ended.

    `set_aside` is where a damaged ledger went that nobody has accepted the loss of.
    """

    meters: Mapping[MeterId, Meter]
    next_id: int
    stamp: Stamp | None
    last_event_id: int = 0
    num_crashed: int = 0
    set_aside: str = ""
