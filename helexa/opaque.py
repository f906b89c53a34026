"""Requests of OpenAI's API that are passed on unread but for their model: to servers that know them.

Embeddings, reranking, audio and images: nothing of the kind runs here, so `openai` nodes answer.
"""

import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

import orjson
from attrs import define, field, frozen

from helexa.accounts.keys import Key
from helexa.accounts.provider import Budgets, Reservation, Wanted
from helexa.charge import about_tokens, prices_of, used_of
from helexa.conversation import Usage
from helexa.errors import ModelNotFound
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.view import NodeView
from helexa.gateway import check_allowed
from helexa.nodes.client import Response, Whole
from helexa.nodes.headers import origin_headers
from helexa.nodes.incoming import Incoming, Question
from helexa.nodes.port import NodeLost
from helexa.nodes.refused import refused
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


@frozen(eq=False)
class Opaque:
    """`ports` are those of `openai` nodes; `views` are the nodes as they were seen last."""

    resolve: Callable[[str], CatalogueModel]
    views: Callable[[], Sequence[NodeView]]
    ports: Mapping[str, UpstreamPort]
    budgets: Budgets

    async def ask(self, asked: OpaqueRequest, trace: Trace) -> "OpaqueAnswer":
        """The answer once its head is there; `close` it.  Raises a HelexaError for what is refused."""
        entry = self.resolve(asked.model)
        trace.model = entry.id
        check_allowed(asked.key, entry)
        names = self._names(entry, asked)
        about = about_tokens(asked.num_bytes)
        wanted = Wanted(
            trace.principal, trace.request_id, entry.id, about, 0, 1, False, prices_of(entry)
        )
        reservation = await self.budgets.reserve(wanted)
        try:
            incoming, response = await self._first_of(names, entry.id, asked, trace)
        except BaseException:
            reservation.release()
            raise
        return OpaqueAnswer(response, incoming, reservation, trace, about)

    def _names(self, entry: CatalogueModel, asked: OpaqueRequest) -> list[str]:
        """The nodes that may be asked, those with the fewest requests first."""
        found = [
            (model.in_flight + model.queue_depth, view.name)
            for view in self.views()
            if view.up and view.name in self.ports and (model := view.model(entry.id))
        ]
        if not found:
            raise ModelNotFound(
                f"Model {entry.id} is on no server that {asked.path} could be passed on to: "
                "only nodes of kind `openai` take it.",
                param="model",
            )
        return [name for _, name in sorted(found)]

    async def _first_of(
        self, names: Sequence[str], model: str, asked: OpaqueRequest, trace: Trace
    ) -> tuple[Incoming, Response]:
        """The first answer of a node that is there."""
        lost: NodeLost | None = None
        for name in names:
            incoming = Incoming(self.ports[name].client, question(model, asked, trace))
            try:
                response = await accepted(name, incoming)
            except NodeLost as error:
                incoming.close()
                trace.note(error.message)
                lost = error
            except BaseException:
                incoming.close()
                raise
            else:
                trace.node = name
                return incoming, response
        assert lost is not None
        raise lost


def question(model: str, asked: OpaqueRequest, trace: Trace) -> Question:
    content_type, body = asked.write(model)
    headers = [("content-type", content_type), *origin_headers("", "openai", trace)]
    return Question(asked.path, headers, body, "", HEAD_SECONDS, SILENCE_SECONDS)


async def accepted(name: str, incoming: Incoming) -> Response:
    response = await incoming.head(math.inf)
    assert response is not None
    if response.status == 200:
        return response
    body = b""
    while (piece := await incoming.piece(math.inf)) and len(body) < MOST_ERROR_BYTES:
        body += piece
    raise refused(name, "openai", Whole(response.status, response.headers, body), passes=True)


@define(eq=False)
class OpaqueAnswer:
    """An answer on its way, and what it costs: what it says of that, else about what was sent."""

    response: Response
    _incoming: Incoming
    _reservation: Reservation
    _trace: Trace
    _about: int
    _read: list[bytes] = field(factory=list, init=False)
    _num_read: int = field(default=0, init=False)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes; UpstreamError where it is cut off."""
        while piece := await self._incoming.piece(math.inf):
            self._keep(piece)
            yield piece
        self._trace.usage = self._usage()
        self._trace.end("stop")

    def close(self) -> None:
        """Gives back all that the request held, however it ended."""
        self._incoming.close()
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
