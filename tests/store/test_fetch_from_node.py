"""Models fetched from another node: resumed, checked, and refused in words where they cannot be had."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve
from peer_node import TOKEN, PeerNode, giving
from store_toys import everything_below

from helexa.config.schema import RemoteNode
from helexa.config.schema import Store as Settings
from helexa.errors import StoreError
from helexa.store import Store
from helexa.store.nodes import Nodes
from helexa.store.preview import outline

SOURCE = "node:big/org/toy"
WEIGHTS = "model.safetensors"


@pytest.fixture
def big(checkpoint: Path) -> Iterator[PeerNode]:
    with giving(PeerNode({path.name: path.read_bytes() for path in checkpoint.iterdir()})) as node:
        yield node


@pytest.fixture
def nodes(big: PeerNode) -> Nodes:
    return Nodes("small", (RemoteNode("big", big.url, token=TOKEN),))


@pytest.fixture
def small(tmp_path: Path, nodes: Nodes, prepared_in_process: None) -> Store:
    return Store(Settings(min_free_gb=0.0), tmp_path / "store", nodes)


def large_weights(big: PeerNode, size: int = 4_000_000) -> bytes:
    text = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    data = big.files[WEIGHTS] = len(text).to_bytes(8, "little") + text + os.urandom(size)
    return data


def left_over(small: Store, tmp_path: Path) -> list[str]:
    assert small.list() == []
    return [name for name in everything_below(tmp_path / "store") if name.startswith("partial/")]


def test_a_model_comes_from_another_node_whole_and_checked(small: Store, big: PeerNode) -> None:
    told: list[tuple[str, int, int]] = []
    model = small.add(SOURCE, lambda *t: told.append(t))
    assert model.source == SOURCE
    assert (model.path / WEIGHTS).read_bytes() == big.files[WEIGHTS]
    assert ("download", len(big.files[WEIGHTS]), len(big.files[WEIGHTS])) in told
    assert {phase for phase, _, _ in told} == {"download", "verify", "prepare"}
    num_asked = len(big.asked)
    assert small.add(SOURCE) == small.find(SOURCE) == model
    assert len(big.asked) == num_asked


def test_a_gguf_comes_as_one_file_and_is_prepared_here(
    small: Store, big: PeerNode, small_gguf: Path
) -> None:
    big.files = {"toy.gguf": small_gguf.read_bytes(), WEIGHTS: b"made of it", "config.json": b"{}"}
    model = small.add(SOURCE)
    assert set(big.asked) == {"toy.gguf"}
    assert (model.path / "toy.gguf").read_bytes() == big.files["toy.gguf"]
    assert model.weights == "safetensors"


def test_code_beside_the_weights_is_not_fetched(small: Store, big: PeerNode) -> None:
    big.files |= {"modeling_toy.py": b"raise SystemExit", "pytorch_model.bin": b"pickle"}
    small.add(SOURCE)
    assert not {"modeling_toy.py", "pytorch_model.bin"} & set(big.asked)


def test_a_node_that_breaks_off_is_asked_for_the_rest(small: Store, big: PeerNode) -> None:
    data = large_weights(big)
    big.cut[WEIGHTS] = [3_000_000, 500_000]
    model = small.add(SOURCE)
    assert (model.path / WEIGHTS).read_bytes() == data
    assert [line for line in big.asked if WEIGHTS in line] == [
        WEIGHTS,
        f"{WEIGHTS} 3000000",
        f"{WEIGHTS} 3500000",
    ]


def test_what_came_before_the_node_died_is_kept_for_the_next_try(
    small: Store, big: PeerNode
) -> None:
    data = large_weights(big)
    big.cut[WEIGHTS] = [3_000_000, 0]
    with pytest.raises(
        StoreError, match=r"model\.safetensors of node:big/org/toy could not be fetched"
    ):
        small.add(SOURCE)
    big.asked.clear()
    model = small.add(SOURCE)
    assert (model.path / WEIGHTS).read_bytes() == data
    assert big.asked == [f"{WEIGHTS} 3000000"]


def test_a_node_that_gives_no_parts_is_asked_for_the_whole_again(
    small: Store, big: PeerNode
) -> None:
    data = large_weights(big)
    big.ranges, big.cut[WEIGHTS] = False, [3_000_000]
    assert (small.add(SOURCE).path / WEIGHTS).read_bytes() == data


def test_a_model_that_is_removed_there_meanwhile_is_told(
    small: Store, big: PeerNode, tmp_path: Path
) -> None:
    big.refuse = (404, "The store of this node does not have the files of toy.")
    with pytest.raises(StoreError, match="does not have the files of toy"):
        small.add(SOURCE)
    assert left_over(small, tmp_path) == []


def test_a_file_that_is_exchanged_there_meanwhile_is_refused(
    small: Store, big: PeerNode, tmp_path: Path
) -> None:
    big.listing = big.list_files()
    large_weights(big)
    with pytest.raises(StoreError, match="another file"):
        small.add(SOURCE)
    assert left_over(small, tmp_path) == []


def test_bytes_that_are_not_those_that_were_listed_make_no_model(
    small: Store, big: PeerNode, tmp_path: Path
) -> None:
    big.claimed[WEIGHTS] = "0" * 64
    with pytest.raises(StoreError, match="arrived corrupt"):
        small.add(SOURCE)
    assert left_over(small, tmp_path) == []


def test_a_full_disk_is_told_before_anything_is_fetched(
    tmp_path: Path, nodes: Nodes, big: PeerNode, prepared_in_process: None
) -> None:
    large_weights(big)
    small = Store(Settings(min_free_gb=0.0, max_gb=0.001), tmp_path / "store", nodes)
    with pytest.raises(StoreError, match="there is room for"):
        small.add(SOURCE)
    assert WEIGHTS not in big.asked


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("node:away/org/toy", r"knows no node away; list it under \[\[nodes\]\]"),
        ("node:big/other", "There is no such model"),
    ],
)
def test_what_cannot_be_found_is_told_in_words(small: Store, source: str, words: str) -> None:
    with pytest.raises(StoreError, match=words):
        small.add(source)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"token": "wrong"}, "does not accept the token"),
        ({"kind": "neuron"}, "kind neuron gives no files"),
        ({"endpoint": "http://127.0.0.1:9"}, "refused"),
    ],
)
def test_a_node_that_gives_nothing_is_told_in_words(
    tmp_path: Path, nodes: Nodes, change: dict[str, str], words: str
) -> None:
    (node,) = nodes.others
    small = Store(
        Settings(min_free_gb=0.0), tmp_path / "s", Nodes("small", (evolve(node, **change),))
    )
    with pytest.raises(StoreError, match=words):
        small.add(SOURCE)


def test_a_redirect_is_not_followed(small: Store, big: PeerNode) -> None:
    big.redirect = big.url + "/models/org%2Ftoy/files/elsewhere"
    with pytest.raises(StoreError, match="it answers 302"):
        small.add(SOURCE)


@pytest.mark.parametrize(
    "listing",
    [
        b"<html>",
        b"[]",
        b"{}",
        b'{"files": [{"name": "config.json"}]}',
        b'{"files": [{"name": "../../etc/passwd", "bytes": 1, "sha256": "%s"}]}' % (b"0" * 64),
        b'{"files": [{"name": "a/b", "bytes": 1, "sha256": "%s"}]}' % (b"0" * 64),
        b'{"files": [{"name": "a", "bytes": "x", "sha256": "..\\/.."}]}',
    ],
)
def test_a_list_that_is_none_is_refused_and_writes_nothing(
    small: Store, big: PeerNode, listing: bytes, tmp_path: Path
) -> None:
    big.listing = listing
    with pytest.raises(StoreError, match="cannot be fetched"):
        small.add(SOURCE)
    assert big.asked == left_over(small, tmp_path) == []


def test_a_node_that_knows_no_files_is_told_to_be_old(small: Store, big: PeerNode) -> None:
    big.refuse, big.files = (404, ""), {"config.json": b"{}"}
    with pytest.raises(StoreError, match="its helexa is too old"):
        small.add(SOURCE)


def test_a_node_that_is_named_on_itself_is_its_own_store(small: Store) -> None:
    model = small.add(SOURCE)
    assert small.find(f"node:small/{model.name}") == model
    assert small.find("node:small/other") is None
    assert small.prune([f"node:small/{model.name}"], dry_run=False) == []


def test_what_fits_is_told_from_the_heads_of_its_files(nodes: Nodes, checkpoint: Path) -> None:
    there = outline(SOURCE, Settings(), nodes)
    assert there == outline(f"path:{checkpoint}", Settings(), nodes)
    assert there.parameters > 0
