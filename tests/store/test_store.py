"""The store as its callers see it: adds that are whole or nothing, found again, removed, pruned."""

import json
import os
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import save_file
from store_toys import CONFIG, everything_below, write_checkpoint, write_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from helexa.errors import StoreError
from helexa.store import Store
from helexa.store.assemble import Fetched
from helexa.store.failures import Unreachable
from helexa.store.fetch import fetch
from helexa.store.layout import locked


def rewrite(checkpoint: Path, value: float) -> None:
    (checkpoint / "model.safetensors").unlink()
    save_file({"a": torch.full((2, 3), value)}, checkpoint / "model.safetensors")


def left_over(store_root: Path) -> set[str]:
    """What lies in the store besides its own few files."""
    below = everything_below(store_root)
    return {name for name in below if not name.startswith(("locks", "version", "pins.json"))}


NOTHING = {"models", "partial"}


def test_a_gguf_is_prepared_into_a_directory_that_loads_by_itself(
    store: Store, small_gguf: Path
) -> None:
    phases: list[str] = []
    model = store.add(f"gguf:{small_gguf}", lambda phase, *_: phases.append(phase))
    assert phases == ["verify", "prepare"]
    assert model.weights == "safetensors"
    assert model.weight_files == (model.path / "model.safetensors",)
    assert (model.path / small_gguf.name).samefile(small_gguf)
    assert model.bytes == sum(
        f.stat().st_size for f in model.path.iterdir() if f.name != "helexa.json"
    )
    loaded = AutoModelForCausalLM.from_pretrained(
        model.path, local_files_only=True, use_safetensors=True, dtype=torch.float32
    )
    assert loaded.config.head_dim == 16
    assert loaded.generation_config.eos_token_id == 2
    tokenizer = AutoTokenizer.from_pretrained(model.path, local_files_only=True)
    assert tokenizer.decode(tokenizer.encode("hello")) == "hello"


