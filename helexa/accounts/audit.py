"""Which errors are refusals, that the audit tells of: what a rule denies, not what was asked wrongly."""

from helexa.errors import (
    ActorDown,
    BodyTooLarge,
    BudgetExhausted,
    BudgetHeld,
    ContextLengthExceeded,
    HelexaError,
    InsufficientQuota,
    LedgerUnavailable,
)

STATUSES = (401, 403, 409, 429, 503)
TOO_LONG = (ContextLengthExceeded, BodyTooLarge)
# The ledger itself says no, and notes it there.
OF_THE_LEDGER = (BudgetHeld, BudgetExhausted, InsufficientQuota, LedgerUnavailable)
LONGEST_KIND, LONGEST_TEXT = 60, 300  # characters: other servers have codes of their own


def is_refusal(error: HelexaError) -> bool:
    """Whether the audit is to be told of `error` by whoever answers with it."""
    if isinstance(error, (*OF_THE_LEDGER, ActorDown)):
        return False
    return error.status in STATUSES or isinstance(error, TOO_LONG)


def kind_of(error: HelexaError) -> str:
    """What the audit calls it."""
    return f"refused: {error.code or error.status}"[:LONGEST_KIND]


def told(text: str) -> str:
    """`text` as a file can hold it."""
    return text[:LONGEST_TEXT].encode("utf-8", "replace").decode()
