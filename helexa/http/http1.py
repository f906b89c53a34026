"""HTTP/1.1 on one connection: hypercorn's protocol, less what it does not survive.

No other protocol is spoken: an upgrade to WebSocket is refused, one to HTTP/2 ignored.  What the
parser refuses is told in the error envelope, and the connection closes.
"""

import time
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, cast
from urllib.parse import unquote
from wsgiref.handlers import format_date_time

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.typing import AppWrapper, ConnectionState, TaskGroup, WorkerContext

from helexa.errors import HeadersTooLarge, HelexaError, InvalidRequest, UpgradeRefused
from helexa.http.call import new_request_id
from helexa.http.run import Run
from helexa.wire.envelope import Shape, shape_of, status_and_body

Address = tuple[str, int] | None
Fields = list[tuple[bytes, bytes]]  # of a head

FRAMING = (b"content-length", b"transfer-encoding")
WITHOUT_BODY = (204, 304)


class PatientConnection(h11.Connection):
    """`100 Continue` waits until the application wants the body (see `Http1.invite_body`)."""

    @property
    def they_are_waiting_for_100_continue(self) -> bool:
        return False

    def next_event(self) -> Any:
        """The parser takes two lengths that are equal for one; somebody else may not."""
        if self.their_state is h11.IDLE and names_lengths(self.trailing_data[0]):
            raise h11.RemoteProtocolError("more than one Content-Length")
        return super().next_event()


