"""Responses: a JSON body at once, or an event stream that ends in words whatever happens."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from typing import Any

import orjson
from quart import Response
from quart_trio.wrappers import TrioResponse

from helexa import logs
from helexa.errors import HelexaError
from helexa.http.call import Call

Header = tuple[str, str]

log = logs.get("helexa.http")


def json(value: Any) -> Response:
    return json_response(orjson.dumps(value))


def json_response(body: bytes, status: int = 200, headers: Iterable[Header] = ()) -> Response:
    """`body` is JSON already."""
    response = TrioResponse(body, status, content_type="application/json")
    response.headers.extend(list(headers))
    return response


def sse_response(
    events: AsyncGenerator[bytes, None],
    call: Call,
    last_words: Callable[[Exception], bytes],
    headers: Iterable[Header] = (),
) -> Response:
    """A stream of server-sent events; each item of `events` is one write.

    An exception becomes `last_words`, the dialect's own error event and ending, and the response ends
    in good order.  `events` is closed when the request ends, even if the response never starts; it
    must hold no nursery and no cancel scope across a yield, and its `finally` must not wait.
    """
    call.exits.push_async_callback(events.aclose)
    response = TrioResponse(spoken(events, last_words), content_type="text/event-stream")
    response.headers.extend([("cache-control", "no-cache"), ("x-accel-buffering", "no"), *headers])
    return response


async def spoken(
    events: AsyncIterator[bytes], last_words: Callable[[Exception], bytes]
) -> AsyncGenerator[bytes, None]:
    """Quart wants a generator and may close it in a cancelled task: so there is no `finally` here."""
    try:
        async for event in events:
            yield event
    except Exception as error:
        if not isinstance(error, HelexaError):
            log.exception("a stream failed unexpectedly", error)
        yield last_words(error)
