"""HTTP to one node: its pool of connections, its token, limits on all that comes back."""

import socket
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Self
from urllib.parse import urlsplit

import httpcore2
import trio
from attrs import field, frozen

from helexa import __version__, logs
from helexa.config.schema import RemoteNode
from helexa.errors import UpstreamError, UpstreamMalformed
from helexa.http.address import is_loopback
from helexa.nodes.port import NodeLost
from helexa.nodes.reasons import reason

log = logs.get("helexa.fleet")

Headers = Sequence[tuple[str, str]]

TIMEOUTS = {"connect": 5.0, "write": 30.0}  # of each step; waiting is bounded by who asks
ANSWER_SECONDS = 10.0  # for a whole answer that is not a model's
MOST_BYTES = 8_000_000  # of such an answer
IDLE_SECONDS = 4.0  # below what servers keep an idle connection for: we are the one to close it
MAX_IDLE = 32
BROKEN = (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.RemoteProtocolError)


@frozen(eq=False)
class Head:
    """The beginning of an answer; names of headers are lower case."""

    status: int
    headers: Headers

    def header(self, name: str) -> str:
        """The first value of `name`, "" if it is not there."""
        return next((value for key, value in self.headers if key == name), "")


@frozen(eq=False)
class Response(Head):
    """An answer whose body is on its way, as it was sent.

    Close `body` (`contextlib.aclosing`); UpstreamLost where the node goes away in the middle of it.
    """

    body: AsyncGenerator[bytes, None]


@frozen(eq=False)
class Whole(Head):
    """An answer that was read to its end."""

    body: bytes = field(repr=False)


class Client:
    """One node's.  Close it when the node is not needed any more.

    Neither the environment (proxies) nor cookies nor redirects have a say in where a request goes:
    each is sent to `endpoint` + path as it is given, with the node's own token.  As a context manager
    it has `tasks`, a nursery for what reads answers beside whoever asked; they end with it.
    """

    def __init__(self, node: RemoteNode) -> None:
        self.node = node
        self.name = node.name
        self.endpoint = base_url(node)
        self._own = own_headers(node.token)
        if node.token and is_in_clear(self.endpoint):
            log.warning("token sent in clear: use https", node=self.name, endpoint=self.endpoint)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls_context(self.endpoint, node.tls_ca),
            max_connections=None,  # bounded by who asks: the listener's connections
            max_keepalive_connections=MAX_IDLE,
            keepalive_expiry=IDLE_SECONDS,
            socket_options=socket_options(),
        )

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True):
            await self._pool.aclose()

    async def __aenter__(self) -> Self:
        self._nursery = trio.open_nursery()
        self.tasks = await self._nursery.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.tasks.cancel_scope.cancel()
        try:
            await self._nursery.__aexit__(None, None, None)
        finally:
            await self.aclose()

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        headers: Headers = (),
        body: bytes = b"",
        *,
        head_seconds: float | None = None,
        silence_seconds: float | None = None,
        endpoint: str = "",
    ) -> AsyncGenerator[Response, None]:
        """Ask, and have the answer once its head is there; leaving closes what is left of it.

        `head_seconds` bounds the wait for the head, `silence_seconds` that for each piece of the body;
        None waits as long as the connection lives.  `endpoint` takes the place of the node's own.
        NodeLost until the head is there, UpstreamMalformed for one that cannot be used (a redirect, a
        packed body).
        """
        url, host = target(endpoint or self.endpoint, path)
        framing = [("host", host)]
        if method != "GET":
            framing.append(("content-length", str(len(body))))
        request = httpcore2.Request(
            method,
            url,
            headers=encoded([*framing, *headers, *self._own]),
            content=body,
            extensions={"timeout": TIMEOUTS},
        )
        response = await self._send(request, head_seconds)
        try:
            yield self._checked(response, silence_seconds)
        finally:
            with trio.CancelScope(shield=True):
                await response.aclose()

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
        with trio.move_on_after(seconds):
            async with self.stream(method, path, headers, body) as response:
                whole = await self._read(response, most_bytes)
                return Whole(response.status, response.headers, whole)
        raise NodeLost(f"node {self.name} has not answered within {seconds:.0f} s")

    async def _send(self, request: httpcore2.Request, seconds: float | None) -> httpcore2.Response:
        try:
            with trio.move_on_after(float("inf") if seconds is None else seconds):
                return await self._pool.handle_async_request(request)
        except BROKEN as error:
            raise NodeLost(f"node {self.name} cannot be reached: {reason(error)}") from None
        raise NodeLost(f"node {self.name} has not answered within {seconds:.0f} s")

    def _checked(self, response: httpcore2.Response, silence_seconds: float | None) -> Response:
        headers = [(k.decode().lower(), v.decode("latin-1")) for k, v in response.headers]
        found = Response(response.status, headers, self._pieces(response, silence_seconds))
        if found.status < 200:
            raise UpstreamMalformed(f"node {self.name} speaks no HTTP/1.1 any more")
        if 300 <= found.status < 400:
            raise UpstreamMalformed(
                f"node {self.name} redirects ({found.status}), which is never followed"
            )
        if found.header("content-encoding") not in ("", "identity"):
            raise UpstreamMalformed(f"node {self.name} packs its answers, unasked")
        return found

    async def _pieces(
        self, response: httpcore2.Response, silence_seconds: float | None
    ) -> AsyncGenerator[bytes, None]:
        longest = float("inf") if silence_seconds is None else silence_seconds
        try:
            async with aclosing(response.aiter_stream()) as pieces:
                while True:
                    with trio.fail_after(longest):
                        piece = await anext(pieces, None)
                    if piece is None:
                        return
                    yield piece
        except trio.TooSlowError:
            raise UpstreamLost(f"node {self.name} was silent for {longest:.0f} s") from None
        except BROKEN as error:
            raise UpstreamLost(f"node {self.name} went away: {reason(error)}") from None

    async def _read(self, response: Response, most_bytes: int) -> bytes:
        whole = bytearray()
        async with aclosing(response.body) as pieces:
            async for piece in pieces:
                whole += piece
                if len(whole) > most_bytes:
                    raise UpstreamMalformed(
                        f"node {self.name} tells more than {most_bytes // 10**6} MB"
                    )
        return bytes(whole)


