"""Requests of OpenAI's API that are passed on unread but for their model: to servers that know them.

Embeddings, reranking, audio and images: nothing of the kind runs here, so `openai` nodes answer.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import ExitStack, aclosing
from typing import Protocol

import orjson
from attrs import define, field, frozen

from helexa.accounts.keys import Key
from helexa.accounts.provider import Budgets, Reservation, Wanted
from helexa.actors.leases import Acquire, Outcome
from helexa.charge import prices_of, used_of
from helexa.conversation import Usage, about_tokens
from helexa.errors import HelexaError
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.pace import Demand
from helexa.fleet.routing import NoOther
from helexa.fleet.view import NodeKind
from helexa.gateway import MAX_TRIES, Attempt, Tries
from helexa.nodes.admitting import AdmittingPort
from helexa.nodes.client import Whole
from helexa.nodes.framing import Head
from helexa.nodes.headers import origin_headers
from helexa.nodes.incoming import Incoming, Question
from helexa.nodes.refusals import answer_error
from helexa.nodes.told import Told
from helexa.trace import Trace

HEAD_SECONDS = 3600.0
SILENCE_SECONDS = 900.0
MOST_METERED_BYTES = 8 * 2**20  # of an answer that is read for its usage
MOST_ERROR_BYTES = 2**20
MOST_TOKENS = 2**40
TOKENS_WITHOUT_BYTES = 2**17  # believed of pictures that are only named, and the like
TAKEN, GIVEN = ("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")


@frozen
class OpaqueRequest:
    """`write` gives content type and body with the model's id in it; `num_bytes` are those that tokens
    are made of."""

    path: str
    model: str
    num_bytes: int
    key: Key
    write: Callable[[str], tuple[str, bytes]] = field(repr=False)

    @property
    def num_tokens(self) -> int:
        """About."""
        return about_tokens(self.num_bytes)

    @property
    def demand(self) -> Demand:
        return Demand(self.num_tokens, 1, 0)


class Leasing(Protocol):
    """Who knows which node may be asked (`actors.fleet.Fleet`)."""

    def acquire(
        self, entry: CatalogueModel, *, avoid: frozenset[str], kind: NodeKind
    ) -> Acquire: ...
    def leave(self, acquire: Acquire, outcome: Outcome) -> None: ...


@frozen(eq=False)
class Opaque:
    """`ports` are those of `openai` nodes."""

    resolve: Callable[[str], CatalogueModel]
    fleet: Leasing
    ports: Mapping[str, AdmittingPort]
    budgets: Budgets

    async def ask(self, asked: OpaqueRequest, trace: Trace) -> "OpaqueAnswer":
        """The answer once its head is there; `close` it.  Raises a HelexaError for what is refused."""
        entry = self.resolve(asked.model)
        trace.model = entry.id
        asked.key.check_use(entry.names)
        about, prices = asked.num_tokens, prices_of(entry)
        wanted = Wanted(trace.principal, trace.request_id, entry.id, about, 0, 1, False, prices)
        with ExitStack() as exits:
            reservation = exits.enter_context(await self.budgets.reserve(wanted))
            sent = await self._answered(entry, asked, trace)
            exits.callback(sent.close)
            await reservation.written()
            return OpaqueAnswer(sent, reservation, trace, about, exits.pop_all())

    async def _answered(self, entry: CatalogueModel, asked: OpaqueRequest, trace: Trace) -> "Sent":
        """The first answer of a node that can give one: nodes that are lost or busy are left for others."""
        tries = Tries(trace)
        for _ in range(MAX_TRIES):
            attempt = Attempt(self.fleet.acquire(entry, avoid=tries.avoid, kind="openai"))
            try:
                return await self._try(attempt, entry.id, asked, trace)
            except NoOther as error:
                tries.nobody_else(error)
            except HelexaError as error:
                tries.failed(attempt.node, error, frozenset({attempt.node}))
        raise tries.given_up

    async def _try(
        self, attempt: Attempt, model: str, asked: OpaqueRequest, trace: Trace
    ) -> "Sent":
        with ExitStack() as exits:
            exits.callback(self._leave, attempt)
            try:
                port = self.ports[await attempt.leased(trace)]
                turn = exits.enter_context(port.place(model, asked.demand, trace))
                async with aclosing(turn) as waiting:
                    async for _ in waiting:
                        pass  # such an answer knows no signs of life
                asking = question(model, asked, trace)
                incoming = port.client.ask(asking)
                exits.callback(incoming.close)
                response = await accepted(port.name, incoming)
            except HelexaError as error:
                attempt.failed(error)
                raise
            return Sent(attempt, incoming, response, len(asking.body), exits.pop_all().close)

    def _leave(self, attempt: Attempt) -> None:
        self.fleet.leave(attempt.acquire, attempt.outcome)


@frozen(eq=False)
class Sent:
    """A request that a node answers now; its lease and its place there last until `close`."""

    attempt: Attempt
    incoming: Incoming
    response: Head
    num_bytes: int  # that went there
    close: Callable[[], None]


def question(model: str, asked: OpaqueRequest, trace: Trace) -> Question:
    content_type, body = asked.write(model)
    headers = [("content-type", content_type), *origin_headers("", "openai", trace)]
    return Question(
        asked.path,
        headers,
        body,
        head_seconds=HEAD_SECONDS,
        silence_seconds=SILENCE_SECONDS,
    )


async def accepted(name: str, incoming: Incoming) -> Head:
    response = await incoming.head()
    assert response is not None
    if response.status == 200:
        return response
    body = b""
    while (piece := await incoming.piece()) and len(body) < MOST_ERROR_BYTES:
        body += piece
    raise answer_error(name, "openai", Whole(response.status, response.headers, body), passes=True)


@define(eq=False)
class OpaqueAnswer:
    """An answer on its way, and what it costs: what it says of that, else about what was sent."""

    _sent: Sent
    _reservation: Reservation
    _trace: Trace
    _about: int
    _exits: ExitStack
    _read: list[bytes] = field(factory=list, init=False)
    _num_read: int = field(default=0, init=False)

    @property
    def response(self) -> Head:
        return self._sent.response

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes; UpstreamError where it is cut off."""
        try:
            while piece := await self._sent.incoming.piece():
                self._keep(piece)
                yield piece
        except HelexaError as error:
            self._sent.attempt.failed(error)
            raise
        self._sent.attempt.ended()
        self._trace.usage = self._usage()
        self._trace.end("stop")

    def close(self) -> None:
        """Gives back all that the request held, however it ended."""
        self._reservation.settle(used_of(self._trace.usage or Usage(self._about, 0)))
        self._exits.close()

    def _keep(self, piece: bytes) -> None:
        self._num_read += len(piece)
        if self._num_read > MOST_METERED_BYTES:
            self._read.clear()
        else:
            self._read.append(piece)

    def _usage(self) -> Usage:
        is_json = self.response.header("content-type").startswith("application/json")
        found = read_usage(b"".join(self._read)) if is_json and self._read else Usage(0, 0)
        most = self._sent.num_bytes + self._num_read + TOKENS_WITHOUT_BYTES
        told = found.prompt_tokens + found.completion_tokens
        return found if 0 < told <= most else Usage(self._about, 0)


def read_usage(body: bytes) -> Usage:
    """Every kind of answer has words of its own for it; 0 where there are none."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Usage(0, 0)
    usage = Told(answer if isinstance(answer, dict) else {}).object("usage")
    taken = next((count for name in TAKEN if (count := usage.count(name, MOST_TOKENS))), 0)
    given = next((count for name in GIVEN if (count := usage.count(name, MOST_TOKENS))), 0)
    taken = taken or max(0, usage.count("total_tokens", MOST_TOKENS) - given)
    return Usage(taken, given)
