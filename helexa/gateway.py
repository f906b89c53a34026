"""The gateway: from a client's request to the node that answers it.

It resolves the alias, has the prompt counted and checked, has room reserved for the answer, finds the
node with the fleet's help, and passes the answer on.  It keeps no state: who is where is the fleet's
to know, and what was spent the ledger's.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from functools import lru_cache

import trio
from attrs import define, evolve, field

from helexa.accounts.keys import Key
from helexa.accounts.provider import Budgets
from helexa.actors.fleet import Acquire, Fleet, Outcome
from helexa.charge import Charge, wanted
from helexa.conversation import Conversation, Event, Events, Progress, about_tokens
from helexa.errors import (
    Busy,
    HelexaError,
    InsufficientVram,
    NotLoaded,
    ServiceUnavailable,
    UpstreamError,
    UpstreamMalformed,
)
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.known import Known, too_long
from helexa.fleet.limits import Limit
from helexa.fleet.listing import tightest
from helexa.fleet.routing import NoOther
from helexa.nodes.asked import Asked, Prepared
from helexa.nodes.incoming import UpstreamLost
from helexa.nodes.local import LocalPort
from helexa.nodes.port import NodeLost, NodePort
from helexa.shelf import Shelf
from helexa.text.prompt import Prompt
from helexa.trace import Trace

UNDER_WAY = Progress("queued")  # between two steps: whoever waits may look at the clock
# Before a request that reads its prompt is told so, and its stream opened.  Clients compact or stop where
# they are refused by a status, and not where the same words come in a stream.
PREPARING_SECONDS = 10.0
MAX_TRIES = 4  # nodes may be lost, and models unloaded between their load and our place in the line
# Another node may do better.
ELSEWHERE = (ServiceUnavailable, Busy, NotLoaded, InsufficientVram, UpstreamMalformed)


class Gateway:
    """`local` is this host's own node, which reads the prompts of models whose files are here.

    A request that waits is told so every `tick_seconds`; it waits `load_wait_seconds` for a load.
    """

    def __init__(
        self,
        shelf: Shelf,
        fleet: Fleet,
        ports: Mapping[str, NodePort],
        local: LocalPort | None,
        budgets: Budgets,
        tick_seconds: float,
        load_wait_seconds: float,
    ) -> None:
        self._shelf = shelf
        self._fleet = fleet
        self._ports = ports
        self._local = local
        self._budgets = budgets
        self._tick_seconds = tick_seconds
        self._load_wait_seconds = load_wait_seconds

    async def generate(self, asked: Asked, trace: Trace) -> Events:
        """The answer's events, with Progress while it waits for a load, a slot or the prompt.

        Raises a HelexaError; whatever was taken is given back when the generator is closed.
        """
        entry = self.resolve(asked.conversation.model)
        trace.model = entry.id
        asked.key.check_use(entry.names)
        asked = asked.of_model(entry.id)
        prepared, known = estimated(asked, entry), await self._known(entry)
        if self._local is not None and known is not None:
            preparing = self._local.prepare(known, asked.conversation, asked.key.principal)
            async with aclosing(preparing.waiting(PREPARING_SECONDS)) as waiting:
                async for progress in waiting:
                    yield [progress]
            prepared = counted(prepared, known, await preparing.reply.wait())
        limit = self._limit(entry, known)
        check_length(prepared, limit)
        trace.note(told_tokens(prepared))
        with await self._budgets.reserve(wanted(prepared, limit, trace)) as reservation:
            prepared = evolve(prepared, max_tokens=reservation.max_output)
            charge = Charge(reservation, prepared, trace)
            try:
                yield [UNDER_WAY]
                async with aclosing(self._answer(prepared, trace)) as batches:
                    async for batch in batches:
                        await charge.begin(batch)
                        charge.saw(batch)
                        yield batch
            finally:
                charge.settle()

    async def count(self, conversation: Conversation, key: Key) -> int:
        """The exact number of prompt tokens that `generate` would read; nothing is loaded for it."""
        entry = self.resolve(conversation.model)
        key.check_use(entry.names)
        if self._local is None:
            raise ServiceUnavailable("This gateway has no node beside it, and so no tokenizers.")
        known = await self._local.known(entry)
        conversation = evolve(conversation, model=entry.id)
        return await self._local.count(known, conversation, key.principal)

    def resolve(self, name: str) -> CatalogueModel:
        """The catalogue's entry, or one for a model that a node has, or had before it went down."""
        entry = self._shelf.catalogue.resolve(name)
        if entry is None and self._fleet.knows(name):
            return unlisted(name)
        if entry is None and self._fleet.is_down:  # who knows what its nodes have
            raise ServiceUnavailable("no node of this fleet is healthy", retry_after=5)
        return entry or self._shelf.resolve(name)

    # -- before the node -----------------------------------------------------------------------------

    async def _known(self, entry: CatalogueModel) -> Known | None:
        """What the model's files on this host say, if there are any."""
        if self._local is None:
            return None
        try:
            return await self._local.known(entry)
        except HelexaError:  # the node that is to answer says what is wrong
            return None

    def _limit(self, entry: CatalogueModel, known: Known | None) -> Limit | None:
        """The tightest that is published for the model; without one, what its files here say."""
        published = tightest(
            each.entry.limit for each in self._fleet.telling(entry.id) if each.entry.loaded
        )
        return published or (known.limit if known else None)

    # -- the node ------------------------------------------------------------------------------------

    async def _answer(self, prepared: Prepared, trace: Trace) -> Events:
        """The answer of whichever node gives it; until the first token another one may be tried."""
        tries = Tries(trace)
        for _ in range(MAX_TRIES):
            attempt = Attempt(
                self._fleet.acquire(
                    prepared.entry, session=prepared.asked.session, avoid=tries.avoid
                )
            )
            try:
                async with aclosing(self._wait(attempt.acquire, trace)) as waiting:
                    async for progress in waiting:
                        yield [progress]
                port = self._ports[await attempt.leased(trace)]
                async with aclosing(port.generate(prepared, trace)) as batches:
                    async for batch in batches:
                        attempt.saw(batch)
                        yield batch
                attempt.ended()
                return
            except NoOther as error:
                tries.nobody_else(error)
            except HelexaError as error:
                attempt.failed(error)
                if attempt.has_begun:
                    raise
                tries.failed(attempt.node, error, attempt.to_avoid(error))
            finally:
                self._fleet.leave(attempt.acquire, attempt.outcome)
        raise tries.given_up

    async def _wait(self, acquire: Acquire, trace: Trace) -> AsyncGenerator[Progress, None]:
        """Progress until the fleet has a node, or ServiceUnavailable when that takes too long."""
        began_at = trio.current_time()
        deadline = began_at + self._load_wait_seconds
        async with aclosing(acquire.reply.ticks(self._tick_seconds, deadline)) as ticks:
            async for _ in ticks:
                yield acquire.progress()
        waited = trio.current_time() - began_at
        if acquire.progress().phase == "loading":
            trace.load_seconds += waited
        if not acquire.reply.given:
            raise ServiceUnavailable(
                f"model {acquire.entry.id} is still not there after {waited:.0f} s", retry_after=5
            )


