"""A Quart application whose routes tell what became of them."""

from collections.abc import AsyncGenerator

import trio
from attrs import define, field
from quart import Response, request
from quart_trio import QuartTrio

from helexa.errors import Busy
from helexa.http.application import configure
from helexa.http.call import call_of, take_body
from helexa.http.stream import json_response, sse_response


@define(eq=False)
class Seen:
    """What the routes did, for the test to read."""

    started: trio.Event = field(factory=trio.Event)
    ended: trio.Event = field(factory=trio.Event)
    go_on: trio.Event = field(factory=trio.Event)
    how: list[str] = field(factory=list)

    def end(self, how: str) -> None:
        self.how.append(how)
        self.ended.set()


def last_words(error: Exception) -> bytes:
    return f"data: {type(error).__name__}\n\n".encode()


def make_app() -> QuartTrio:
    app = QuartTrio("test")
    configure(app)
    seen = Seen()
    app.extensions["seen"] = seen

    @app.get("/hello")
    async def hello() -> Response:
        return json_response(b'{"hello":"world"}')

    @app.post("/echo")
    async def echo() -> Response:
        return json_response(await take_body(request), headers=[("x-echo", "1")])

    @app.post("/unread")
    async def unread() -> Response:
        return json_response(b'"not read"')

    @app.get("/wait")
    async def wait() -> Response:
        return await waiting(seen)

    @app.post("/wait")
    async def wait_with_body() -> Response:
        await take_body(request)
        return await waiting(seen)

    @app.get("/stream")
    async def stream() -> Response:
        return sse_response(ticks(seen), call_of(request), last_words)

    @app.get("/flood")
    async def flood() -> Response:
        return sse_response(flooding(seen), call_of(request), last_words)

    @app.get("/failing-stream/<kind>")
    async def failing_stream(kind: str) -> Response:
        return sse_response(failing(kind), call_of(request), last_words)

    @app.get("/bare-failing-stream")
    async def bare_failing_stream() -> Response:
        return Response(failing("bug"), content_type="text/event-stream")

    @app.get("/raise/<kind>")
    async def raising(kind: str) -> Response:
        raise Busy("There is a queue.", retry_after=1.2) if kind == "busy" else KeyError("secret")

    @app.get("/long/<int:seconds>")
    async def long(seconds: int) -> Response:
        return sse_response(slow_ticks(seconds), call_of(request), last_words)

    @app.get("/short")
    async def short() -> Response:
        return sse_response(slow_ticks(0), call_of(request), last_words)

    return app


async def waiting(seen: Seen) -> Response:
    seen.started.set()
    try:
        await seen.go_on.wait()
    except trio.Cancelled:
        seen.end("cancelled")
        raise
    seen.end("finished")
    return json_response(b'"finished"')


async def ticks(seen: Seen) -> AsyncGenerator[bytes, None]:
    """One event a second until told to stop."""
    try:
        number = 0
        while not seen.go_on.is_set():
            yield f"data: {number}\n\n".encode()
            seen.started.set()
            number += 1
            with trio.move_on_after(1):
                await seen.go_on.wait()
        yield b"data: done\n\n"
        seen.how.append("finished")
    finally:
        seen.end("closed")


async def slow_ticks(seconds: int) -> AsyncGenerator[bytes, None]:
    for passed in range(0, seconds, 10):
        yield f"data: {passed}\n\n".encode()
        await trio.sleep(10)
    yield b"data: done\n\n"


async def flooding(seen: Seen) -> AsyncGenerator[bytes, None]:
    """As much as the client takes."""
    seen.started.set()
    try:
        while True:
            yield b"data: " + b"x" * 8000 + b"\n\n"
    finally:
        seen.end("closed")


async def failing(kind: str) -> AsyncGenerator[bytes, None]:
    yield b"data: 0\n\n"
    raise Busy("no more") if kind == "expected" else KeyError("secret")
