"""A hub on loopback that serves a few files over the routes that huggingface_hub asks."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

from attrs import Factory, define

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".gguf")


@define
class Hub:
    """What the hub serves, how it fails, and what it was asked."""

    files: dict[str, bytes]
    repo: str = "org/toy"
    commit: str = COMMIT
    error: tuple[int, str] | None = None  # every answer: status and X-Error-Code
    token: str | None = None  # asked for, if set
    cut: dict[str, list[int]] = Factory(dict)  # file -> bytes after which the next GETs break off
    ranges: bool = True  # whether parts of files are served
    claimed: dict[str, str] = Factory(dict)  # file -> a SHA-256 that is not its own
    listed: dict[str, int] = Factory(dict)  # file -> a size that is not its own
    url: str = ""
    asked: list[str] = Factory(list)  # "GET name" or "GET name from-byte"

    def sha256(self, name: str) -> str:
        return self.claimed.get(name) or hashlib.sha256(self.files[name]).hexdigest()

    def downloads(self) -> list[str]:
        return [line for line in self.asked if line.startswith("GET ") and "/api/" not in line]

    def listing(self) -> dict[str, object]:
        siblings = []
        for name, data in self.files.items():
            entry: dict[str, object] = {
                "rfilename": name,
                "size": self.listed.get(name, len(data)),
                "blobId": "b",
            }
            if name.endswith(LARGE):
                entry["lfs"] = {"sha256": self.sha256(name), "size": len(data), "pointerSize": 1}
            siblings.append(entry)
        return {"id": self.repo, "sha": self.commit, "siblings": siblings, "tags": []}


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            return

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            if hub.error:
                return self.fail(*hub.error)
            if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                return self.fail(401, "GatedRepo")
            if path.startswith(f"/api/models/{hub.repo}"):
                hub.asked.append(f"GET {path}")
                return self.send(200, json.dumps(hub.listing()).encode(), {}, body)
            found = re.fullmatch(rf"/{hub.repo}/resolve/([^/]+)/(.+)", path)
            if not found or found[2] not in hub.files:
                return self.fail(404, "EntryNotFound" if found else "RepoNotFound")
            return self.file(found[2], body)

        def file(self, name: str, body: bool) -> None:
            data = hub.files[name]
            start = (
                int(m[1]) if (m := re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))) else 0
            )
            if body:
                hub.asked.append(f"GET {name}" + (f" {start}" if start else ""))
            headers = {
                "ETag": f'"{hub.sha256(name)}"',
                "X-Repo-Commit": hub.commit,
                "X-Linked-Etag": f'"{hub.sha256(name)}"',
                "X-Linked-Size": str(len(data)),
                "Accept-Ranges": "bytes",
            }
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            cuts = hub.cut.get(name) if body else None
            cut = cuts.pop(0) if cuts else None
            return self.send(206 if start else 200, data[start:], headers, body, cut)

        def fail(self, status: int, code: str) -> None:
            self.send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code}, True)

        def send(
            self,
            status: int,
            data: bytes,
            headers: dict[str, str],
            body: bool,
            cut: int | None = None,
        ) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if not body:
                return
            try:
                self.wfile.write(data[:cut])
            except ConnectionError:
                self.close_connection = True
            if cut is not None:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
