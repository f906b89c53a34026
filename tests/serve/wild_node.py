"""A node that says it has a model and then goes wrong, in the way that a test tells it to."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Literal

from attrs import define, field

# down      no request is answered         garbage   its answers are no answers
# mad       it tells nonsense of itself    drips     its answers come byte by byte
# endless   its streams never end
Mode = Literal["down", "mad", "garbage", "drips", "endless", "well"]

MODEL = {"id": "ant", "harness": "script", "status": "loaded", "devices": [0], "vram_used_mb": 9}
DEVICE = {"index": 0, "name": "wild", "vram_total_mb": 4000, "compute_capability": None}
TOLD = {
    "/health": {
        "uptime_secs": 9,
        "devices": [{"index": 0, "vram_used_mb": 9, "vram_free_mb": 3991}],
        "activation": {"state": "ready"},
        "models": [{"id": "ant", "in_flight": 0, "queue_depth": 0, "width": 8}],
    },
    "/models": [MODEL],
    "/discovery": {"hostname": "wild", "devices": [DEVICE], "harnesses": ["script"]},
    "/version": {"package_version": "0.1.0", "python_version": "3.11"},
}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "ant",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "From the wild."},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
}
CHUNK = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "ant",
    "choices": [{"index": 0, "delta": {"content": "still "}, "finish_reason": None}],
}


@define(eq=False)
class WildNode:
    """`num_answers` were begun, of which `num_open` are under way."""

    mode: Mode = "down"
    port: int = 0
    num_answers: int = 0
    num_open: int = 0
    is_over: Event = field(factory=Event)


@contextmanager
def wild_node() -> Iterator[WildNode]:
    wild = WildNode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            return

        def do_GET(self) -> None:
            if wild.mode == "down" or self.path not in TOLD:
                self.close_connection = True
            elif wild.mode == "mad":
                self.send(b"\x00\xff{{{")
            else:
                self.send(json.dumps(TOLD[self.path]).encode())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if wild.mode in ("down", "mad"):
                self.close_connection = True
                return
            wild.num_answers += 1
            wild.num_open += 1
            try:
                self.answer()
            except OSError:
                self.close_connection = True  # the gateway left
            finally:
                wild.num_open -= 1

        def answer(self) -> None:
            if wild.mode == "garbage":
                self.send(b"<html>\xff\xfe no answer", "text/html")
            elif wild.mode == "endless":
                self.never_end()
            else:
                self.send(json.dumps(ANSWER).encode(), drips=wild.mode == "drips")

        def never_end(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            while not wild.is_over.wait(0.01):
                self.wfile.write(b"data: " + json.dumps(CHUNK).encode() + b"\n\n")

        def send(self, data: bytes, kind: str = "application/json", *, drips: bool = False) -> None:
            self.send_response(200)
            for name, value in {"Content-Type": kind, "Content-Length": len(data)}.items():
                self.send_header(name, str(value))
            self.end_headers()
            step = 1 if drips else len(data)
            for start in range(0, len(data), step):
                self.wfile.write(data[start : start + step])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    wild.port = server.server_port
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield wild
    finally:
        wild.is_over.set()
        server.shutdown()
        thread.join()
        server.server_close()
