"""No request hides behind another: not from the listener, and not from it and a proxy before it."""

import shutil
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from http_peer import Start
from quart import Response, request
from quart_trio import QuartTrio
from smuggling import AMBIGUOUS, BYE, PLAIN, POST, TWICE

from helexa.http.application import configure
from helexa.http.call import take_body
from helexa.http.stream import json_response

SECONDS = 20  # far more than an answer takes
NGINX = shutil.which("nginx")
CONFIG = """
daemon off; master_process off; pid {directory}/pid; error_log stderr crit;
events {{}}
http {{
  access_log off;
  client_body_temp_path {directory}; proxy_temp_path {directory};
  upstream helexa {{ server 127.0.0.1:{inner}; keepalive 4; }}
  server {{
    listen 127.0.0.1:{outer};
    location / {{
      proxy_pass http://helexa; proxy_http_version 1.1; proxy_buffering off;
      proxy_set_header Connection ""; proxy_set_header Host localhost;
      proxy_set_header X-Helexa-Account-Id ""; proxy_set_header X-Helexa-Key-Id "";
    }}
  }}
}}
"""


def make_app(reached: list[str]) -> QuartTrio:
    app = QuartTrio("test")
    configure(app)

    async def note() -> Response:
        await take_body(request)
        reached.append(request.path)
        return json_response(b'"told"')

    for path in ("/seen", "/hidden", "/bye"):
        app.route(path, endpoint=path, methods=["GET", "POST"])(note)
    return app


class Sides:
    """A port to send to, and the paths that the application was reached at."""

    def __init__(self, port: int, reached: list[str]) -> None:
        self.port = port
        self.reached = reached

    async def answer(self, raw: bytes) -> bytes:
        """All that comes back until the connection ends."""
        with trio.fail_after(SECONDS):
            return await self._answer(raw)

    async def _answer(self, raw: bytes) -> bytes:
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all(raw)
            answer = b""
            try:
                while data := await stream.receive_some():
                    answer += data
            except trio.BrokenResourceError:
                pass
            return answer


@asynccontextmanager
async def direct(start: Start, directory: Path) -> AsyncGenerator[Sides, None]:
    reached: list[str] = []
    served = await start(make_app(reached))
    yield Sides(served.port, reached)


@asynccontextmanager
async def behind_nginx(start: Start, directory: Path) -> AsyncGenerator[Sides, None]:
    async with direct(start, directory) as sides, trio.open_nursery() as nursery:
        outer = free_port()
        config = directory / "nginx.conf"
        config.write_text(CONFIG.format(directory=directory, inner=sides.port, outer=outer))
        command = [NGINX or "nginx", "-p", str(directory), "-c", str(config)]
        process: Any = await nursery.start(partial(trio.run_process, command, check=False))
        await answers(outer)
        yield Sides(outer, sides.reached)
        process.terminate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def answers(port: int) -> None:
    with trio.fail_after(10):
        while True:
            try:
                return await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
            except OSError:
                await trio.lowlevel.checkpoint()


WAYS: dict[str, Any] = {"direct": direct} | ({"nginx": behind_nginx} if NGINX else {})
Open = Callable[..., AbstractAsyncContextManager[Sides]]
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())


@ways
@pytest.mark.parametrize("raw", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
async def test_what_can_be_read_in_two_ways_is_refused_and_the_connection_ends(
    start: Start, tmp_path: Path, way: Open, raw: bytes
) -> None:
    async with way(start, tmp_path) as sides:
        answer = await sides.answer(raw)
        assert "/hidden" not in sides.reached
        if way is direct:
            assert answer.startswith(b"HTTP/1.1 4")
            assert answer.count(b"HTTP/1.1 ") == 1
            assert not sides.reached


@pytest.mark.parametrize("lines", TWICE.values(), ids=TWICE.keys())
async def test_a_header_that_says_who_asks_comes_once(
    start: Start, tmp_path: Path, lines: tuple[bytes, ...]
) -> None:
    async with direct(start, tmp_path) as sides:
        head = POST + b"\r\n".join([*lines, b"Content-Length: 2", b"", b"{}"])
        assert (await sides.answer(head + BYE)).startswith(b"HTTP/1.1 400 ")
        assert "/seen" not in sides.reached


@ways
@pytest.mark.parametrize(("raw", "is_second"), PLAIN.values(), ids=PLAIN.keys())
async def test_what_can_be_read_in_one_way_is_read_so(
    start: Start, tmp_path: Path, way: Open, raw: bytes, is_second: bool
) -> None:
    async with way(start, tmp_path) as sides:
        answer = await sides.answer(raw + BYE)
        assert sides.reached == ["/seen", *["/hidden"] * is_second, "/bye"]
        assert answer.count(b"HTTP/1.1 200 ") == 2 + is_second