class Http1(H11Protocol):
    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        nursery: trio.Nursery,
        state: ConnectionState,
        addresses: tuple[Address, Address],
        is_secure: bool,
        send: Callable[[Event], Awaitable[None]],
        max_headers: int,
        on_refused: Callable[[HelexaError, str], None],
    ) -> None:
        no_group = cast(TaskGroup, None)  # hypercorn's streams alone would need one
        super().__init__(app, config, context, no_group, state, is_secure, *addresses, send)
        self._nursery = nursery
        self.connection: PatientConnection = PatientConnection(
            h11.SERVER, max_incomplete_event_size=config.h11_max_incomplete_size
        )
        self._max_headers = max_headers
        self._max_header_bytes = config.h11_max_incomplete_size
        self._on_refused = on_refused
        self._shape: Shape = "openai"  # that the latest request of this client asked for
        self._is_head = False  # the request in hand
        self._is_chunked = False  # the response in hand
        self._has_body = True  # likewise
        self._unsent_head = b""  # likewise: one of known length goes out together with its body

    @property
    def is_cut(self) -> bool:
        """Whether a response has begun that will not be finished."""
        return self.connection.our_state in (h11.SEND_BODY, h11.ERROR)

    @property
    def expects_more(self) -> bool:
        """Whether the client may still be sending something that nobody will read."""
        return self.connection.their_state in (h11.SEND_BODY, h11.ERROR) or self.has_unread

    @property
    def has_unread(self) -> bool:
        return bool(self.connection.trailing_data[0])

    async def handle(self, event: Event) -> None:
        try:
            await super().handle(event)
        except HelexaError as error:
            await self.refuse(error)

    async def refuse(self, error: HelexaError) -> None:
        """Answer a request that never became one, and close."""
        self._on_refused(error, request_id := new_request_id())
        status, headers, body = status_and_body(error, request_id, self._shape)
        fields = [(name.encode(), value.encode()) for name, value in headers]
        fields += [
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close, upgrade" if status == 426 else b"close"),
        ]
        if status == 426:  # RFC 9110, 15.5.22: it names what is spoken
            fields.append((b"upgrade", b"HTTP/1.1"))
        await self._begin(status, fields)
        await self.go_on(body, is_last=True)
        await self.send(Closed())

    # -- what a run of the application calls ----------------------------------------------------------

    async def invite_body(self) -> None:
        """Send `100 Continue` if the client waits for it."""
        if self.connection.client_is_waiting_for_100_continue:
            await self.send(
                RawData(self._written(h11.InformationalResponse(status_code=100, headers=[])))
            )

    async def begin(self, status: int, headers: Fields) -> None:
        """Send the head of a response, or keep it until its body comes."""
        closing = [(b"connection", b"close")] if self._is_last_response() else []
        await self._begin(status, [*headers, *closing])

    async def go_on(self, data: bytes, *, is_last: bool) -> None:
        """Send more of the body, as it is framed."""
        framed = self._framed(data) if data and self._has_body else b""
        end = self._written(h11.EndOfMessage()) if is_last else b""
        if framed or is_last:
            head, self._unsent_head = self._unsent_head, b""
            await self.send(RawData(head + framed + end))

    async def _begin(self, status: int, headers: Fields) -> None:
        response = h11.Response(status_code=status, headers=[*headers, date_at(int(time.time()))])
        data = self._written(response)
        self._is_chunked = b"\r\ntransfer-encoding: chunked\r\n" in data.lower()
        self._has_body = not self._is_head and status not in WITHOUT_BODY
        if any(name == b"content-length" for name, _ in headers):
            self._unsent_head = data
        else:
            await self.send(RawData(data))

    def _framed(self, data: bytes) -> bytes:
        """A chunk as RFC 9112, 7.1 has it; the parser need not see it to end the stream."""
        if not self._is_chunked:
            return self._written(h11.Data(data=data))
        is_open = self.connection.our_state is h11.SEND_BODY
        return b"%x\r\n%b\r\n" % (len(data), data) if is_open else b""

    def _written(self, event: Any) -> bytes:
        """Nothing where the client's own mistake has ended the connection."""
        try:
            return self.connection.send(event) or b""
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            return b""

    def _is_last_response(self) -> bool:
        """A response that comes before the end of its request, or while draining, is the last."""
        return self.context.terminated.is_set() or self.connection.their_state is h11.SEND_BODY

    # -- hypercorn's seams --------------------------------------------------------------------------

    async def _check_protocol(self, event: h11.Request) -> None:
        """Runs on every request before the application hears of it."""
        headers = list(event.headers)
        self._shape, self._is_head = asked_shape(event.target, headers), event.method == b"HEAD"
        if len(headers) > self._max_headers:
            raise HeadersTooLarge(
                f"A request may carry {self._max_headers} headers, this has more."
            )
        if sum(len(name) + len(value) for name, value in headers) > self._max_header_bytes:
            raise head_too_large()  # it came in one piece, so that the parser held none of it
        check_framing([name for name, _ in headers])
        if event.http_version not in (b"1.0", b"1.1"):
            raise InvalidRequest("This server speaks HTTP/1.1.")
        if any(
            name == b"upgrade" and value.strip().lower() == b"websocket" for name, value in headers
        ):
            raise UpgradeRefused(
                "This server speaks no WebSocket: send a POST to the same path, with stream: true for "
                "events."
            )

    async def _create_stream(self, request: h11.Request) -> None:
        run = Run(self)
        self.stream = cast(HTTPStream, run)  # it is handled, and nothing else
        self._nursery.start_soon(run.run, self.app, self._scope_of(request, run))

    def _scope_of(self, request: h11.Request, run: Run) -> dict[str, Any]:
        """As ASGI has it."""
        path, _, query = request.target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "http_version": request.http_version.decode(),
            "method": request.method.decode().upper(),
            "scheme": "https" if self.ssl else "http",
            "path": unquote(path.decode()),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": list(request.headers),
            "client": self.client,
            "server": self.server,
            "state": {
                **self.connection_state,
                "leaving": run.leaving,
                "is_here": run.is_here,
            },
            "extensions": {},
        }

    async def _send_error_response(self, status_code: int) -> None:
        """Called where the parser gives up; any 501 there is about a client's mistake, too."""
        if status_code == 431:
            raise head_too_large()
        raise InvalidRequest("The request is not well-formed HTTP/1.1.")


def head_too_large() -> HelexaError:
    return HeadersTooLarge("The head of the request has more bytes than this server takes.")


def asked_shape(target: bytes, headers: Fields) -> Shape:
    version = dict(headers).get(b"anthropic-version")
    path = target.partition(b"?")[0].decode("latin-1")
    return shape_of(path, anthropic_version=None if version is None else version.decode("latin-1"))


def check_framing(names: list[bytes]) -> None:
    """Where a body may end in two places, nobody knows where the next request begins."""
    framing = [name for name in names if name.replace(b"_", b"-") in FRAMING]
    if len(framing) > 1 or any(name not in FRAMING for name in framing):
        raise InvalidRequest("Content-Length and Transfer-Encoding exclude each other.")


def names_lengths(data: bytes) -> bool:
    """Whether the head that `data` begin with, as far as it is there, names more than one length."""
    head = data.partition(b"\r\n\r\n")[0].partition(b"\n\n")[0].lower()
    lines = [line for line in head.split(b"\n") if line.startswith(b"content-length")]
    return len(lines) > 1 or any(b"," in line for line in lines)


@lru_cache(maxsize=1)
def date_at(unix_seconds: int) -> tuple[bytes, bytes]:
    return b"date", format_date_time(unix_seconds).encode()
