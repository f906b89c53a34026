"""Models of other nodes of the fleet: listed and fetched from their own listeners."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from urllib.parse import quote, urlsplit

from attrs import frozen

from helexa import logs
from helexa.config.schema import Config, RemoteNode
from helexa.errors import StoreError, UpstreamMalformed
from helexa.nodes.endpoint import base_url, is_in_clear, own_headers, tls_context
from helexa.nodes.told import Told, parse_object
from helexa.store.assemble import Fetched
from helexa.store.downloads import SILENCE_SECONDS, EndedEarly
from helexa.store.failures import Unreachable, plain
from helexa.store.progress import Progress
from helexa.store.repository import fetch_checkpoint, fetch_gguf
from helexa.store.source import NodeSource, at_home, is_member
from helexa.store.space import Disk

CHUNK_BYTES = 1 << 20
MOST_BYTES = 8_000_000  # of a list of files, and of what is read of a refusal
SHA256 = re.compile(r"[0-9a-f]{64}")

log = logs.get("helexa.store")


class Broken(Exception):
    """The node cannot be reached, or went away in the middle; the message says how."""


@frozen
class Nodes:
    """The fleet as this host knows it: its own name there, "" if it is no node, and the others."""

    own: str = ""
    others: Sequence[RemoteNode] = ()

    def at_home(self, source: str) -> str:
        """The source, of this node itself what is meant of it here."""
        return at_home(source, self.own) if self.own else source

    def named(self, source: NodeSource) -> RemoteNode:
        """The node to fetch from; StoreError if none can be."""
        found = next((node for node in self.others if node.name == source.node), None)
        if found is None:
            raise StoreError(
                f"{source} cannot be fetched: this host knows no node {source.node}; list it under "
                "[[nodes]] of its helexa.toml, with endpoint and token."
            )
        if found.kind != "helexa":
            raise StoreError(
                f"{source} cannot be fetched: a node of kind {found.kind} gives no files."
            )
        return found


ALONE = Nodes()


def nodes_of(config: Config) -> Nodes:
    return Nodes(config.node.name if config.node.enabled else "", config.nodes)


def fetch_node(
    source: NodeSource, partial: Path, disk: Disk, nodes: Nodes, progress: Progress
) -> Fetched:
    """The files of the model as the other node has them in its store."""
    repository = look_up(source, nodes)
    if gguf := repository.gguf:
        return fetch_gguf(repository, gguf, partial, disk, progress)
    return fetch_checkpoint(repository, partial, disk, progress)


def look_up(source: NodeSource, nodes: Nodes) -> "NodeRepository":
    node = nodes.named(source)
    if node.token and is_in_clear(node.endpoint):
        log.warning("token sent in clear: use https", node=node.name, endpoint=node.endpoint)
    with told_of(str(source)), asked(node, path_of(source), {}) as response:
        body = bounded(response)
        check_status(response, source, body)
        try:
            sizes, hashes = read_files(parse_object(body))
        except UpstreamMalformed as error:
            raise StoreError(f"{source} cannot be fetched: {error.message}.") from None
    return NodeRepository(source, node, version_of(hashes), sizes, hashes)


def read_files(told: Told) -> tuple[dict[str, int], dict[str, str]]:
    """Sizes and hashes by name; every file of a store lies in the model's directory itself."""
    files = {file.exact("name"): file for file in told.objects("files")}
    names = [n for n in files if n and "/" not in n and is_member(n)]
    hashes = {name: files[name].text("sha256") for name in names}
    if not names or not all(SHA256.fullmatch(digest) for digest in hashes.values()):
        raise UpstreamMalformed("its answer is no list of files")
    return {name: files[name].count("bytes") for name in names}, hashes


