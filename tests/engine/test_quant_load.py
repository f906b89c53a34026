"""Models whose linear layers are packed as they are loaded."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from passes import carried_out
from safetensors import safe_open
from toys import ARCHITECTURES, load_order, reference
from transformers import PreTrainedModel

from helexa.engine import stream
from helexa.engine.loader import LoadedModel, load
from helexa.engine.orders import LoadProgress, Quant
from helexa.engine.quant import packer
from helexa.engine.quant.grid import fit_4_bit, fit_8_bit
from helexa.engine.quant.linear import PACKED_ROWS, PackedLinear
from helexa.engine.quant.packer import linear_layers
from helexa.engine.skeleton import DTYPES
from helexa.errors import StoreError
from helexa.store.facts import read_facts
from helexa.store.record import RECORD

Toy = Callable[..., Path]
Find = Callable[..., Path]

WIDE = {"hidden_size": 64, "vocab_size": 208}  # shapes that the kernels take
IDS = torch.arange(3, 23)[None]
# What products in bfloat16 cost, as a part of the largest result of a layer, and in the root mean square
# as a part of the spread of a whole toy's logits.
LAYER_BOUND = 0.01
LOGITS_BOUND = 0.03


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(stream, "SLICE_BYTES", 20_000)
    monkeypatch.setattr(packer, "PACKED_AT_ONCE", 4096)
    with torch.inference_mode():
        yield


@pytest.fixture
def stored(toy: Toy, tmp_path: Path) -> Find:
    """A copy of a toy as the store keeps it."""

    def find(architecture: str = "llama", **changes: Any) -> Path:
        path = shutil.copytree(toy(architecture, **WIDE, **changes), tmp_path / architecture)
        record(path)
        return path

    return find


def record(path: Path, digest: str = "1") -> None:
    files = {file.name: {"sha256": digest + file.name} for file in path.iterdir() if file.is_file()}
    (path / RECORD).write_text(json.dumps({"files": files}))


def read(path: Path, quant: Quant, **changes: Any) -> tuple[LoadedModel, list[LoadProgress]]:
    return carried_out(load_order(path, quant=quant, **changes))


def logits(model: PreTrainedModel, ids: torch.Tensor = IDS) -> torch.Tensor:
    found: torch.Tensor = model(ids).logits.float()
    return found


def rounded(path: Path, quant: Quant) -> PreTrainedModel:
    """The plain model with the weights that a packed one has."""
    model = reference(path)
    head = model.get_output_embeddings()
    for _, layer in linear_layers(model):
        fit = fit_8_bit if quant == "int8" or layer is head else fit_4_bit
        weight = fit(layer.weight).weight(layer.in_features)
        layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    return model


def packed_names(model: PreTrainedModel) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, PackedLinear)}


@pytest.mark.parametrize("quant", ["int4", "int8"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_linear_layer_is_packed_and_computes_what_its_weights_say(
    architecture: str, dtype: str, quant: Quant, toy: Toy
) -> None:
    path = toy(architecture, **WIDE)
    model = read(path, quant, dtype=dtype)[0].model
    plain = dict(linear_layers(rounded(path, quant)))
    assert packed_names(model) == plain.keys() != set()
    random = torch.Generator().manual_seed(0)
    for name, layer in plain.items():
        x = torch.randn(2, 3, layer.in_features, generator=random).bfloat16()
        expected = layer(x.float())
        found = model.get_submodule(name)(x.to(DTYPES[dtype]))
        assert found.dtype == DTYPES[dtype]
        assert (found - expected).abs().max() <= LAYER_BOUND * expected.abs().max(), name
    assert logits(model).isfinite().all()


@pytest.mark.parametrize("quant", ["int4", "int8"])
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3_text", "lfm2"])
def test_the_logits_are_those_of_the_rounded_weights(
    architecture: str, quant: Quant, toy: Toy
) -> None:
    path = toy(architecture, **WIDE)
    expected = logits(rounded(path, quant))
    found = logits(read(path, quant)[0].model)
    assert (found - expected).square().mean().sqrt() <= LOGITS_BOUND * expected.std()


def test_both_forms_are_kept_and_the_number_of_rows_decides(toy: Toy) -> None:
    path = toy("llama", **WIDE)
    both, packed, plain = (read(path, q)[0].model for q in ("int4+bf16", "int4", "none"))
    few, many = IDS[:, :PACKED_ROWS], IDS[:, : PACKED_ROWS + 1]
    assert torch.equal(logits(both, few), logits(packed, few))
    assert not torch.equal(logits(both, few), logits(plain, few))
    # Of one sequence the logits of all its positions are computed, so the head has as many rows.
    assert torch.equal(logits(both, many), logits(plain, many))
    assert both.lm_head.weight is both.model.embed_tokens.weight


def test_a_load_is_packed_a_few_rows_at_a_time(toy: Toy) -> None:
    path = toy("llama", **WIDE)
    _, whole = read(path, "none")
    _, progress = read(path, "int4")
    assert len(progress) > 2 * len(whole)
    assert progress[-1].done_bytes == progress[-1].total_bytes == whole[-1].total_bytes
    assert progress == sorted(progress, key=lambda p: p.done_bytes)


@pytest.mark.parametrize("quant", ["none", "int4", "int8", "int4+bf16"])
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mixtral"])
def test_the_memory_is_what_the_files_foretold(architecture: str, quant: Quant, toy: Toy) -> None:
    from helexa.fleet.quant import weights_bytes

    path = toy(architecture, **WIDE)
    loaded, _ = read(path, quant)
    files = read_facts(path)
    foretold = weights_bytes(files.parameters, files.packable, quant, 4)
    assert foretold == pytest.approx(loaded.weights_bytes, rel=0.01)


# -- kept for the next load -----------------------------------------------------------------------------


@pytest.mark.parametrize("quant", ["int4", "int8", "int4+bf16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_second_load_takes_what_the_first_packed(
    architecture: str, quant: Quant, stored: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stored(architecture)
    first, before = read(path, quant)
    (file,) = (path / "packed").iterdir()
    assert file.stat().st_mode & 0o077 == 0

    def refuse(weight: torch.Tensor) -> None:
        raise AssertionError("packed again")

    monkeypatch.setattr(packer, "fit_4_bit", refuse)
    monkeypatch.setattr(packer, "fit_8_bit", refuse)
    second, after = read(path, quant)
    assert torch.equal(logits(first.model), logits(second.model))
    assert first.weights_bytes == second.weights_bytes
    is_read_again = quant == "int4+bf16"
    assert (after[-1].total_bytes == before[-1].total_bytes) is is_read_again


@pytest.mark.parametrize("first", ["int4", "int4+bf16"])
def test_both_4_bit_policies_share_one_file(
    first: Quant, stored: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stored()
    read(path, first)
    (file,) = (path / "packed").iterdir()
    written = file.stat().st_mtime_ns
    read(path, "int4+bf16" if first == "int4" else "int4")
    assert [f.stat().st_mtime_ns for f in (path / "packed").iterdir()] == [written]


def test_changed_weights_are_packed_anew_and_the_old_are_dropped(stored: Find) -> None:
    path = stored()
    read(path, "int4")
    (old,) = (path / "packed").iterdir()
    record(path, digest="2")
    read(path, "int4")
    (new,) = (path / "packed").iterdir()
    assert new.name != old.name


def test_a_damaged_file_is_packed_anew(stored: Find) -> None:
    path = stored()
    first, _ = read(path, "int4")
    (file,) = (path / "packed").iterdir()
    sound = file.read_bytes()
    file.write_bytes(sound[: len(sound) // 2])
    second, _ = read(path, "int4")
    assert torch.equal(logits(first.model), logits(second.model))
    assert file.read_bytes() == sound


def test_the_file_is_sound_safetensors(stored: Find) -> None:
    path = stored()
    loaded, _ = read(path, "int8")
    (file,) = (path / "packed").iterdir()
    with safe_open(file, framework="pt") as kept:
        names = set(kept.keys())
        assert names == {
            f"{name}.{part}" for name in packed_names(loaded.model) for part in ("levels", "scales")
        }


def test_a_disk_without_room_keeps_nothing_and_loads_all_the_same(
    stored: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    from helexa.engine.quant import kept

    monkeypatch.setattr(kept, "SPARE_BYTES", 1 << 62)
    path = stored()
    loaded, _ = read(path, "int4")
    assert packed_names(loaded.model)
    assert not list((path / "packed").iterdir())


def test_nothing_is_written_beside_a_model_that_is_not_the_stores(toy: Toy) -> None:
    path = toy("llama", **WIDE)
    read(path, "int4")
    assert not (path / "packed").exists()


def test_a_load_that_is_given_up_leaves_no_file(stored: Find) -> None:
    path = stored()
    slices = load(load_order(path, quant="int4"))
    while not (path / "packed").exists():
        next(slices)
    slices.close()
    assert not list((path / "packed").iterdir())


# -- what stays, and what is refused ----------------------------------------------------------------------


def test_layers_that_the_kernels_do_not_take_stay_plain(toy: Toy) -> None:
    loaded, _ = read(toy("qwen3"), "int4")  # 48 columns
    assert packed_names(loaded.model) == {
        name
        for name, module in loaded.model.named_modules()
        if name.endswith(("o_proj", "down_proj"))
    }


def test_fp8_is_refused_on_a_cpu_in_words(toy: Toy) -> None:
    with pytest.raises(StoreError, match="fp8 needs a CUDA card, and this is a CPU"):
        read(toy("llama", **WIDE), "fp8")
