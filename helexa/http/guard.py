"""The guard stands between a listener and its application: doors, body bounds, ids and errors."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import trio

from helexa import logs
from helexa.accounts.attempts import Attempts
from helexa.accounts.headers import rate_headers
from helexa.accounts.keys import Key
from helexa.accounts.provider import Budgets, Unmetered
from helexa.config.schema import Limits
from helexa.errors import HelexaError, TooManyAttempts, Unauthorized
from helexa.http.body import Body, Buffered
from helexa.http.call import App, Call, Receive, Scope, Send, new_request_id, plain_id
from helexa.http.doors import (
    MIB,
    TOLD_BY_GATEWAYS,
    Door,
    Head,
    Headers,
    Preflight,
    cors_headers,
    decide,
    secret_of,
)
from helexa.http.refusals import Refusals
from helexa.wire.envelope import shape_of, status_and_body

log = logs.get("helexa.http")

NOBODY = (Unauthorized, TooManyAttempts)  # who is told so is not even anonymous


class Guard:
    """An ASGI application around another.

    Nothing that escapes the inner one reaches the client but as the error envelope, or, when the
    response has begun, as a connection that is cut.  `budgets` knows the keys that the door takes, and
    what is left of theirs.
    """

    def __init__(
        self,
        app: App,
        door: Door,
        limits: Limits,
        refusals: Refusals,
        budgets: Budgets | None = None,
    ) -> None:
        self._app = app
        self._door = door
        self._budgets = budgets or Unmetered()
        self._attempts = Attempts()
        self._refusals = refusals
        self._max_body_bytes = int(limits.max_body_mb * MIB)
        self._idle_seconds = limits.idle_body_seconds
        self.buffered = Buffered(int(limits.max_buffered_mb * MIB))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        head = head_of(scope)
        is_here = scope["state"]["is_here"]
        body = Body(receive, self.buffered, self._max_body_bytes, self._idle_seconds, is_here)
        shape = shape_of(head.path, anthropic_version=head.text(b"anthropic-version"))
        client_id = plain_id(head.text(b"x-request-id"))
        call = Call(new_request_id(), client_id, body, by_name(head.headers), shape)
        logs.request_id.set(call.request_id)
        answer = Answer(send, partial(self._own_headers, head, call))
        try:
            await self._admit(scope, head, call, answer)
        except Exception as error:
            call.refusal = expected(error)
            if call.refusal is None:
                log.exception("a request failed unexpectedly", error)
            await answer.fail(call.refusal or error, call)
        finally:
            body.release()
            self._note_refusal(head, call)

    async def _admit(self, scope: Scope, head: Head, call: Call, answer: "Answer") -> None:
        found = await self._key_of(head)
        try:
            verdict = decide(head, self._door, self._max_body_bytes, found)
        except Unauthorized as error:
            raise self._attempted(head, call, error) from None
        if isinstance(verdict, Preflight):
            return await answer.whole(204, verdict.headers, b"")
        call.key, call.authenticated = verdict.key, verdict.authenticated
        scope["headers"] = [pair for pair in head.headers if pair[0] not in TOLD_BY_GATEWAYS]
        scope["state"]["call"] = call
        async with call.exits:
            await self._app(scope, call.body.receive, answer.send)

    async def _key_of(self, head: Head) -> Key | None:
        """The key that is shown, if one is."""
        secret = secret_of(head) if self._door.takes_keys else b""
        found = await self._budgets.resolve(secret) if secret else None
        if found is not None:
            wait = self._attempts.came(head.peer, found.principal, trio.current_time())
            if wait:
                raise too_many(wait)
        return found

    def _attempted(self, head: Head, call: Call, error: Unauthorized) -> HelexaError:
        """What is told of a key that is wrong; one that is missing was no attempt."""
        if not self._door.takes_keys or not secret_of(head):
            return error
        wait = self._attempts.failed(head.peer, trio.current_time())
        return too_many(wait) if wait else error

    def _own_headers(self, head: Head, call: Call) -> Headers:
        is_somebody = self._door.takes_keys and not isinstance(call.refusal, NOBODY)
        remaining = self._budgets.snapshot(call.principal) if is_somebody else None
        return (
            *id_headers(call),
            *cors_headers(head, self._door),
            *rate_headers(remaining, time.time()),
        )

    def _note_refusal(self, head: Head, call: Call) -> None:
        if call.refusal is not None and not call.recorded:
            if self._door.takes_keys:
                who = call.principal if call.authenticated else None
                self._budgets.refused(call.refusal, who, call.request_id, head.peer)
            self._refusals.note(
                call.refusal,
                call.request_id,
                head.peer,
                method=head.method,
                path=head.path,
                client_request_id=call.client_request_id,
            )


def too_many(wait: float) -> TooManyAttempts:
    return TooManyAttempts(
        "Too many wrong keys came from this address; wait a moment, and check the key.",
        retry_after=wait,
    )


def head_of(scope: Scope) -> Head:
    peer, server = scope["client"][0], scope["server"][0]
    return Head(scope["method"], scope["path"], scope["headers"], peer, server)


def by_name(headers: Headers) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(headers)}


def id_headers(call: Call) -> Headers:
    """The request's id, under the name where clients of its dialect look for it."""
    written = call.request_id.encode()
    own = ((b"x-request-id", written),)
    return (*own, (b"request-id", written)) if call.shape == "anthropic" else own


class Answer:
    """The way back to the client, with our headers, as of its beginning, on whatever response it is."""

    def __init__(self, send: Send, own_headers: Callable[[], Headers]) -> None:
        self._send = send
        self._own_headers = own_headers
        self._started = False

    async def send(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            message = {**message, "headers": [*message["headers"], *self._own_headers()]}
        await self._send(message)

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        if body:
            headers = [*headers, (b"content-length", str(len(body)).encode())]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def fail(self, error: Exception, call: Call) -> None:
        """Tell the client of `error`; if the response has begun, the server cuts it short."""
        if self._started:
            return
        status, headers, body = status_and_body(error, call.request_id, call.shape)
        await self.whole(status, [(name.encode(), value.encode()) for name, value in headers], body)


def expected(error: BaseException) -> HelexaError | None:
    """The expected failure in `error`, unless there is anything else in it."""
    if isinstance(error, HelexaError):
        return error
    if not isinstance(error, BaseExceptionGroup):
        return None
    found = [expected(inner) for inner in error.exceptions]
    return found[0] if all(found) else None
