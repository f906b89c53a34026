"""`helexa models fit`: told from headers alone, before anything is downloaded."""

import json
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_hub import Hub, serving
from store_toys import write_checkpoint
from transformers import PreTrainedModel

from helexa.config.schema import Config, Node, Places
from helexa.config.schema import Store as Settings
from helexa.errors import StoreError
from helexa.fleet.catalogue import Catalogue, CatalogueModel
from helexa.store.command import register, run
from helexa.store.facts import packable_of, read_facts
from helexa.store.nodes import ALONE
from helexa.store.preview import outline

Type = Callable[..., int]


@pytest.fixture
def type_in(tmp_path: Path, prepared_in_process: None) -> Type:
    parser = ArgumentParser()
    register(parser.add_subparsers(dest="command"))
    places = Places(state_dir=tmp_path, store_dir=tmp_path / "store", socket=tmp_path / "s")
    config = Config(store=Settings(min_free_gb=0), node=Node(memory_mb=16_000))
    entry = CatalogueModel(id="named", source=f"path:{tmp_path / 'toy'}", max_context=32)

    def type_words(*words: str) -> int:
        return run(parser.parse_args(["models", *words]), config, places, Catalogue((entry,)))

    return type_words


def test_a_directory_is_looked_at_and_nothing_is_added(
    type_in: Type, tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert type_in("fit", f"path:{checkpoint}") == 0
    told = capsys.readouterr().out
    assert "16000 MB" in told
    for quant in ("none", "int4+bf16", "int8", "int4"):
        assert f"    {quant} " in told
    assert "fp8 needs a CUDA card, and this is a CPU" in told
    assert type_in("list") == 0
    assert "the store is empty" in capsys.readouterr().out


def test_an_entry_of_the_catalogue_bounds_the_context(
    type_in: Type, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert type_in("fit", "named", "--json") == 0
    (device,) = json.loads(capsys.readouterr().out)["devices"]
    assert {fit["context"] for fit in device["fits"] if not fit["reason"]} == {32}


def test_a_model_of_the_store_is_read_there(
    type_in: Type, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in("add", f"path:{checkpoint}")
    (checkpoint / "config.json").unlink()
    assert type_in("fit", f"path:{checkpoint}") == 0
    assert "positions" in capsys.readouterr().out


def test_a_source_that_cannot_be_looked_at_is_one_sentence(
    type_in: Type, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert type_in("fit", f"path:{tmp_path}/nothing") == 1
    assert "has no config.json" in capsys.readouterr().err
    assert type_in("fit", "pypi:some==1/model.gguf") == 1
    assert "helexa models add" in capsys.readouterr().err


def test_a_gguf_says_the_same_as_its_model(small_gguf: Path, llama: PreTrainedModel) -> None:
    files = outline(f"gguf:{small_gguf}", Settings(), ALONE)
    config = llama.config
    assert files.parameters == llama.num_parameters()
    assert files.facts.layers.full == config.num_hidden_layers
    assert (files.facts.kv_heads, files.facts.head_dim) == (
        config.num_key_value_heads,
        config.head_dim,
    )
    assert files.facts.max_position_embeddings == config.max_position_embeddings
    assert files.facts.vocab_size == config.vocab_size


@pytest.fixture
def hub_files(tmp_path: Path) -> dict[str, bytes]:
    directory = write_checkpoint(tmp_path / "hub")
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


@pytest.fixture
def at_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Hub], None]:
    def point(hub: Hub) -> None:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)

    return point


def test_of_a_hub_the_heads_are_read(
    hub_files: dict[str, bytes], at_hub: Callable[[Hub], None], tmp_path: Path
) -> None:
    with serving(Hub(hub_files)) as hub:
        at_hub(hub)
        files = outline("hf:org/toy", Settings(), ALONE)
    here = read_facts(tmp_path / "hub")
    assert (files.parameters, files.packable) == (here.parameters, here.packable)
    assert files.facts.layers == here.facts.layers


def test_a_head_that_is_no_safetensors_is_refused(
    hub_files: dict[str, bytes], at_hub: Callable[[Hub], None]
) -> None:
    with serving(Hub({**hub_files, "model.safetensors": b"\xff" * 64})) as hub:
        at_hub(hub)
        with pytest.raises(StoreError, match=r"model\.safetensors is not a sound safetensors file"):
            outline("hf:org/toy", Settings(), ALONE)


def test_a_gguf_of_a_hub_is_looked_at_too(small_gguf: Path, at_hub: Callable[[Hub], None]) -> None:
    with serving(Hub({"toy.Q8_0.gguf": small_gguf.read_bytes()})) as hub:
        at_hub(hub)
        files = outline("hf:org/toy", Settings(), ALONE)
    assert files.parameters == outline(f"gguf:{small_gguf}", Settings(), ALONE).parameters


def test_gates_embeddings_and_odd_shapes_are_not_counted_as_packable() -> None:
    found = packable_of(
        {
            "model.embed_tokens.weight": (320, 64),
            "model.layers.0.self_attn.q_proj.weight": (64, 64),
            "model.layers.0.self_attn.q_proj.bias": (64,),
            "model.layers.0.mlp.gate.weight": (16, 64),
            "model.layers.0.mlp.experts.0.up_proj.weight": (64, 64),
            "model.layers.0.mlp.odd.weight": (17, 64),
            "model.layers.0.norm.weight": (64,),
            "lm_head.weight": (320, 64),
        }
    )
    assert (found.layers, found.head, found.tied) == (64 * 64, 320 * 64, False)
    tied = packable_of({"token_embd.weight": (320, 64), "blk.0.attn_q.weight": (64, 64)})
    assert (tied.layers, tied.head, tied.tied) == (64 * 64, 320 * 64, True)
