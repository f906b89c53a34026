"""Compiled kernels give what the packed weights give, whatever the shape; without them all goes on."""

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from passes import CUTS, logits_of, read
from tokenizers import Tokenizer

from helexa.engine.kv.trial import alike, try_together
from helexa.engine.lean import install, library
from helexa.engine.lean.forward import Lean
from helexa.engine.lean.install import fused_form
from helexa.engine.lean.native import Native
from helexa.engine.orders import Quant
from helexa.store import StoredModel

Toy = Callable[..., Path]

TEXT = Path(__file__).parent / "texts/harbour.txt"

FEW = (4, 7, 8, 9, 13)  # where chunks of two texts end that have 8 tokens at most: computed packed

# Sizes that packed layers and the kernels take: rows in blocks of 64.
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 192,
    "initializer_range": 0.1,
}


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(autouse=True, scope="module")
def _cached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize("quant", ["int4", "int8", "int4+bf16"])
@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("llama", {}),
        ("mistral", {"num_key_value_heads": 8}),
        ("qwen2", {"head_dim": 32}),
        ("qwen3", {"attention_bias": True}),
    ],
)
def test_a_packed_model_of_the_usual_shape_is_compiled(
    architecture: str, changes: dict[str, Any], quant: Quant, toy: Toy
) -> None:
    path = toy(architecture, **SIZES | changes)
    loaded = read(path, quant=quant)
    kinds = try_together(loaded)
    cuts = FEW if quant == "int4+bf16" else CUTS
    expected = logits_of(loaded, kinds, None, cuts)
    fused = fused_form(loaded, kinds)
    assert type(fused) is Native
    assert fused.nbytes < loaded.weights_bytes * 1.01
    assert alike(expected, logits_of(loaded, kinds, fused, cuts), 0.995)


def test_what_is_not_a_number_stays_so(toy: Toy) -> None:
    loaded = read(toy("llama", **SIZES), quant="int4")
    kinds = try_together(loaded)
    loaded.model.model.layers[1].input_layernorm.weight[3] = math.nan
    fused = fused_form(loaded, kinds)
    assert type(fused) is Native
    assert logits_of(loaded, kinds, fused).isnan().all()


@pytest.mark.parametrize(
    "changes",
    [{"hidden_act": "gelu"}, {"num_key_value_heads": 2, "head_dim": 8}],
    ids=["another activation", "rows in no whole blocks"],
)
def test_what_the_kernels_do_not_know_is_fused_uncompiled(
    changes: dict[str, Any], toy: Toy
) -> None:
    loaded = read(toy("llama", **SIZES | changes), quant="int4")
    kinds = try_together(loaded)
    expected = logits_of(loaded, kinds, None)
    fused = fused_form(loaded, kinds)
    assert type(fused) is Lean
    assert alike(expected, logits_of(loaded, kinds, fused), 0.999)


def test_kernels_that_compute_something_else_are_not_used(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = read(toy("llama", **SIZES), quant="int4")
    kinds = try_together(loaded)
    real = library.library()
    assert real is not None
    real.after.argtypes = None
    monkeypatch.setattr(real, "after", lambda *_: None)
    monkeypatch.setattr(install, "library", lambda: real)
    assert type(fused_form(loaded, kinds)) is Lean


# -- the compiled file -----------------------------------------------------------------------------


def test_it_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert library.library() is not None
    (path,) = (tmp_path / "helexa").iterdir()
    assert path.parent.stat().st_mode & 0o777 == 0o700
    made = path.stat().st_mtime_ns
    monkeypatch.setenv("CXX", "/nowhere/c++")
    assert library.library() is not None
    assert path.stat().st_mtime_ns == made


def test_without_a_compiler_it_says_so_and_all_goes_on_uncompiled(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "/nowhere/c++")
    loaded = read(toy("llama", **SIZES), quant="int4")
    assert type(fused_form(loaded, try_together(loaded))) is Lean
    assert "packed layers run uncompiled" in caplog.text
    assert list((tmp_path / "helexa").iterdir()) == []


def test_a_directory_that_others_may_write_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "helexa").mkdir()
    os.chmod(tmp_path / "helexa", 0o777)
    assert library.library() is None


# -- the demo model --------------------------------------------------------------------------------

# Mean divergence of the next token from the plain form in float32, in nats.
BOUNDS: dict[Quant, float] = {"int4": 0.006, "int8": 0.008}


@pytest.mark.real
@pytest.mark.parametrize("quant", BOUNDS)
def test_the_distribution_of_the_next_token_stays_within_the_stated_bound(
    quant: Quant, demo_model: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = Tokenizer.from_file(str(demo_model.path / "tokenizer.json")).encode(TEXT.read_text()).ids
    monkeypatch.setattr("passes.prompt_of", lambda length, seed: ids[seed : seed + length])
    plain, packed = read(demo_model.path), read(demo_model.path, quant=quant)
    kinds = try_together(plain)
    try_together(packed)
    fused = fused_form(packed, kinds)
    assert type(fused) is Native
    cuts = tuple(range(8, 168, 8))
    expected, found = (
        logits_of(model, kinds, form, cuts).log_softmax(-1)
        for model, form in ((plain, None), (packed, fused))
    )
    divergence = (expected.exp() * (expected - found)).sum(-1).mean().item()
    assert divergence <= BOUNDS[quant]