def version_of(hashes: Mapping[str, str]) -> str:
    """Another one whenever any of the files is another."""
    lines = (f"{name} {digest}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:40]


@frozen
class NodeRepository:
    """A model in the store of another node (`downloads.Repository`)."""

    source: NodeSource
    node: RemoteNode
    commit: str
    sizes: dict[str, int]
    hashes: dict[str, str]

    @property
    def where(self) -> str:
        return str(self.source)

    @property
    def gguf(self) -> str | None:
        """What the model was made of, if that is a GGUF: what else lies there is made of it again."""
        return next((name for name in self.sizes if name.endswith(".gguf")), None)

    @contextmanager
    def stream(self, name: str, headers: Mapping[str, str]) -> "Iterator[FileAnswer]":
        """As the list has it, or not at all: a file that was exchanged since is refused."""
        match = {"if-match": f'"{self.hashes[name]}"'}
        path = f"{path_of(self.source)}/{quote(name, safe='')}"
        with asked(self.node, path, {**match, **headers}) as response:
            if response.status not in (200, 206):
                check_status(response, self.source, bounded(response))
            yield FileAnswer(response)

    def told(self, what: str) -> AbstractContextManager[None]:
        return told_of(what)

    def cached(self, name: str) -> Path | None:
        return None


@frozen
class FileAnswer:
    """A file on its way (`downloads.Answer`)."""

    response: HTTPResponse

    @property
    def status_code(self) -> int:
        return self.response.status

    def iter_raw(self) -> Iterator[bytes]:
        while chunk := read(self.response, CHUNK_BYTES):
            yield chunk


# -- asking ------------------------------------------------------------------------------------------


def path_of(source: NodeSource) -> str:
    return f"/models/{quote(source.model, safe='')}/files"


@contextmanager
def asked(node: RemoteNode, path: str, headers: Mapping[str, str]) -> Iterator[HTTPResponse]:
    """The answer of the node to a GET.  No proxy and no redirect has a say in where it goes."""
    connection = connection_to(node)
    sent = dict(own_headers(node.token)) | {**headers}
    try:
        try:
            connection.request("GET", urlsplit(base_url(node)).path + path, None, sent)
            response = connection.getresponse()
        except (OSError, HTTPException) as error:
            raise Broken(reason(error)) from None
        yield response
    finally:
        connection.close()


def connection_to(node: RemoteNode) -> HTTPConnection:
    parts = urlsplit(node.endpoint)
    host, port = parts.hostname or "", parts.port
    if parts.scheme == "https":
        trusted = tls_context(node)
        return HTTPSConnection(host, port or 443, timeout=SILENCE_SECONDS, context=trusted)
    return HTTPConnection(host, port or 80, timeout=SILENCE_SECONDS)


def read(response: HTTPResponse, most_bytes: int) -> bytes:
    try:
        return response.read(most_bytes)
    except (OSError, HTTPException) as error:
        raise Broken(reason(error)) from None


def bounded(response: HTTPResponse) -> bytes:
    body = read(response, MOST_BYTES + 1)
    if len(body) > MOST_BYTES:
        raise Broken(f"it tells more than {MOST_BYTES // 10**6} MB")
    return body


def check_status(response: HTTPResponse, source: NodeSource, body: bytes) -> None:
    """Nothing of 200; else what the node refuses, in its own words where it has any."""
    status, node = response.status, source.node
    if status == 200:
        return
    if status == 401:
        raise StoreError(f"Node {node} does not accept the token of its [[nodes]] here.")
    said = words_of(body)
    if status == 404 and not said:
        raise StoreError(f"Node {node} gives no files to others: its helexa is too old.")
    if status in (403, 404, 412):
        raise StoreError(f"{source} cannot be fetched: {said or f'it answers {status}'}.")
    raise Broken(said or f"it answers {status}")


def words_of(body: bytes) -> str:
    """Without a full stop; "" where it has none."""
    try:
        told = parse_object(body).object("error")
    except UpstreamMalformed:
        return ""
    return told.text("message", most=400).rstrip(".") if told.has("code") else ""


def reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"it was silent for {SILENCE_SECONDS:.0f} s"
    return plain(getattr(error, "strerror", None) or str(error)) or type(error).__name__


@contextmanager
def told_of(what: str) -> Iterator[None]:
    """Turn what went wrong on the way into one sentence."""
    try:
        yield
    except (Broken, EndedEarly) as error:
        raise Unreachable(f"{what} could not be fetched: {error}.") from None