@define(eq=False)
class Attempt:
    """One try at a node, and what the fleet is told of it at its end."""

    acquire: Acquire
    node: str = field(default="", init=False)
    sent_at: float = field(default=0.0, init=False)
    has_begun: bool = field(default=False, init=False)
    outcome: Outcome = field(default=Outcome("cancelled"), init=False)

    async def leased(self, trace: Trace) -> str:
        """The node, as soon as the fleet has one."""
        lease = await self.acquire.reply.wait()
        trace.note(lease.why)
        trace.node = self.node = lease.node
        self.sent_at = trio.current_time()
        return self.node

    def saw(self, batch: Sequence[Event]) -> None:
        self.has_begun = self.has_begun or not all(isinstance(each, Progress) for each in batch)

    def ended(self) -> None:
        self.outcome = Outcome("ok", trio.current_time() - self.sent_at)

    def failed(self, error: HelexaError) -> None:
        self.outcome = Outcome("cancelled")
        if isinstance(error, NotLoaded):
            self.outcome = Outcome("gone")
        elif isinstance(error, NodeLost):
            self.outcome = Outcome("lost")
        elif isinstance(error, UpstreamError):
            self.outcome = Outcome("failed")
        elif error.status == 503:
            self.outcome = Outcome("refused")

    def to_avoid(self, error: HelexaError) -> frozenset[str]:
        """A node that only does not have the model any more may load it again."""
        return frozenset() if isinstance(error, NotLoaded) else frozenset({self.node})


@define(eq=False)
class Tries:
    """The nodes that a request has tried in vain, and what the last of them said."""

    trace: Trace
    avoid: frozenset[str] = field(default=frozenset(), init=False)
    _said: HelexaError | None = field(default=None, init=False)
    _node: str = field(default="", init=False)  # that said it

    def failed(self, node: str, error: HelexaError, avoid: frozenset[str]) -> None:
        """Raises `error` unless another node may do better; `node` is "" where none was asked."""
        if not node and isinstance(self._said, NodeLost):
            raise self.given_up
        if not node or not isinstance(error, ELSEWHERE):
            raise error
        self._said = error
        self._node, self.trace.node = node, ""
        self.avoid |= avoid
        self.trace.note(f"node {node}: {error.message}; another try")

    def nobody_else(self, error: NoOther) -> None:
        """Raises what the last one said, unless that was lost: it was seen again since, or will be found
        away once more."""
        if not isinstance(self._said, NodeLost):
            raise self.given_up if self._said else error from None
        self.avoid = frozenset()

    @property
    def given_up(self) -> HelexaError:
        """What the last one said; where that was lost, there is no answer to pass on."""
        assert self._said is not None
        self.trace.node = self._node
        lost = isinstance(self._said, NodeLost)
        return UpstreamLost(self._said.message) if lost else self._said


@lru_cache(maxsize=1024)
def unlisted(model: str) -> CatalogueModel:
    """The entry of a model that no catalogue has."""
    return CatalogueModel(id=model)


# -- what is known of a request ------------------------------------------------------------------------


def estimated(asked: Asked, entry: CatalogueModel) -> Prepared:
    return Prepared(asked, entry, about_tokens(asked.body_bytes))


def counted(prepared: Prepared, known: Known, prompts: Sequence[Prompt]) -> Prepared:
    num_tokens = sum(len(prompt.ids) for prompt in prompts)
    return evolve(prepared, num_tokens=num_tokens, prompts=prompts, known=known)


def check_length(prepared: Prepared, limit: Limit | None) -> None:
    longest = prepared.longest_prompt
    if limit is not None and longest > limit.input:
        param = "prompt" if prepared.asked.conversation.texts else "messages"
        raise too_long(limit, longest, param=param)


def told_tokens(prepared: Prepared) -> str:
    about = "" if prepared.exact else "about "
    return f"model {prepared.entry.id}: {about}{prepared.num_tokens} prompt tokens"
