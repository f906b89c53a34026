"""How fast a device multiplies by weights in each form: measured in slices, kept, and never fatal."""

import json
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from attrs import evolve
from torch import Tensor
from toys import cpu_worker, load_order, prompt_of, run

from helexa.engine.lean import library
from helexa.engine.orders import (
    Abort,
    Add,
    Measure,
    Measured,
    Notice,
    Quant,
)
from helexa.engine.orders import (
    Piece as Token,
)
from helexa.engine.quant import pieces, speed
from helexa.engine.quant.kept_speeds import KeptSpeeds
from helexa.engine.quant.kernels import Int4Kernel
from helexa.engine.quant.pieces import Cutter, piece_rows
from helexa.engine.quant.speed import is_steady, measure

T = TypeVar("T")

SHAPES = ((64, 64, 4), (128, 96, 2))
QUANTS: tuple[Quant, ...] = ("none", "int4", "int8", "int4+bf16")


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(library, "compiled", lambda *_: iter(()))  # the kernels are tried elsewhere
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(speed, "STEADY", float("inf"))  # whoever else runs on this machine
    with torch.inference_mode():
        yield


def order(*quants: Quant, fuses: bool = True) -> Measure:
    return Measure(1, "toy", "cpu", "fp32", quants or QUANTS, SHAPES, fuses)


def ended(slices: Generator[object, None, T]) -> tuple[T, int]:
    """What comes of it, and in how many slices."""
    count = 0
    while True:
        try:
            next(slices)
        except StopIteration as end:
            return end.value, count
        count += 1


@pytest.mark.parametrize("fuses", [True, False])
def test_every_form_is_measured_in_slices(fuses: bool) -> None:
    measured, slices = ended(measure(order(fuses=fuses)))
    assert [quant for quant, _ in measured.seconds] == list(QUANTS)
    assert all(seconds > 0 for _, seconds in measured.seconds)
    assert slices > 4 * len(QUANTS)


def test_what_was_measured_is_kept_for_the_next_load(tmp_path: Path) -> None:
    first, _ = ended(measure(order()))
    (file,) = (tmp_path / "helexa").iterdir()
    assert file.stat().st_mode & 0o077 == 0
    second, slices = ended(measure(order()))
    assert (second, slices) == (first, 0)


def test_what_another_program_disturbed_is_used_but_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "STEADY", 0.0)
    measured, _ = ended(measure(order("int4")))
    assert [quant for quant, _ in measured.seconds] == ["int4"]
    assert not (tmp_path / "helexa").exists()


def test_two_rounds_must_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "STEADY", 1.25)
    assert is_steady({"none": 4.0, "int4": 1.0}, {"none": 4.9, "int4": 0.9})
    assert not is_steady({"none": 4.0, "int4": 1.0}, {"none": 4.0, "int4": 20.0})
    assert not is_steady({"none": 4.0, "int4": 1.0}, {"none": 4.0})


@pytest.mark.parametrize("content", ["", "[]", '{"seconds": [1]}', '{"seconds": {"int4": "x"}}'])
def test_a_damaged_file_is_measured_anew(content: str, tmp_path: Path) -> None:
    kept = KeptSpeeds.of(order("int4"), compiled=False)
    kept.write({})
    kept.path.write_text(content)
    measured, _ = ended(measure(order("int4")))
    assert json.loads(kept.path.read_text()) == {"seconds": dict(measured.seconds)}


def test_other_shapes_forms_or_kernels_are_other_measurements() -> None:
    ways = [
        KeptSpeeds.of(order("int4"), compiled=False),
        KeptSpeeds.of(order("int4"), compiled=True),
        KeptSpeeds.of(order("int8"), compiled=False),
        KeptSpeeds.of(order("int4", fuses=False), compiled=False),
    ]
    assert len({kept.path for kept in ways}) == len(ways)


def test_kernels_that_compute_something_else_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    real = pieces.int4_kernel

    def broken(device: str) -> Int4Kernel:
        def multiply(x: Tensor, levels: Tensor, group: int, scales: Tensor) -> Tensor:
            return real(device).multiply(x, levels, group, scales) * 2

        return evolve(real(device), multiply=multiply)

    monkeypatch.setattr(pieces, "int4_kernel", broken)
    measured, _ = ended(measure(order()))
    assert [quant for quant, _ in measured.seconds] == ["none"]


def test_pieces_of_large_layers_are_whole_blocks_of_rows() -> None:
    assert piece_rows(14336, 4096) == 256
    assert piece_rows(192, 576) == 192
    assert piece_rows(4096, 1 << 21) == 64
    assert Cutter(order("int4"), "int4", None).cut(100 * 64, 1 << 14).nbytes < 1 << 20


# -- on the device's thread ------------------------------------------------------------------------


def test_streams_go_on_while_something_is_measured(
    toy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helexa.engine.worker.LOAD_SECONDS", 0.0)
    worker = cpu_worker(threads=1)
    worker.apply(load_order(toy("llama"), uid=7))
    run(worker)
    worker.apply(Measure(8, "toy", "cpu", "fp32", QUANTS, SHAPES, fuses=True))
    worker.apply(Add(9, 7, prompt_of(5), max_tokens=4))
    told: list[Notice] = []
    while sum(isinstance(notice, Token) for notice in told) < 4:
        assert not any(isinstance(notice, Measured) for notice in told)
        told += worker.step()
    assert any(isinstance(notice, Measured) for notice in run(worker))


def test_a_measurement_that_nobody_waits_for_any_more_ends() -> None:
    worker = cpu_worker(threads=1)
    worker.apply(order())
    worker.step()
    worker.apply(Abort(1))
    assert worker.step() == []
    assert worker.idle
