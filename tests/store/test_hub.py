"""Models of a hub, which is one on loopback here."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_hub import COMMIT, Hub, serving
from huggingface_hub import constants
from store_toys import everything_below

from helexa.errors import StoreError
from helexa.store import Store
from helexa.store.downloads import Forward
from helexa.store.hub import quant_in


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and no token of the person who runs the tests."""
    path = tmp_path / "hub-cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(path))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return path


@pytest.fixture
def hub(checkpoint: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    files["modeling_toy.py"] = b"raise SystemExit"
    files["pytorch_model.bin"] = b"pickle"
    with serving(Hub(files)) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


def fill_cache(cache: Path, hub: Hub, names: list[str], commit: str = COMMIT) -> Path:
    """Put files into the hub cache the way that huggingface_hub keeps them."""
    home = cache / "models--org--toy"
    snapshot = home / "snapshots" / commit
    for directory in (home / "blobs", home / "refs", snapshot):
        directory.mkdir(parents=True, exist_ok=True)
    (home / "refs" / "main").write_text(commit)
    for name in names:
        (home / "blobs" / hub.sha256(name)).write_bytes(hub.files[name])
        (snapshot / name).symlink_to(f"../../blobs/{hub.sha256(name)}")
    return snapshot


def test_a_repository_is_fetched_at_its_commit_without_its_code(store: Store, hub: Hub) -> None:
    told: list[tuple[str, int, int]] = []
    model = store.add("hf:org/toy", lambda *t: told.append(t))
    assert model.weights == "safetensors"
    weights = (model.path / "model.safetensors").read_bytes()
    assert weights == hub.files["model.safetensors"]
    assert json.loads((model.path / "helexa.json").read_text())["commit"] == COMMIT
    fetched = {line.removeprefix("GET ") for line in hub.downloads()}
    assert fetched == hub.files.keys() - {"modeling_toy.py", "pytorch_model.bin"}
    assert ("download", len(weights), len(weights)) in told
    assert store.find("org/toy") == store.find("hf:org/toy") == model
    asked = len(hub.asked)
    assert store.add("hf:org/toy") == model
    assert len(hub.asked) == asked


def test_nothing_of_the_download_is_left_beside_the_model(
    store: Store, hub: Hub, tmp_path: Path
) -> None:
    model = store.add("hf:org/toy")
    assert list((tmp_path / "store" / "partial").iterdir()) == []
    assert not [path for path in model.path.iterdir() if path.is_dir()]


def test_files_in_the_hub_cache_are_linked_and_not_fetched(
    store: Store, hub: Hub, cache: Path
) -> None:
    snapshot = fill_cache(cache, hub, ["model.safetensors", "tokenizer.json"])
    model = store.add("hf:org/toy")
    assert (model.path / "model.safetensors").samefile(snapshot / "model.safetensors")
    assert not {"GET model.safetensors", "GET tokenizer.json"} & set(hub.downloads())


def test_without_a_network_a_complete_snapshot_will_do(
    store: Store, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = sorted(hub.files.keys() - {"modeling_toy.py", "pytorch_model.bin"})
    snapshot = fill_cache(cache, hub, names)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    model = store.add("hf:org/toy@main")
    assert (model.path / "model.safetensors").samefile(snapshot / "model.safetensors")
    assert json.loads((model.path / "helexa.json").read_text())["commit"] == COMMIT


def test_without_network_and_snapshot_one_sentence_says_so(
    store: Store, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match=r"hf:org/toy could not be downloaded: .*refused"):
        store.add("hf:org/toy")
    assert not [n for n in everything_below(tmp_path / "store") if n.startswith("partial/")]


def large_weights(hub: Hub, size: int = 4_000_000) -> bytes:
    header = {"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    data = len(text).to_bytes(8, "little") + text + os.urandom(size)
    hub.files["model.safetensors"] = data
    return data


def test_a_download_that_breaks_off_goes_on_by_itself(store: Store, hub: Hub) -> None:
    data = large_weights(hub)
    hub.cut["model.safetensors"] = [3_000_000, 500_000]
    model = store.add("hf:org/toy")
    assert (model.path / "model.safetensors").read_bytes() == data
    starts = [line.split()[2:] for line in hub.downloads() if "model.safetensors" in line]
    assert starts == [[], ["3000000"], ["3500000"]]


def test_a_download_that_cannot_go_on_is_resumed_by_the_next_add(store: Store, hub: Hub) -> None:
    data = large_weights(hub)
    hub.cut["model.safetensors"] = [3_000_000, 0]
    with pytest.raises(
        StoreError, match=r"model\.safetensors of hf:org/toy could not be downloaded"
    ):
        store.add("hf:org/toy")
    assert store.list() == []
    hub.asked.clear()
    told: list[tuple[str, int, int]] = []
    model = store.add("hf:org/toy", lambda *t: told.append(t))
    assert (model.path / "model.safetensors").read_bytes() == data
    assert hub.downloads() == ["GET model.safetensors 3000000"]  # nothing else is fetched again
    assert min(done for phase, done, _ in told if phase == "download") > 3_000_000


def test_a_hub_that_serves_no_parts_is_asked_for_the_whole_again(store: Store, hub: Hub) -> None:
    data = large_weights(hub)
    hub.ranges = False
    hub.cut["model.safetensors"] = [3_000_000]
    model = store.add("hf:org/toy")
    assert (model.path / "model.safetensors").read_bytes() == data


def test_what_was_begun_of_another_commit_is_not_gone_on_with(store: Store, hub: Hub) -> None:
    large_weights(hub)
    hub.cut["model.safetensors"] = [3_000_000, 0]
    with pytest.raises(StoreError, match="could not be downloaded"):
        store.add("hf:org/toy")
    hub.commit = "a" * 40
    data = large_weights(hub)
    model = store.add("hf:org/toy")
    assert (model.path / "model.safetensors").read_bytes() == data


def test_a_hub_that_sends_more_than_it_listed_is_cut_off(
    store: Store, hub: Hub, tmp_path: Path
) -> None:
    hub.listed["model.safetensors"] = 10
    with pytest.raises(StoreError, match=r"sends more of model\.safetensors than the 10 bytes"):
        store.add("hf:org/toy")
    files = [p for p in (tmp_path / "store").rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 100_000


def test_a_download_that_is_not_what_the_hub_listed_is_refused(
    store: Store, hub: Hub, tmp_path: Path
) -> None:
    hub.claimed["model.safetensors"] = "0" * 64
    with pytest.raises(StoreError, match="arrived corrupt"):
        store.add("hf:org/toy")
    assert not [n for n in everything_below(tmp_path / "store") if n.startswith("partial/")]


def test_a_repository_that_moved_on_is_refused_until_the_change_is_accepted(
    store: Store, hub: Hub
) -> None:
    store.remove(store.add("hf:org/toy").name)
    hub.commit = "f" * 40
    hub.files["generation_config.json"] = b"{}"
    with pytest.raises(StoreError, match=r"generation_config\.json is another file"):
        store.add("hf:org/toy")
    hub.files["generation_config.json"] = b'{"eos_token_id": [2, 3]}'
    with pytest.raises(StoreError, match="its commit is now ffff"):
        store.add("hf:org/toy")
    store.add("hf:org/toy", accept_change=True)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ((401, "GatedRepo"), "is gated: .* hf_token_file"),
        ((404, "RepoNotFound"), "does not exist on the hub, or needs"),
        ((404, "RevisionNotFound"), "a revision that the hub does not have"),
        ((503, "Down"), "The hub refused hf:org/toy@v1"),
    ],
)
def test_what_the_hub_refuses_is_told_in_one_sentence(
    store: Store, hub: Hub, error: tuple[int, str], told: str
) -> None:
    hub.error = error
    with pytest.raises(StoreError, match=told) as refused:
        store.add("hf:org/toy@v1")
    assert refused.value.message.isprintable()


def test_the_token_is_read_from_its_file(
    open_store: Callable[..., Store], hub: Hub, tmp_path: Path
) -> None:
    hub.token = "hf_secret"
    token = tmp_path / "token"
    with pytest.raises(StoreError, match=r"hf_token_file .* cannot be read"):
        open_store(hf_token_file=str(token)).add("hf:org/toy")
    token.write_text("hf_secret\n")
    open_store(hf_token_file=str(token)).add("hf:org/toy")


def test_room_is_checked_before_the_weights_are_fetched(
    open_store: Callable[..., Store], hub: Hub
) -> None:
    hub.files["model.safetensors"] = bytes(30_000_000)
    with pytest.raises(StoreError, match=r"hf:org/toy needs 0\.0 GB .* max_gb = 0\.01"):
        open_store(max_gb=0.01).add("hf:org/toy")
    assert "GET model.safetensors" not in hub.downloads()


def test_an_unknown_architecture_is_refused_before_the_weights_are_fetched(
    store: Store, hub: Hub
) -> None:
    hub.files["config.json"] = b'{"model_type": "marvel"}'
    with pytest.raises(StoreError, match="no text model of the type 'marvel'"):
        store.add("hf:org/toy")
    assert "GET model.safetensors" not in hub.downloads()


def test_a_repository_that_is_no_model_is_refused(store: Store, hub: Hub) -> None:
    del hub.files["model.safetensors"]
    with pytest.raises(StoreError, match="only as pickles"):
        store.add("hf:org/toy")
    del hub.files["config.json"]
    with pytest.raises(StoreError, match=r"has no config\.json"):
        store.add("hf:org/toy")


def test_names_that_leave_the_directory_are_never_asked_for(store: Store, hub: Hub) -> None:
    hub.files |= {"../evil.json": b"{}", "/etc/x.json": b"{}", "sub/config.json": b"{}"}
    hub.files["..\\x.safetensors"] = b""
    model = store.add("hf:org/toy")
    assert {p.name for p in model.path.iterdir()} <= hub.files.keys() | {"helexa.json"}
    assert not [line for line in hub.asked if "evil" in line or "/etc" in line or "sub/" in line]


# -- GGUF repositories -----------------------------------------------------------------------------


@pytest.fixture
def gguf_hub(hub: Hub, small_gguf: Path) -> Hub:
    hub.files = {"README.md": b"", "toy.Q8_0.gguf": small_gguf.read_bytes(), "mmproj-x.gguf": b"x"}
    return hub


def test_the_one_gguf_of_a_repository_is_taken(store: Store, gguf_hub: Hub) -> None:
    model = store.add("hf:org/toy")
    assert model.weights == "safetensors"
    assert (model.path / "toy.Q8_0.gguf").read_bytes() == gguf_hub.files["toy.Q8_0.gguf"]


def test_a_quantisation_picks_the_file_or_is_told_what_there_is(
    store: Store, gguf_hub: Hub
) -> None:
    gguf_hub.files["toy-Q4_K_M.gguf"] = b"GGUF"
    gguf_hub.files["toy.IQ3_XXS.gguf"] = b"GGUF"
    model = store.add("hf:org/toy:q8_0")
    assert (model.path / "toy.Q8_0.gguf").read_bytes() == gguf_hub.files["toy.Q8_0.gguf"]
    assert model.source == "hf:org/toy:Q8_0"
    with pytest.raises(StoreError, match=r"no GGUF file in Q6_K; it has IQ3_XXS, Q4_K_M, Q8_0\."):
        store.add("hf:org/toy:Q6_K")


def test_a_repository_without_ggufs_is_taken_whole_and_once(store: Store, hub: Hub) -> None:
    assert store.find("hf:org/toy:Q6_K") is None
    whole = store.add("hf:org/toy")
    fetched = len(hub.downloads())
    assert store.add("hf:org/toy:Q6_K") == store.find("hf:org/toy:Q6_K") == whole
    assert len(hub.downloads()) == fetched


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("Qwen3-8B-Q4_K_M.gguf", "Q4_K_M"),
        ("sub/model.q8_0.gguf", "Q8_0"),
        ("Llama-3.2-1B-Instruct-UD-IQ2_XXS.gguf", "IQ2_XXS"),
        ("gemma-3-270m-BF16.gguf", "BF16"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("model.gguf", None),
        ("Q8_0/model-00001-of-00002.gguf", "Q8_0"),
    ],
)
def test_the_name_of_a_gguf_tells_its_quantisation(name: str, quant: str | None) -> None:
    assert quant_in(name) == quant


def test_one_gguf_of_several_is_named_in_the_source(store: Store, gguf_hub: Hub) -> None:
    gguf_hub.files["sub/toy.Q4_1.gguf"] = gguf_hub.files.pop("toy.Q8_0.gguf")
    gguf_hub.files["toy.Q2_K.gguf"] = b"GGUF"
    with pytest.raises(StoreError, match=r"has 2 GGUF files; name one, as in hf:org/toy/sub/toy"):
        store.add("hf:org/toy")
    with pytest.raises(StoreError, match=r"has no file 'no\.gguf'"):
        store.add("hf:org/toy/no.gguf")
    model = store.add("hf:org/toy@main/sub/toy.Q4_1.gguf")
    assert (model.path / "toy.Q4_1.gguf").exists()


def test_a_gguf_that_cannot_be_read_is_refused_before_its_download(
    store: Store, gguf_hub: Hub, small_gguf: Path
) -> None:
    header = small_gguf.read_bytes().replace(b"smollm", b"marvel")
    gguf_hub.files["toy.Q8_0.gguf"] = header + bytes(20_000_000)
    with pytest.raises(StoreError, match=r"way of cutting text .*llama-server as an upstream"):
        store.add("hf:org/toy")
    assert gguf_hub.downloads() == ["GET toy.Q8_0.gguf"]  # its beginning, as a stream
    gguf_hub.files["toy.Q8_0.gguf"] = b"not a GGUF"
    with pytest.raises(StoreError, match="not a sound GGUF"):
        store.add("hf:org/toy")


def test_a_gguf_in_the_hub_cache_is_linked_even_without_a_network(
    store: Store, gguf_hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = fill_cache(cache, gguf_hub, ["toy.Q8_0.gguf"])
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    model = store.add("hf:org/toy")
    assert (model.path / "toy.Q8_0.gguf").samefile(snapshot / "toy.Q8_0.gguf")


def test_a_cached_file_that_leads_out_of_the_cache_is_refused(
    store: Store, hub: Hub, cache: Path, tmp_path: Path
) -> None:
    snapshot = fill_cache(cache, hub, [])
    shutil.copy("/etc/hostname", tmp_path / "secret")
    (snapshot / "tokenizer.json").symlink_to(tmp_path / "secret")
    with pytest.raises(StoreError, match="leads out of its directory"):
        store.add("hf:org/toy")


def test_a_stream_is_read_on_in_any_portions() -> None:
    stream = Forward(iter([b"ab", b"", b"cdef", b"g"]))
    assert [stream.read(n) for n in (1, 3, 0, 2, 9, 1)] == [b"a", b"bcd", b"", b"ef", b"g", b""]
