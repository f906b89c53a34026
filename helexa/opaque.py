"""Requests of OpenAI's API that are passed on unread but for their model: to servers that know them.

Embeddings, reranking, audio and images: nothing of the kind runs here, so `openai` nodes answer.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Protocol

import orjson
import trio
from attrs import define, field, frozen

from helexa.accounts.keys import Key
from helexa.accounts.provider import Budgets, Reservation, Wanted
from helexa.actors.leases import Acquire, Outcome
from helexa.charge import about_tokens, prices_of, used_of
from helexa.conversation import Usage
from helexa.errors import HelexaError
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.routing import NoOther
from helexa.fleet.view import NodeKind
from helexa.gateway import MAX_TRIES, Attempt, Tries
from helexa.nodes.client import Whole
from helexa.nodes.framing import Head
from helexa.nodes.headers import origin_headers
from helexa.nodes.incoming import Incoming, Question
from helexa.nodes.refusals import answer_error
from helexa.nodes.told import Told
from helexa.nodes.upstream import UpstreamPort
from helexa.trace import Trace

HEAD_SECONDS = 3600.0
SILENCE_SECONDS = 900.0
MOST_METERED_BYTES = 8 * 2**20  # of an answer that is read for its usage
MOST_ERROR_BYTES = 2**20
MOST_TOKENS = 2**40
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
    ports: Mapping[str, UpstreamPort]
    budgets: Budgets

    async def ask(self, asked: OpaqueRequest, trace: Trace) -> "OpaqueAnswer":
        """The answer once its head is there; `close` it.  Raises a HelexaError for what is refused."""
        entry = self.resolve(asked.model)
        trace.model = entry.id
        asked.key.check_use(entry.names)
        about = about_tokens(asked.num_bytes)
        wanted = Wanted(
            trace.principal, trace.request_id, entry.id, about, 0, 1, False, prices_of(entry)
        )
        reservation = await self.budgets.reserve(wanted)
        try:
            sent = await self._answered(entry, asked, trace)
            try:
                await reservation.written()
            except BaseException:
                sent.close()
                raise
        except BaseException:
            reservation.release()
            raise
        return OpaqueAnswer(sent, reservation, trace, about)

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
        try:
            lease = await attempt.acquire.reply.wait()
            trace.note(lease.why)
            trace.node = attempt.node = lease.node
            attempt.sent_at = trio.current_time()
            incoming = self.ports[lease.node].client.ask(question(model, asked, trace))
            try:
                return Sent(attempt, incoming, await accepted(lease.node, incoming), self.fleet)
            except BaseException:
                incoming.close()
                raise
        except BaseException as error:
            if isinstance(error, HelexaError):
                attempt.failed(error)
            self.fleet.leave(attempt.acquire, attempt.outcome)
            raise


@frozen(eq=False)
class Sent:
    """A request that a node answers now; its lease lasts until `close`."""

    attempt: Attempt
    incoming: Incoming
    response: Head
    _fleet: Leasing

    def close(self) -> None:
        self.incoming.close()
        self._fleet.leave(self.attempt.acquire, self.attempt.outcome)


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
        self._sent.close()
        self._reservation.settle(used_of(self._trace.usage or Usage(self._about, 0)))

    def _keep(self, piece: bytes) -> None:
        self._num_read += len(piece)
        if self._num_read > MOST_METERED_BYTES:
            self._read.clear()
        else:
            self._read.append(piece)

    def _usage(self) -> Usage:
        is_json = self.response.header("content-type").startswith("application/json")
        found = read_usage(b"".join(self._read)) if is_json and self._read else None
        return found or Usage(self._about, 0)


def read_usage(body: bytes) -> Usage | None:
    """Every kind of answer has words of its own for it; None where there are none."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    usage = Told(answer if isinstance(answer, dict) else {}).object("usage")
    taken = next((count for name in TAKEN if (count := usage.count(name, MOST_TOKENS))), 0)
    given = next((count for name in GIVEN if (count := usage.count(name, MOST_TOKENS))), 0)
    taken = taken or max(0, usage.count("total_tokens", MOST_TOKENS) - given)
    return Usage(taken, given) if taken or given else None
