"""Files of models that a node gives to other nodes, and to nobody else."""

import hashlib
import json
import os
import struct
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from http_peer import Peer, Served, Start
from quart_trio import QuartTrio

from helexa.config.schema import Limits, RemoteNode
from helexa.config.schema import Store as Settings
from helexa.errors import StoreError
from helexa.fleet.catalogue import Catalogue, CatalogueModel
from helexa.http import files
from helexa.http import trusted as trusted_
from helexa.http.application import configure
from helexa.http.doors import Door
from helexa.http.tls import Certificate
from helexa.library import Library
from helexa.loads import Loads
from helexa.renderers import Renderers
from helexa.shelf import Shelf
from helexa.store import Store
from helexa.store.nodes import Nodes
from helexa.store.record import Pin, write_record
from helexa.store.source import directory_name, parse_source

TOKEN = "between-us"
DOOR = Door(token=TOKEN)
BEARER = f"Authorization: Bearer {TOKEN}"
CATALOGUE = Catalogue(
    (
        CatalogueModel(id="org/toy", source="hf:org/toy", aliases=("toy",)),
        CatalogueModel(id="away", source="hf:org/away"),
        CatalogueModel(id="tale", harness="script", script="tale.toml", tokenizer="hf:org/toy"),
    )
)


class FilesHost:
    def __init__(self, library: Library) -> None:
        self.library = library


def write_model(root: Path, num_bytes: int = 24) -> Path:
    """A finished model as an add leaves it."""
    path = root / "models" / directory_name(parse_source("hf:org/toy"))
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "llama"}')
    (path / "tokenizer.json").write_text("{}")
    tensor = {"w": {"dtype": "U8", "shape": [num_bytes], "data_offsets": [0, num_bytes]}}
    header = json.dumps(tensor).encode()
    weights = struct.pack("<Q", len(header)) + header + os.urandom(num_bytes)
    (path / "model.safetensors").write_bytes(weights)
    write_record(path, "hf:org/toy", Pin(None, {}), "safetensors")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "big"


@pytest.fixture
def store(root: Path) -> Store:
    return Store(Settings(min_free_gb=0), root)


@pytest.fixture
def model(store: Store, root: Path) -> Path:
    return write_model(root, 3_000_000)


Give = Callable[..., Awaitable[Served]]


@pytest.fixture
def give(start: Start, store: Store, model: Path) -> Give:
    renderers: Any = object.__new__(Renderers)  # no prompt is rendered here

    async def give(
        door: Door = DOOR, peers: tuple[str, ...] = (), certificate: Certificate | None = None
    ) -> Served:
        app = QuartTrio("files")
        configure(app)
        library = Library(store, Limits(), renderers)
        host: Any = FilesHost(library)
        files.add_files(app, host, Loads(Shelf(CATALOGUE, lambda: CATALOGUE), library, ()), peers)
        return await start(app, door=door, certificate=certificate)

    return give


def hashed(model: Path) -> dict[str, tuple[int, str]]:
    return {
        path.name: (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in model.iterdir()
        if path.name != "helexa.json"
    }


async def peer_of(served: Served) -> Peer:
    return await served.connect()


async def test_the_files_of_a_model_are_listed_by_any_of_its_names(give: Give, model: Path) -> None:
    peer = await peer_of(await give())
    for name in ("org/toy", "org%2Ftoy", "toy", "hf:org/toy", model.name):
        told = (await peer.ask(f"GET /models/{name}/files", BEARER)).json
        assert told["source"] == "hf:org/toy"
        found = {file["name"]: (file["bytes"], file["sha256"]) for file in told["files"]}
        assert found == hashed(model)


async def test_a_file_comes_whole_or_from_a_byte_on(give: Give, model: Path) -> None:
    peer, data = await peer_of(await give()), (model / "model.safetensors").read_bytes()
    url = "/models/toy/files/model.safetensors"
    whole = await peer.ask(f"GET {url}", BEARER)
    assert (whole.status, whole.body) == (200, data)
    assert whole.headers["etag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    rest = await peer.ask(f"GET {url}", BEARER, "Range: bytes=2999000-")
    assert (rest.status, rest.body) == (206, data[2_999_000:])
    assert rest.headers["content-range"] == f"bytes 2999000-{len(data) - 1}/{len(data)}"
    assert (await peer.ask(f"GET {url}", BEARER, f"Range: bytes={len(data)}-")).status == 416
    for odd in ("bytes=5-6", "bytes=-5", "bytes=a-", "lines=1-", "bytes", "bytes=1-,3-"):
        assert (await peer.ask(f"GET {url}", BEARER, f"Range: {odd}")).body == data


async def test_a_file_that_is_not_the_listed_one_is_not_sent(give: Give) -> None:
    peer = await peer_of(await give())
    url = "GET /models/toy/files/config.json"
    assert (await peer.ask(url, BEARER, 'If-Match: "another"')).status == 412
    tag = (await peer.ask(url, BEARER)).headers["etag"]
    assert (await peer.ask(url, BEARER, f'If-Match: "another", {tag}')).status == 200


@pytest.mark.parametrize(
    "name",
    [
        "helexa.json",
        "last_used",
        "..%2f..%2fpins.json",
        "%2e%2e%2fpins.json",
        "%2fetc%2fpasswd",
        "config.json%00",
        "planted",
        "",
    ],
)
async def test_only_files_of_the_record_are_given(
    give: Give, model: Path, root: Path, name: str
) -> None:
    (root / "pins.json").write_text("{}")
    (model / "last_used").touch()
    (model / "planted").symlink_to("/etc/passwd")
    peer = await peer_of(await give())
    assert (await peer.ask(f"GET /models/toy/files/{name}", BEARER)).status == 404


async def test_a_link_in_a_file_s_place_is_not_followed_to_another_file(
    give: Give, model: Path, tmp_path: Path
) -> None:
    peer = await peer_of(await give())
    secret = tmp_path / "secret"
    secret.write_text('{"model_type": "LLAMA"}')
    (model / "config.json").unlink()
    (model / "config.json").symlink_to(secret)
    reply = await peer.ask("GET /models/toy/files/config.json", BEARER)
    assert (reply.status, "changed or vanished" in reply.error["message"]) == (503, True)


async def test_a_link_to_the_very_file_that_was_added_is_followed(
    give: Give, model: Path, tmp_path: Path
) -> None:
    (model / "config.json").rename(tmp_path / "elsewhere.json")
    (model / "config.json").symlink_to(tmp_path / "elsewhere.json")
    peer = await peer_of(await give())
    assert (await peer.ask("GET /models/toy/files/config.json", BEARER)).status == 200


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("away", "does not have the files of away"),
        ("tale", "it has no files of its own"),
        ("nothing", "neither in the catalogue nor in the store"),
    ],
)
async def test_a_model_without_files_is_told_in_words(give: Give, name: str, words: str) -> None:
    peer = await peer_of(await give())
    for path in (f"/models/{name}/files", f"/models/{name}/files/config.json"):
        reply = await peer.ask(f"GET {path}", BEARER)
        assert (reply.status, words in reply.error["message"]) == (404, True)


