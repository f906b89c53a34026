"""What one request may take of a budget, and what it took."""

from collections.abc import Sequence

from attrs import define, field

from helexa.accounts.amount import FREE, Prices, Used, prices
from helexa.accounts.provider import Reservation, Wanted
from helexa.conversation import Delta, Event, Finished, Passed, Progress, Started, Usage
from helexa.errors import HelexaError
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.limits import Limit
from helexa.nodes.asked import Prepared
from helexa.trace import Trace

USUAL_OUTPUT = 4096  # tokens, of a model that nobody knows a limit of


def wanted(prepared: Prepared, limit: Limit | None, trace: Trace) -> Wanted:
    """The most that a request may take: its prompts, and for each answer what it asks for.

    Never more than the model can still produce after the longest prompt.
    """
    conversation = prepared.asked.conversation
    most = conversation.max_tokens or (limit.output if limit else USUAL_OUTPUT)
    if limit is not None:
        most = max(1, min(most, limit.context - prepared.longest_prompt))
    return Wanted(
        principal=trace.principal,
        request_id=trace.request_id,
        model=prepared.entry.id,
        prompt_tokens=prepared.num_tokens,
        max_output=most,
        num_answers=conversation.num_answers,
        exact=prepared.exact,
        prices=prices_of(prepared.entry),
    )


def used_of(usage: Usage) -> Used:
    return Used(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)


def prices_of(entry: CatalogueModel) -> Prices:
    cost = entry.cost
    return prices(cost.input, cost.output, cost.cache_read, cost.cache_write) if cost else FREE


def is_wait(event: Event) -> bool:
    """Whether nothing was generated yet."""
    return isinstance(event, Progress) and event.phase != "decode"


@define(eq=False)
class Charge:
    """Counts an answer as it comes, and tells its reservation.

    The count of deltas is about that of the tokens; where there is nothing to show, as of reasoning that
    the client does not see, Progress tells it.  The usage of the answer itself has the last word.
    """

    _reservation: Reservation
    _prepared: Prepared
    _trace: Trace
    _used: Used = field(default=Used(), init=False)
    _has_begun: bool = field(default=False, init=False)

    async def begin(self, batch: Sequence[Event]) -> None:
        """Call it with every batch before it is given to anybody.

        Waits at the first that has something of the answer until the reservation is written.  An
        answer whose reservation cannot be is LedgerUnavailable, and costs nothing.
        """
        if self._has_begun or all(map(is_wait, batch)):
            return
        try:
            await self._reservation.written()
        except HelexaError:
            self._reservation.release()
            raise
        self._has_begun = True

    def saw(self, batch: Sequence[Event]) -> None:
        completion = self._used.completion
        for event in batch:
            if isinstance(event, Delta):
                completion += 1
            elif isinstance(event, Passed):
                completion += event.tokens
            elif isinstance(event, Progress) and event.phase == "decode":
                completion = max(completion, event.done)
            elif isinstance(event, Started) and not self._used.prompt:
                self._used = Used(event.prompt_tokens or self._prepared.num_tokens)
        if completion > self._used.completion:
            prompt = self._used.prompt or self._prepared.num_tokens
            self._used = Used(prompt, completion, self._used.cached)
            if not isinstance(batch[-1], Finished):  # which is settled in a moment
                self._reservation.used(self._used)

    def settle(self) -> None:
        """The request is over: charged for what it took, whoever ended it."""
        usage = self._trace.usage
        if usage is not None:
            self._used = used_of(usage)
        self._reservation.settle(self._used)
