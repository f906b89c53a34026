"""Compiled kernels give what the packed weights give, whatever the shape; without them all goes on."""

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from passes import CUTS, fused_if_it_can_be, logits_of, read
from toys import cpu_worker, load_order, run

from helexa.engine import loader
from helexa.engine.kv.trial import alike, try_together
from helexa.engine.lean import install, library
from helexa.engine.lean.forward import Lean
from helexa.engine.lean.native import Native
from helexa.engine.loader import load
from helexa.engine.orders import Add, Loaded, LoadProgress, Measure, Notice, Piece, Quant
from helexa.engine.quant.pieces import Cutter

Toy = Callable[..., Path]

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
    tried = try_together(loaded)
    cuts = FEW if quant == "int4+bf16" else CUTS
    expected = logits_of(loaded, tried.kinds, None, cuts)
    fused = fused_if_it_can_be(loaded, tried)
    assert type(fused) is Native
    assert fused.nbytes < loaded.weights_bytes * 1.01
    assert alike(expected, logits_of(loaded, tried.kinds, fused, cuts), 0.995)


@pytest.mark.parametrize("quant", ["int4", "int8"])
def test_a_text_is_multiplied_as_its_tokens_alone_are(quant: Quant) -> None:
    list(library.compiling())
    order = Measure(1, "toy", "cpu", "fp32", (quant,), (), True)
    piece = Cutter(order, quant, library.library()).cut(64, 1600)
    text = torch.randn(50, 1600)
    alone = [piece.multiply(token) for token in text[:, None]]
    assert torch.equal(piece.multiply(text), torch.cat(alone))


def test_what_is_not_a_number_stays_so(toy: Toy) -> None:
    loaded = read(toy("llama", **SIZES), quant="int4")
    tried = try_together(loaded)
    loaded.model.model.layers[1].input_layernorm.weight[3] = math.nan
    fused = fused_if_it_can_be(loaded, tried)
    assert type(fused) is Native
    assert logits_of(loaded, tried.kinds, fused).isnan().all()


@pytest.mark.parametrize(
    "changes",
    [{"hidden_act": "gelu"}, {"num_key_value_heads": 2, "head_dim": 8}],
    ids=["another activation", "rows in no whole blocks"],
)
def test_what_the_kernels_do_not_know_is_fused_uncompiled(
    changes: dict[str, Any], toy: Toy
) -> None:
    loaded = read(toy("llama", **SIZES | changes), quant="int4")
    tried = try_together(loaded)
    expected = logits_of(loaded, tried.kinds, None)
    fused = fused_if_it_can_be(loaded, tried)
    assert type(fused) is Lean
    assert alike(expected, logits_of(loaded, tried.kinds, fused), 0.999)


def test_kernels_that_compute_something_else_are_not_used(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = read(toy("llama", **SIZES), quant="int4")
    tried = try_together(loaded)
    real = library.library()
    assert real is not None
    real.after.argtypes = None
    monkeypatch.setattr(real, "after", lambda *_: None)
    monkeypatch.setattr(install, "library", lambda: real)
    assert type(fused_if_it_can_be(loaded, tried)) is Lean


# -- the compiled file -----------------------------------------------------------------------------


def test_it_is_compiled_once_by_a_process_that_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert library.library() is None
    looks = sum(1 for _ in library.compiling())
    assert looks > 1
    assert library.library() is not None
    (path,) = (tmp_path / "helexa").iterdir()
    assert path.parent.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("CXX", "/nowhere/c++")
    assert list(library.compiling()) == []
    assert library.library() is not None


def test_a_load_that_is_given_up_ends_the_compiler(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    slices = load(load_order(toy("llama", **SIZES), quant="int4"))
    next(slices)
    assert list((tmp_path / "helexa").iterdir()) != []
    slices.close()
    assert list((tmp_path / "helexa").iterdir()) == []


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [("/nowhere/c++", "No such file"), ("/bin/false", "/bin/false: status 1")],
)
def test_without_a_compiler_that_works_it_says_so_and_all_goes_on_uncompiled(
    compiler: str,
    reason: str,
    toy: Toy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", compiler)
    loaded = read(toy("llama", **SIZES), quant="int4")
    assert type(fused_if_it_can_be(loaded, try_together(loaded))) is Lean
    (told,) = [r for r in caplog.records if "packed layers run uncompiled" in r.getMessage()]
    assert reason in str(vars(told))
    assert list((tmp_path / "helexa").iterdir()) == []


def test_a_compiler_that_takes_too_long_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(library, "COMPILE_SECONDS", 0)
    assert len(list(library.compiling())) <= 1
    assert library.library() is None
    assert "packed layers run uncompiled" in caplog.text


def test_a_directory_that_others_may_write_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "helexa").mkdir()
    os.chmod(tmp_path / "helexa", 0o777)
    assert list(library.compiling()) == []
    assert library.library() is None
    assert list((tmp_path / "helexa").iterdir()) == []


# -- beside running streams ------------------------------------------------------------------------


def test_streams_go_on_while_the_kernels_are_compiled(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, is_compiled = toy("llama", **SIZES), Event()

    def compiling() -> Iterator[None]:
        while not is_compiled.is_set():
            yield

    monkeypatch.setattr(loader, "compiling", compiling)
    worker = cpu_worker(threads=1)
    worker.apply(load_order(path, uid=1))
    run(worker)
    worker.apply(load_order(path, uid=2, quant="int4"))
    worker.apply(Add(3, 1, (5, 6, 7), max_tokens=4))
    told: list[Notice] = []
    while sum(isinstance(notice, Piece) for notice in told) < 4:
        told += worker.step()
    assert not any(isinstance(notice, Loaded) for notice in told)
    assert any(isinstance(notice, LoadProgress) for notice in told)
    is_compiled.set()
    assert any(isinstance(notice, Loaded) for notice in run(worker))