async def test_nobody_gets_files_without_the_token(give: Give) -> None:
    peer = await peer_of(await give())
    for path in ("/models/toy/files", "/models/toy/files/config.json"):
        for header in ("Authorization: Bearer wrong", "X-Nothing: 1"):
            assert (await peer.ask(f"GET {path}", header)).status == 401


async def test_without_a_token_only_trusted_addresses_get_files(
    give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = await peer_of(await give(Door()))
    assert (await peer.ask("GET /models/toy/files")).status == 200
    monkeypatch.setattr(trusted_, "is_loopback", lambda address: False)
    assert (await peer.ask("GET /models/toy/files")).status == 403
    trusted = await peer_of(await give(Door(), peers=("127.0.0.0/8",)))
    assert (await trusted.ask("GET /models/toy/files")).status == 200


async def test_only_so_many_files_are_sent_at_once_and_a_place_is_free_again_after(
    give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_SENT", 1)
    waiting, go_on = trio.Event(), trio.Event()
    read = files.pieces

    async def slowly(*arguments: Any) -> Any:
        async for piece in read(*arguments):
            waiting.set()
            await go_on.wait()
            yield piece

    monkeypatch.setattr(files, "pieces", slowly)
    served = await give()
    first, second = await peer_of(served), await peer_of(served)
    url = "GET /models/toy/files/model.safetensors"
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(first.ask, url, BEARER))
            await waiting.wait()
            busy = await second.ask(url, BEARER)
            assert (busy.status, busy.headers["retry-after"]) == (503, "10")
            go_on.set()
        assert (await second.ask(url, BEARER)).status == 200


async def test_another_node_fetches_what_this_one_gives(
    give: Give, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helexa.store.assemble.run_child", lambda *_: None)
    served = await give()
    nodes = Nodes("small", (RemoteNode("big", served.url, token=TOKEN),))
    small = Store(Settings(min_free_gb=0), tmp_path / "small", nodes)
    fetched = await trio.to_thread.run_sync(small.add, "node:big/toy")
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert json_or_bytes(fetched.path / name) == json_or_bytes(model / name)


async def test_files_go_through_tls_to_who_trusts_the_node_s_own_authority(
    give: Give, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helexa.store.assemble.run_child", lambda *_: None)
    authority, files = trustme.CA(), [tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem")]
    issued = authority.issue_cert("localhost")
    blobs = (authority.cert_pem, issued.cert_chain_pems[0], issued.private_key_pem)
    for file, blob in zip(files, blobs, strict=True):
        blob.write_to_path(str(file))
    served = await give(certificate=Certificate(files[1], files[2]))
    url = served.url.replace("127.0.0.1", "localhost")
    for name, ca, words in [("trusting", str(files[0]), ""), ("strict", "", "certificate verify")]:
        node = RemoteNode("big", url, token=TOKEN, tls_ca=ca)
        store = Store(Settings(min_free_gb=0), tmp_path / name, Nodes("small", (node,)))
        if not words:
            assert (await trio.to_thread.run_sync(store.add, "node:big/toy")).name
            continue
        with pytest.raises(StoreError, match=words):
            await trio.to_thread.run_sync(store.add, "node:big/toy")


def json_or_bytes(path: Path) -> Any:
    return json.loads(path.read_text()) if path.suffix == ".json" else path.read_bytes()