class UpstreamLost(UpstreamError):
    """The node went away in the middle of its answer."""

    code = "upstream_connection_error"


def base_url(node: RemoteNode) -> str:
    """Without a last slash; OpenAI-style servers are often named with the /v1 that all paths have."""
    url = node.endpoint.rstrip("/")
    return url.removesuffix("/v1") if node.kind == "openai" else url


def is_in_clear(endpoint: str) -> bool:
    """Whether others on the way could read what is sent there."""
    parts = urlsplit(endpoint)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def target(endpoint: str, path: str) -> tuple[httpcore2.URL, str]:
    """The URL of `path` below an endpoint, and the Host header for it."""
    base = urlsplit(endpoint)
    url = httpcore2.URL(
        scheme=base.scheme, host=base.hostname or "", port=base.port, target=base.path + path
    )
    return url, base.netloc


def encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers]


def own_headers(token: str) -> list[tuple[str, str]]:
    own = [("user-agent", f"helexa/{__version__}"), ("accept-encoding", "identity")]
    return [*own, ("authorization", f"Bearer {token}")] if token else own


def tls_context(endpoint: str, ca_file: str) -> ssl.SSLContext:
    """Trusts the authorities in `ca_file` alone, without one those of this host."""
    if endpoint.startswith("https:"):
        return ssl.create_default_context(cafile=ca_file or None)
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # never used; the default one would be built


def socket_options() -> list[tuple[int, int, int]]:
    """A host that vanished without a word is noticed within half a minute, also where nothing is due."""
    wanted = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}
    return [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        *(
            (socket.IPPROTO_TCP, getattr(socket, name), value)
            for name, value in wanted.items()
            if hasattr(socket, name)
        ),
    ]
