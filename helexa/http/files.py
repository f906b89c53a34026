"""What other nodes fetch from this one: the files of the models in its store, as they were added."""

import os
from collections.abc import AsyncGenerator, Sequence
from typing import Any, BinaryIO

import trio
from attrs import define, field
from quart import Response, request
from quart_trio import QuartTrio
from quart_trio.wrappers import TrioResponse

from helexa.errors import (
    Busy,
    ModelNotFound,
    NotFound,
    PreconditionFailed,
    RangeNotSatisfiable,
)
from helexa.host import Host
from helexa.http.call import Call, call_of
from helexa.http.stream import json
from helexa.http.trusted import check_trusted
from helexa.loads import Loads, LoadSpec
from helexa.store.record import Manifest, StoredFile

MOST_SENT = 8  # files on their way at once; each keeps a thread busy while it is read
RETRY_AFTER_SECONDS = 10.0
CHUNK_BYTES = 1 << 20


def add_files(app: QuartTrio, host: Host, loads: Loads, peers: Sequence[str]) -> None:
    """`peers` are addresses that are trusted where the listener has no token."""
    files = Files(host, loads, tuple(peers))

    @app.get("/models/<path:name>/files")
    async def listing(name: str) -> Response:
        return json(await files.listing(name))

    @app.get("/models/<path:name>/files/<file>")
    async def content(name: str, file: str) -> Response:
        return await files.content(name, file)


@define(eq=False)
class Files:
    _host: Host
    _loads: Loads
    _peers: tuple[str, ...]
    _sent: trio.CapacityLimiter = field(init=False)

    @_sent.default
    def _make_sent(self) -> trio.CapacityLimiter:
        return trio.CapacityLimiter(MOST_SENT)

    async def listing(self, name: str) -> dict[str, Any]:
        manifest = await self._manifest(name)
        files = [
            {"name": name, "bytes": file.bytes, "sha256": file.sha256}
            for name, file in manifest.files.items()
        ]
        return {"source": manifest.source, "files": files}

    async def content(self, name: str, file: str) -> Response:
        """One file, or what is left of it from the first byte of a `Range`."""
        manifest = await self._manifest(name)
        found = manifest.files.get(file)
        if found is None:
            raise NotFound(f"Model {name[:200]!r} has no file {file[:200]!r}.", param="file")
        check_match(request.headers.get("if-match"), found)
        begin = first_byte(request.headers.get("range"), found.bytes)
        stream = await self._opened(call_of(request), manifest, file)
        response = TrioResponse(
            pieces(stream, begin, found.bytes),
            206 if begin else 200,
            content_type="application/octet-stream",
        )
        response.headers["content-length"] = str(found.bytes - begin)
        response.headers["etag"] = etag(found)
        response.headers["accept-ranges"] = "bytes"
        if begin:
            last = found.bytes - 1
            response.headers["content-range"] = f"bytes {begin}-{last}/{found.bytes}"
        return response

    async def _manifest(self, name: str) -> Manifest:
        check_trusted(request, self._peers)
        entry = await self._loads.entry_for(LoadSpec(name))
        if entry.is_script:
            raise ModelNotFound(f"Model {entry.id} is a script: it has no files of its own.")
        manifest = await self._host.library.manifest(entry)
        if manifest is None:
            raise ModelNotFound(f"The store of this node does not have the files of {entry.id}.")
        return manifest

    async def _opened(self, call: Call, manifest: Manifest, name: str) -> BinaryIO:
        """Closed, and its place given back, when the request ends."""
        try:
            self._sent.acquire_on_behalf_of_nowait(call)
        except trio.WouldBlock:
            raise Busy(
                f"This node sends {MOST_SENT} files already.", retry_after=RETRY_AFTER_SECONDS
            ) from None
        call.exits.callback(self._sent.release_on_behalf_of, call)
        stream = await trio.to_thread.run_sync(manifest.open, name)
        call.exits.callback(stream.close)
        return stream


async def pieces(stream: BinaryIO, begin: int, end: int) -> AsyncGenerator[bytes, None]:
    """The bytes from `begin` to `end`; fewer where the file was cut meanwhile."""
    while begin < end:
        wanted = min(CHUNK_BYTES, end - begin)
        piece = await trio.to_thread.run_sync(os.pread, stream.fileno(), wanted, begin)
        if not piece:
            return
        begin += len(piece)
        yield piece


def first_byte(header: str | None, size: int) -> int:
    """Of `bytes=N-`; any other range may be answered with all of the file, and is."""
    unit, _, span = (header or "").partition("=")
    begin, dash, end = span.partition("-")
    if unit.strip() != "bytes" or not dash or end.strip() or not begin.strip().isdecimal():
        return 0
    if int(begin) >= size:
        raise RangeNotSatisfiable(f"The file ends after {size} bytes.")
    return int(begin)


def check_match(header: str | None, file: StoredFile) -> None:
    wanted = [tag.strip() for tag in (header or "*").split(",")]
    if not {"*", etag(file)} & set(wanted):
        raise PreconditionFailed("The file is not the one that was listed.")


def etag(file: StoredFile) -> str:
    return f'"{file.sha256}"'
