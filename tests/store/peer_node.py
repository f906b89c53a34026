"""A node on loopback that gives its files to others, and fails as it is told to."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote

from attrs import Factory, define

TOKEN = "between-us"


@define
class PeerNode:
    """`files` are those of the model `org/toy`; `refuse` is what every GET of a file is answered with."""

    files: dict[str, bytes]
    cut: dict[str, list[int]] = Factory(dict)  # file -> bytes after which the next GETs break off
    ranges: bool = True
    claimed: dict[str, str] = Factory(dict)  # file -> a SHA-256 that is not its own
    listing: bytes | None = None  # in place of the true one
    refuse: tuple[int, str] | None = None
    redirect: str = ""
    url: str = ""
    asked: list[str] = Factory(list)  # "name" or "name from-byte"

    def sha256(self, name: str) -> str:
        return self.claimed.get(name) or hashlib.sha256(self.files[name]).hexdigest()

    def list_files(self) -> bytes:
        files = [
            {"name": name, "bytes": len(data), "sha256": self.sha256(name)}
            for name, data in self.files.items()
        ]
        return json.dumps({"source": "hf:org/toy", "files": files}).encode()


def envelope(message: str, code: str) -> bytes:
    return json.dumps({"error": {"message": message, "code": code}}).encode()


@contextmanager
def giving(node: PeerNode) -> Iterator[PeerNode]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            return

        def do_GET(self) -> None:
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                return self.send(401, envelope("no", "invalid_api_key"))
            if node.redirect:
                return self.send(302, b"", {"Location": node.redirect})
            model, _, name = self.path.removeprefix("/models/").partition("/files")
            if unquote(model) != "org/toy":
                return self.send(404, envelope("There is no such model.", "model_not_found"))
            if not name:
                return self.send(200, node.listing or node.list_files())
            self.file(unquote(name[1:]))

        def file(self, name: str) -> None:
            start = int(self.headers.get("Range", "bytes=0-")[6:-1])
            node.asked.append(f"{name} {start}" if start else name)
            if node.refuse:
                return self.send(node.refuse[0], envelope(node.refuse[1], "not_found"))
            if self.headers["If-Match"] != f'"{node.sha256(name)}"':
                return self.send(412, envelope("It is another file.", "precondition_failed"))
            data, start = node.files[name], start if node.ranges else 0
            cuts = node.cut.get(name)
            self.send(206 if start else 200, data[start:], cut=cuts.pop(0) if cuts else None)

        def send(
            self,
            status: int,
            data: bytes,
            headers: dict[str, Any] | None = None,
            cut: int | None = None,
        ) -> None:
            self.send_response(status)
            for key, value in {**(headers or {}), "Content-Length": len(data)}.items():
                self.send_header(key, str(value))
            self.end_headers()
            self.wfile.write(data[:cut])
            self.close_connection = self.close_connection or cut is not None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    node.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield node
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