def test_a_large_gguf_gets_no_copy_and_takes_hardly_more_than_itself(
    store: Store, small_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helexa.store.assemble.SMALL", 1000)
    model = store.add(f"gguf:{small_gguf}")
    assert model.weights == "gguf"
    assert model.weight_files == (model.path / small_gguf.name,)
    assert {p.suffix for p in model.path.iterdir()} == {".gguf", ".json", ".jinja"}


def test_a_checkpoint_is_linked_not_copied_and_its_settings_are_cleaned(
    store: Store, tmp_path: Path
) -> None:
    checkpoint = write_checkpoint(
        tmp_path / "toy", auto_map={"AutoModel": "canary.Model"}, _attn_implementation="org/kernel"
    )
    model = store.add(f"path:{checkpoint}")
    assert (model.path / "model.safetensors").samefile(checkpoint / "model.safetensors")
    assert (model.path / "tokenizer.json").samefile(checkpoint / "tokenizer.json")
    config = json.loads((model.path / "config.json").read_text())
    assert not {"auto_map", "_attn_implementation"} & config.keys()
    assert config["head_dim"] == 8  # what transformers assumes is stated
    assert json.loads((checkpoint / "config.json").read_text())[
        "auto_map"
    ]  # the source is untouched


def test_shards_are_taken_by_their_index(store: Store, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    for n in (1, 2):
        save_file({f"t{n}": torch.zeros(n)}, checkpoint / f"model-0000{n}-of-00002.safetensors")
    weight_map = {f"t{n}": f"model-0000{n}-of-00002.safetensors" for n in (1, 2)}
    index = checkpoint / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    (checkpoint / "consolidated.safetensors").write_bytes(b"not taken")
    model = store.add(f"path:{checkpoint}")
    assert [f.name for f in model.weight_files] == sorted(weight_map.values())

    index.write_text(json.dumps({"weight_map": weight_map | {"t3": weight_map["t1"]}}))
    store.remove(model.name)
    with pytest.raises(StoreError, match="lacks the tensor 't3'"):
        store.add(f"path:{checkpoint}", accept_change=True)


def test_a_second_add_finds_the_first(store: Store, checkpoint: Path) -> None:
    first = store.add(f"path:{checkpoint}")
    phases: list[str] = []
    assert store.add(f"path:{checkpoint}", lambda phase, *_: phases.append(phase)) == first
    assert phases == []


def test_a_model_is_found_by_source_and_by_name(store: Store, checkpoint: Path) -> None:
    model = store.add(f"path:{checkpoint}")
    assert store.find(model.source) == store.find(model.name) == model
    assert store.list() == [model]
    for absent in ("nothing", "org/name", "hf:org/name", "../models", "", "."):
        assert store.find(absent) is None


def test_everything_in_the_store_is_for_its_owner_alone(store: Store, small_gguf: Path) -> None:
    small_gguf.chmod(0o600)
    model = store.add(f"gguf:{small_gguf}")
    root = model.path.parents[1]
    for path in root.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_use_is_remembered(store: Store, checkpoint: Path) -> None:
    model = store.add(f"path:{checkpoint}")
    assert model.last_used is None
    store.touch(model.name)
    found = store.find(model.name)
    assert found is not None
    assert found.last_used is not None
    assert found.last_used >= model.added_at - 1
    store.touch("nothing")
    store.touch("../../outside")


def test_a_removed_model_is_gone_and_its_source_is_untouched(
    store: Store, checkpoint: Path, tmp_path: Path
) -> None:
    model = store.add(f"path:{checkpoint}")
    store.remove(model.name)
    assert store.find(model.name) is None
    assert left_over(tmp_path / "store") == NOTHING
    assert (checkpoint / "model.safetensors").exists()
    for absent in (model.name, "../partial", ""):
        with pytest.raises(StoreError, match="holds no model"):
            store.remove(absent)


def test_pruning_removes_what_nobody_needs_and_what_dead_adds_left(
    store: Store, tmp_path: Path
) -> None:
    kept, dropped = (store.add(f"path:{write_checkpoint(tmp_path / n)}") for n in ("a", "b"))
    dead = tmp_path / "store" / "partial" / "dead" / "download"
    dead.mkdir(parents=True)
    live = tmp_path / "store" / "partial" / "live"
    live.mkdir()
    assert store.prune([kept.source], dry_run=True) == [dropped]
    assert store.list() == [kept, dropped]
    with locked(tmp_path / "store", "live"):
        assert store.prune([kept.source, "org/other"], dry_run=False) == [dropped]
    assert store.list() == [kept]
    assert list((tmp_path / "store" / "partial").iterdir()) == [live]


# -- changes ---------------------------------------------------------------------------------------


def test_a_source_that_changed_since_its_first_add_is_refused(
    store: Store, checkpoint: Path, tmp_path: Path
) -> None:
    store.remove(store.add(f"path:{checkpoint}").name)
    rewrite(checkpoint, 7.0)
    with pytest.raises(StoreError, match=r"model\.safetensors is another file.*--accept-change"):
        store.add(f"path:{checkpoint}")
    assert left_over(tmp_path / "store") == NOTHING
    store.remove(store.add(f"path:{checkpoint}", accept_change=True).name)
    store.add(f"path:{checkpoint}")


def test_a_linked_file_that_changes_behind_the_store_is_noticed(
    store: Store, checkpoint: Path
) -> None:
    model = store.add(f"path:{checkpoint}")
    weights = checkpoint / "model.safetensors"
    data = weights.read_bytes()
    os.utime(weights)
    assert store.find(model.name) == model  # only its time moved

    with weights.open("r+b") as file:
        file.seek(len(data) - 1)
        file.write(b"\x01")
    with pytest.raises(StoreError, match=r"model\.safetensors of path:.* has changed or vanished"):
        store.find(model.name)
    with weights.open("r+b") as file:
        file.truncate(10)
    with pytest.raises(StoreError, match="has changed or vanished"):
        store.add(model.source)


def test_a_damaged_record_is_told_in_words_and_can_be_removed(
    store: Store, checkpoint: Path
) -> None:
    model = store.add(f"path:{checkpoint}")
    (model.path / "helexa.json").write_text("{")
    with pytest.raises(StoreError, match=r"helexa\.json.* is damaged"):
        store.find(model.name)
    store.remove(model.name)
    assert store.list() == []


def test_a_model_without_its_record_is_made_anew(store: Store, checkpoint: Path) -> None:
    model = store.add(f"path:{checkpoint}")
    (model.path / "helexa.json").unlink()
    assert store.find(model.name) is None
    assert store.add(f"path:{checkpoint}").path == model.path


def test_what_the_system_refuses_is_told_in_words(
    store: Store, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/some/file")

    monkeypatch.setattr("helexa.store.store.flush_tree", refuse)
    with pytest.raises(
        StoreError, match=r"could not handle path:.*: Permission denied \(/some/file"
    ):
        store.add(f"path:{checkpoint}")


# -- failures --------------------------------------------------------------------------------------


def test_a_source_that_is_not_there_is_told_in_words(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="missing or not accessible"):
        store.add(f"gguf:{tmp_path}/no.gguf")
    with pytest.raises(StoreError, match="is not a directory"):
        store.add(f"path:{tmp_path}/no")
    with pytest.raises(StoreError, match="is not a model source"):
        store.add("no")
    assert left_over(tmp_path / "store") == NOTHING


def test_a_directory_with_a_gguf_alone_is_told_how_to_name_it(
    store: Store, small_gguf: Path
) -> None:
    with pytest.raises(StoreError, match=f"write gguf:{small_gguf}"):
        store.add(f"path:{small_gguf.parent}")


def test_a_corrupt_gguf_leaves_nothing(store: Store, small_gguf: Path, tmp_path: Path) -> None:
    data = small_gguf.read_bytes()
    small_gguf.write_bytes(data[: len(data) // 2])
    with pytest.raises(StoreError, match="may be cut short"):
        store.add(f"gguf:{small_gguf}")
    assert left_over(tmp_path / "store") == NOTHING


def test_an_architecture_that_is_not_read_leaves_nothing(
    store: Store, llama: PreTrainedModel, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "x.gguf", llama, tokenizer="rwkv")
    with pytest.raises(StoreError, match="llama-server as an upstream"):
        store.add(f"gguf:{path}")
    checkpoint = write_checkpoint(tmp_path / "toy", model_type="marvel")
    with pytest.raises(StoreError, match=r"no text model of the type 'marvel'.*as an upstream"):
        store.add(f"path:{checkpoint}")
    assert left_over(tmp_path / "store") == NOTHING


def test_a_conversion_that_fails_leaves_nothing(
    store: Store, llama: PreTrainedModel, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "x.gguf", llama, numbers={"llama.embedding_length": 128})
    with pytest.raises(StoreError, match="The model cannot be prepared"):
        store.add(f"gguf:{path}")
    assert left_over(tmp_path / "store") == NOTHING


def test_a_full_disk_is_told_in_words_and_leaves_nothing(
    store: Store, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("helexa.store.store.write_record", full)
    with pytest.raises(StoreError, match=r"The disk of .* is full: path:"):
        store.add(f"path:{checkpoint}")
    assert left_over(tmp_path / "store") == NOTHING


def test_limits_on_the_disk_are_checked_before_a_copy_is_made(
    open_store: Callable[..., Store], small_gguf: Path, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match=r"converted copy of toy\.Q8_0\.gguf needs"):
        open_store(min_free_gb=1e6).add(f"gguf:{small_gguf}")
    with pytest.raises(StoreError, match=r"max_gb = 0\.0001"):
        open_store(max_gb=0.0001).add(f"gguf:{small_gguf}")
    assert left_over(tmp_path / "store") == NOTHING


def test_too_little_memory_is_told_in_words(
    store: Store, small_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helexa.store.assemble.CHILD_BYTES", 1 << 50)
    with pytest.raises(StoreError, match=r"needs about .* GB of memory, and .* GB are free"):
        store.add(f"gguf:{small_gguf}")


def test_only_a_download_survives_an_interruption(
    store: Store, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(source: object, partial: Path, *_: object) -> None:
        (partial / "download").mkdir(exist_ok=True)
        (partial / "download" / "part").write_text("x")
        (partial / "check").mkdir(exist_ok=True)
        raise Unreachable("the network went away")

    monkeypatch.setattr("helexa.store.store.fetch", interrupted)
    with pytest.raises(StoreError, match="the network went away"):
        store.add(f"path:{checkpoint}")
    names = {Path(name).name for name in left_over(tmp_path / "store")} - NOTHING
    assert len(names) == 3  # the model's own directory, `download`, and the part
    assert {"download", "part"} < names
    monkeypatch.undo()


def test_what_a_killed_add_left_is_swept_by_the_next(
    store: Store, checkpoint: Path, tmp_path: Path
) -> None:
    name = store.add(f"path:{checkpoint}").name
    store.remove(name)
    stale = tmp_path / "store" / "partial" / name / "model"
    stale.mkdir(parents=True)
    (stale / "half.safetensors").write_text("x")
    assert store.add(f"path:{checkpoint}").name == name
    assert not (stale.parents[1] / name).exists()


def test_two_adds_at_once_make_one_model_and_the_second_waits(
    open_store: Callable[..., Store], checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = threading.Event()
    told: list[str] = []

    def first(phase: str, done: int, total: int, /) -> None:
        assert waiting.wait(60)

    def second(phase: str, done: int, total: int, /) -> None:
        told.append(phase)
        waiting.set()

    source = f"path:{checkpoint}"
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(open_store().add(source, first))),
        threading.Thread(target=lambda: found.append(open_store().add(source, second))),
    ]
    started = threading.Event()

    def started_fetch(*arguments: Any) -> Fetched:
        started.set()
        return fetch(*arguments)

    monkeypatch.setattr("helexa.store.store.fetch", started_fetch)
    threads[0].start()
    assert started.wait(60)
    threads[1].start()
    for thread in threads:
        thread.join(60)
    assert told == ["wait"]
    assert found[0] == found[1]
    assert open_store().list() == [found[0]]


def test_without_the_node_extra_a_hub_is_one_sentence(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "helexa.store.hub", None)
    with pytest.raises(StoreError, match=r"pip install 'helexa\[node\]'"):
        store.add("hf:org/toy")


# -- hostile directories ---------------------------------------------------------------------------


def test_code_pickles_and_adapters_beside_the_weights_stay_where_they_are(
    store: Store, checkpoint: Path, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    code = f"open({str(canary)!r}, 'w')"
    (checkpoint / "config.json").write_text(
        json.dumps(
            CONFIG | {"auto_map": {"AutoConfig": "canary.C", "AutoModelForCausalLM": "canary.M"}}
        )
    )
    (checkpoint / "tokenizer_config.json").write_text(
        json.dumps(
            {"tokenizer_class": "T", "auto_map": {"AutoTokenizer": ["canary.T", "canary.T"]}}
        )
    )
    for name in ("canary.py", "torch.py", "modeling_llama.py", "sitecustomize.py"):
        (checkpoint / name).write_text(code)
    (checkpoint / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch canary'\ntR.")
    (checkpoint / "adapter_config.json").write_text('{"base_model_name_or_path": "org/other"}')
    model = store.add(f"path:{checkpoint}")
    assert not canary.exists()
    assert {p.name for p in model.path.iterdir()} == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "helexa.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert "auto_map" not in (model.path / "tokenizer_config.json").read_text()


def test_a_pickled_checkpoint_is_refused_unread(store: Store, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(StoreError, match="only as pickles"):
        store.add(f"path:{checkpoint}")


def test_a_link_out_of_the_directory_is_refused(
    store: Store, checkpoint: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    for name in ("tokenizer.json", "model.safetensors", "config.json"):
        kept = (checkpoint / name).read_bytes()
        (checkpoint / name).unlink()
        (checkpoint / name).symlink_to(secret)
        with pytest.raises(StoreError, match="leads out of its directory"):
            store.add(f"path:{checkpoint}")
        (checkpoint / name).unlink()
        (checkpoint / name).write_bytes(kept)
    assert left_over(tmp_path / "store") == NOTHING


def test_files_of_absurd_size_are_refused(store: Store, checkpoint: Path) -> None:
    with (checkpoint / "tokenizer.json").open("ab") as file:
        file.truncate(300 << 20)
    with pytest.raises(StoreError, match=r"tokenizer\.json of .* is larger"):
        store.add(f"path:{checkpoint}")
    with (checkpoint / "config.json").open("ab") as file:
        file.truncate(5 << 20)
    with pytest.raises(StoreError, match=r"config\.json of .* is larger"):
        store.add(f"path:{checkpoint}")


def test_weights_that_are_no_safetensors_are_refused(store: Store, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(b"\x80\x04cos\nsystem\n(S'x'\ntR." + b"\0" * 100)
    with pytest.raises(StoreError, match="not a sound safetensors file"):
        store.add(f"path:{checkpoint}")


def test_a_template_is_kept_as_text_and_rendered_by_nobody_here(
    store: Store, checkpoint: Path
) -> None:
    hostile = (
        "{{ ''.__class__.__mro__[1].__subclasses__() }}{% for i in range(10**12) %}x{% endfor %}"
    )
    (checkpoint / "chat_template.jinja").write_text(hostile)
    model = store.add(f"path:{checkpoint}")
    assert (model.path / "chat_template.jinja").read_text() == hostile


def test_an_older_tokenizer_gets_its_tokenizer_json(store: Store, checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").unlink()
    (checkpoint / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    (checkpoint / "vocab.json").write_text(
        json.dumps({"h": 0, "e": 1, "he": 2, "<|endoftext|>": 3})
    )
    (checkpoint / "merges.txt").write_text("#version: 0.2\nh e\n")
    model = store.add(f"path:{checkpoint}")
    assert (model.path / "tokenizer.json").exists()
    assert AutoTokenizer.from_pretrained(model.path, local_files_only=True).encode("he") == [2]


def test_a_checkpoint_without_any_tokenizer_is_refused(store: Store, checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(StoreError, match="cannot be prepared"):
        store.add(f"path:{checkpoint}")


def test_a_gguf_of_another_type_beside_is_still_its_own_model(
    store: Store, llama: PreTrainedModel, tmp_path: Path
) -> None:
    kinds = (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_1)
    files = [write_gguf(tmp_path / f"toy.{k.name}.gguf", llama, k) for k in kinds]
    names = {store.add(f"gguf:{file}").name for file in files}
    assert len(names) == 2
