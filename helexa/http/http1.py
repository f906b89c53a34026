"""HTTP/1.1 on one connection: hypercorn's protocol, less what it does not survive.

No other protocol is spoken: an upgrade to WebSocket is refused, one to HTTP/2 ignored.  What the
parser refuses is told in the error envelope, and the connection closes.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import h11
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Body, Response
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.typing import AppWrapper, ConnectionState, TaskGroup, WorkerContext

from helexa.errors import HeadersTooLarge, HelexaError, InvalidRequest, UpgradeRefused
from helexa.http.call import new_request_id
from helexa.wire.envelope import Shape, shape_of, status_and_body

Address = tuple[str, int] | None

FRAMING = (b"content-length", b"transfer-encoding")


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
        task_group: TaskGroup,
        state: ConnectionState,
        addresses: tuple[Address, Address],
        is_secure: bool,
        send: Callable[[Event], Awaitable[None]],
        max_headers: int,
        on_refused: Callable[[HelexaError, str], None],
    ) -> None:
        super().__init__(app, config, context, task_group, state, is_secure, *addresses, send)
        self.connection: PatientConnection = PatientConnection(
            h11.SERVER, max_incomplete_event_size=config.h11_max_incomplete_size
        )
        self._max_headers = max_headers
        self._max_header_bytes = config.h11_max_incomplete_size
        self._on_refused = on_refused
        self._shape: Shape = "openai"  # that the latest request of this client asked for
        self._unsent_head = b""
        self._is_chunked = False  # the response in hand

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

    async def invite_body(self) -> None:
        """Send `100 Continue` if the client waits for it."""
        if self.connection.client_is_waiting_for_100_continue:
            await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=[]))

    async def refuse(self, error: HelexaError) -> None:
        """Answer a request that never became one, and close."""
        self._on_refused(error, request_id := new_request_id())
        status, headers, body = status_and_body(error, request_id, self._shape)
        headers += [
            ("content-length", str(len(body))),
            ("x-request-id", request_id),
            ("connection", "close, upgrade" if status == 426 else "close"),
        ]
        if status == 426:  # RFC 9110, 15.5.22: it names what is spoken
            headers.append(("upgrade", "HTTP/1.1"))
        await self._send_h11_event(h11.Response(status_code=status, headers=headers))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())
        await self.send(Closed())

    # -- hypercorn's seams --------------------------------------------------------------------------

    async def _check_protocol(self, event: h11.Request) -> None:
        """Runs on every request before the application hears of it."""
        self._shape = asked_shape(event)
        if len(event.headers) > self._max_headers:
            raise HeadersTooLarge(
                f"A request may carry {self._max_headers} headers, this has more."
            )
        if sum(len(name) + len(value) for name, value in event.headers) > self._max_header_bytes:
            raise head_too_large()  # it came in one piece, so that the parser held none of it
        check_framing([name for name, _ in event.headers])
        if event.http_version not in (b"1.0", b"1.1"):
            raise InvalidRequest("This server speaks HTTP/1.1.")
        if any(
            name == b"upgrade" and value.strip().lower() == b"websocket"
            for name, value in event.headers
        ):
            raise UpgradeRefused(
                "This server speaks no WebSocket: send a POST to the same path, with stream: true for "
                "events."
            )

    async def _send_error_response(self, status_code: int) -> None:
        """Called where the parser gives up; any 501 there is about a client's mistake, too."""
        if status_code == 431:
            raise head_too_large()
        raise InvalidRequest("The request is not well-formed HTTP/1.1.")

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, Response) and self._is_last_response():
            event.headers.append((b"connection", b"close"))
        if isinstance(event, Body) and self._is_chunked:
            await self._send_chunk(bytes(event.data))
        else:
            await super().stream_send(event)

    async def _send_chunk(self, data: bytes) -> None:
        """A piece of a stream as RFC 9112, 7.1 frames it; the parser need not see it to end the stream."""
        if data and self.connection.our_state is h11.SEND_BODY:
            await self.send(RawData(b"%x\r\n%b\r\n" % (len(data), data)))

    def _is_last_response(self) -> bool:
        """A response that comes before the end of its request, or while draining, is the last."""
        return self.context.terminated.is_set() or self.connection.their_state is h11.SEND_BODY

    async def _send_h11_event(self, event: Any) -> None:
        """The head of a response of known length goes out together with its body."""
        try:
            data = self.connection.send(event)
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            return
        if isinstance(event, h11.Response):
            self._is_chunked = b"\r\ntransfer-encoding: chunked\r\n" in data.lower()
            if has_length(event):
                self._unsent_head = data
                return
        if self._unsent_head:
            data, self._unsent_head = self._unsent_head + data, b""
        await self.send(RawData(data))


def head_too_large() -> HelexaError:
    return HeadersTooLarge("The head of the request has more bytes than this server takes.")


def asked_shape(event: h11.Request) -> Shape:
    version = dict(event.headers).get(b"anthropic-version")
    path = event.target.partition(b"?")[0].decode("latin-1")
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


def has_length(response: h11.Response) -> bool:
    return any(name == b"content-length" for name, _ in response.headers)
