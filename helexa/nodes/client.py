"""HTTP to one node: its pool of connections, its token, limits on all that comes back."""

from typing import Self

import trio
from attrs import field, frozen

from helexa import logs
from helexa.config.schema import RemoteNode
from helexa.errors import UpstreamMalformed
from helexa.nodes.connection import Pool, place_of
from helexa.nodes.endpoint import base_url, is_in_clear, own_headers, tls_context
from helexa.nodes.framing import Head, Headers
from helexa.nodes.incoming import Incoming, Question
from helexa.nodes.port import NodeLost

log = logs.get("helexa.fleet")

ANSWER_SECONDS = 10.0  # for a whole answer that is not a model's
MOST_BYTES = 8_000_000  # of such an answer


@frozen(eq=False)
class Whole(Head):
    """An answer that was read to its end."""

    body: bytes = field(repr=False)


class Client:
    """One node's.  Close it when the node is not needed any more, as a context manager does.

    Neither the environment (proxies) nor cookies nor redirects have a say in where a request goes:
    each is sent to `endpoint` + path as it is given, with the node's own token.
    """

    def __init__(self, node: RemoteNode) -> None:
        self.node = node
        self.name = node.name
        self.endpoint = base_url(node)
        self._place = place_of(self.endpoint)
        self._own = own_headers(node.token)
        if node.token and is_in_clear(self.endpoint):
            log.warning("token sent in clear: use https", node=self.name, endpoint=self.endpoint)
        self._pool = Pool(tls_context(node))
        self.unheard_since: float | None = (
            None  # of whole answers, on Trio's clock; None if one came last
        )

    def close(self) -> None:
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, question: Question) -> Incoming:
        """Nothing is sent before its head is waited for; `close` it."""
        is_own = question.endpoint in ("", self.endpoint)
        place = self._place if is_own else place_of(question.endpoint)
        headers = [("host", place.authority), *question.headers, *self._own]
        request = written(question.method, place.base + question.path, headers, question.body)
        return Incoming(
            self.name,
            self._pool,
            place,
            request,
            question.head_seconds,
            question.silence_seconds,
        )

    async def fetch(
        self,
        method: str,
        path: str,
        headers: Headers = (),
        body: bytes = b"",
        *,
        seconds: float = ANSWER_SECONDS,
        most_bytes: int = MOST_BYTES,
    ) -> Whole:
        """A whole answer within `seconds`; else NodeLost.  UpstreamMalformed where it is too large."""
        try:
            whole = await self._fetch(
                Question(path, headers, body, method=method), seconds, most_bytes
            )
        except NodeLost:
            self.unheard_since = self.unheard_since or trio.current_time()
            raise
        self.unheard_since = None
        return whole

    async def _fetch(self, question: Question, seconds: float, most_bytes: int) -> Whole:
        incoming = self.ask(question)
        try:
            with trio.move_on_after(seconds):
                return await self._whole(incoming, most_bytes)
        finally:
            incoming.close()
        raise NodeLost(f"node {self.name} has not answered within {seconds:.0f} s")

    async def _whole(self, incoming: Incoming, most_bytes: int) -> Whole:
        head = await incoming.head()
        assert head is not None
        body = bytearray()
        while piece := await incoming.piece():
            body += piece
            if len(body) > most_bytes:
                raise UpstreamMalformed(
                    f"node {self.name} tells more than {most_bytes // 10**6} MB"
                )
        return Whole(head.status, head.headers, bytes(body))


def written(method: str, target: str, headers: Headers, body: bytes) -> bytes:
    """A whole request.  ValueError where a header would end before its line does."""
    framing = [] if method == "GET" else [("content-length", str(len(body)))]
    lines = [f"{name}: {value}" for name, value in (*framing, *headers)]
    head = "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""])
    if {head.count("\r"), head.count("\n")} != {len(lines) + 2} or "\0" in head or " " in target:
        raise ValueError("a header of this request is malformed")
    return head.encode("latin-1", "replace") + body
