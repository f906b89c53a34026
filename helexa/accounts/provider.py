"""The seam between whoever serves requests and whoever decides what may be spent.

`resolve`, `reserve`, `settle`, `release`, `snapshot`: the ledger on this machine is one provider
(`helexa.actors.ledger`).  A clearing house for several gateways could be another: a reservation is
then a lease, a settlement that is told twice counts once (it carries the request's id), and while
nothing can be reserved nothing is served.
"""

from types import TracebackType
from typing import Protocol

from attrs import frozen

from helexa.accounts.amount import FREE, Prices, Used
from helexa.accounts.keys import Key
from helexa.conversation import Principal
from helexa.errors import HelexaError


@frozen
class Wanted:
    """What one request may take at most.

    `prompt_tokens` are those of all its prompts together; `exact` tells whether they were counted or
    estimated.  `max_output` bounds each of `num_answers`, and is what the request asked for, else
    the model's limit, and never more than the model can still produce after the prompt.
    """

    principal: Principal
    request_id: str
    model: str  # a catalogue id
    prompt_tokens: int
    max_output: int
    num_answers: int = 1
    exact: bool = True
    prices: Prices = FREE


class Reservation(Protocol):
    """Room for one request.  As a context manager it is given back on every way out.

    Nothing here waits or fails but `written`.  What was `used` stays charged; what was not is free again
    after `settle` or `release`, of which the first counts.
    """

    @property
    def max_output(self) -> int:
        """The hard stop for each answer, in tokens."""

    async def written(self) -> None:
        """Wait until an answer may be given: before its first token, at once or LedgerUnavailable."""

    def used(self, used: Used) -> None:
        """Tokens taken so far, as sums since the beginning: tell it as the answer goes."""

    def settle(self, used: Used) -> None:
        """It is over, and took so much."""

    def release(self) -> None:
        """It is over: charged for what was told as `used`, which may be nothing."""

    def __enter__(self) -> "Reservation": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


@frozen
class Remaining:
    """The tightest of the caps on a principal's tokens.

    `remaining` is what is neither spent nor reserved; `reset_seconds` is None for a balance.
    """

    limit: int
    remaining: int
    reset_seconds: float | None


class Budgets(Protocol):
    async def resolve(self, secret: bytes) -> Key | None:
        """The key that `secret` is; None for one that is unknown, revoked or has expired."""

    async def reserve(self, wanted: Wanted) -> Reservation:
        """Room for a request, or BudgetExhausted, BudgetHeld, InsufficientQuota, LedgerUnavailable."""

    def snapshot(self, principal: Principal) -> Remaining | None:
        """None for a principal whose tokens nobody bounds."""

    def refused(
        self, error: HelexaError, principal: Principal | None, request_id: str, address: str = ""
    ) -> None:
        """A request ended by `error`: for the audit, if that is a refusal.  Never waits.

        What `reserve` refuses is told there.
        """


# -- without a ledger --------------------------------------------------------------------------------


class Granted:
    """A reservation of somebody whom nobody counts."""

    def __init__(self, max_output: int) -> None:
        self.max_output = max_output

    async def written(self) -> None: ...

    def used(self, used: Used) -> None: ...

    def settle(self, used: Used) -> None: ...

    def release(self) -> None: ...

    def __enter__(self) -> "Granted":
        return self

    def __exit__(self, *error: object) -> None: ...


class Unmetered:
    """The provider of a node that is asked directly: no keys, no caps, no ledger."""

    async def resolve(self, secret: bytes) -> Key | None:
        return None

    async def reserve(self, wanted: Wanted) -> Reservation:
        return Granted(wanted.max_output)

    def snapshot(self, principal: Principal) -> Remaining | None:
        return None

    def refused(
        self, error: HelexaError, principal: Principal | None, request_id: str, address: str = ""
    ) -> None: ...
