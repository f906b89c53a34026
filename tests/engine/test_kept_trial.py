"""What a model's trial found is kept beside it, for as long as nothing that it hangs on changes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import answer, cpu_worker, generate, load_order, prompt_of, reference, run

from helexa.engine import kept_trial, room
from helexa.engine.kept_trial import KeptTrial
from helexa.engine.kv.layers import NotTogether
from helexa.engine.lean.parts import Unusual
from helexa.engine.orders import Add, Failed, Loaded, Notice, Quant, SamplingParams, Unload
from helexa.engine.worker import Worker
from helexa.store.record import RECORD

Toy = Callable[..., Path]
Find = Callable[..., Path]
GREEDY = SamplingParams(temperature=0)
PROMPT = prompt_of(40)
# Shapes that packed layers and compiled kernels take.
WIDE = {"hidden_size": 64, "intermediate_size": 192, "num_attention_heads": 8, "vocab_size": 256}
ODD = {"head_dim": 24, "num_key_value_heads": 1}  # keys and values stay plain beside packed queries


@pytest.fixture
def stored(toy: Toy, tmp_path: Path) -> Find:
    """A copy of a toy as the store keeps it, in 16 bits if `dtype` says so."""

    def find(
        architecture: str = "llama", dtype: torch.dtype = torch.float32, **changes: Any
    ) -> Path:
        source, path = toy(architecture, **changes), tmp_path / architecture
        path.mkdir()
        shutil.copy(source / "config.json", path)
        tensors: dict[str, torch.Tensor] = {}
        for file in source.glob("*.safetensors"):
            tensors |= {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
        save_file(tensors, path / "model.safetensors", {"format": "pt"})
        (path / RECORD).write_text(json.dumps({"files": {}}))
        return path

    return find


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that were tried, by name."""
    found: list[str] = []
    real = room.try_together

    def tried(loaded: Any) -> Any:
        found.append(loaded.name)
        return real(loaded)

    monkeypatch.setattr(room, "try_together", tried)
    return found


def told(worker: Worker, path: Path, **changes: Any) -> list[Notice]:
    """Of a load in place of what was loaded before."""
    worker.apply(Unload(1))
    run(worker)
    worker.apply(load_order(path, uid=1, **changes))
    return run(worker)


def says(worker: Worker) -> list[int]:
    return answer(worker, Add(2, 1, PROMPT, 8, GREEDY))


def kept(path: Path) -> list[Path]:
    return sorted((path / "packed").glob("trial-*"))


@pytest.mark.parametrize(
    ("dtype", "quant", "changes"),
    [
        (torch.float32, "none", {}),
        (torch.float16, "none", {}),
        (torch.bfloat16, "none", {}),
        (torch.bfloat16, "int4", {}),
        (torch.float16, "int4", ODD),
        (torch.float16, "int4+bf16", {}),
    ],
)
def test_only_the_first_load_tries_and_the_second_answers_the_same(
    dtype: torch.dtype, quant: Quant, changes: dict[str, int], stored: Find, trials: list[str]
) -> None:
    path, worker = stored(dtype=dtype, **WIDE | changes), cpu_worker(threads=1)
    (*_, first) = told(worker, path, quant=quant, prefix_cache=False)
    before = says(worker)
    (file,) = kept(path)
    assert file.stat().st_mode & 0o077 == 0
    (*_, second) = told(worker, path, quant=quant, prefix_cache=False)
    assert len(trials) == 1
    assert says(worker) == before
    assert isinstance(first, Loaded)
    assert isinstance(second, Loaded)
    assert second.weights_bytes <= first.weights_bytes
    if quant == "none":
        assert before == generate(reference(path), PROMPT, 8)


@pytest.mark.parametrize("architecture", ["gemma3_text", "lfm2"])
def test_a_model_of_another_shape_is_tried_once_too(
    architecture: str, stored: Find, trials: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "helexa.engine")
    path, worker = stored(architecture), cpu_worker(threads=1)
    answers = []
    for _ in range(2):
        told(worker, path)
        answers.append(says(worker))
    assert len(trials) == 1
    assert answers[0] == answers[1] == generate(reference(path), PROMPT, 8)
    assert caplog.text.count("not fused") == 2


def test_the_log_tells_of_what_was_kept(
    stored: Find, trials: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "helexa.engine")
    path, worker = stored(), cpu_worker(threads=1)
    told(worker, path)
    assert "tried at an earlier load" not in caplog.text
    told(worker, path)
    assert caplog.text.count("tried at an earlier load") == 1


@pytest.mark.parametrize("content", ["", "[]", '{"kinds": [], "unfused": ""', '{"kinds": [[]]}'])
def test_a_damaged_file_is_tried_anew(content: str, stored: Find, trials: list[str]) -> None:
    path, worker = stored(), cpu_worker(threads=1)
    told(worker, path)
    (file,) = kept(path)
    sound = file.read_text()
    file.write_text(content)
    told(worker, path)
    assert len(trials) == 2
    assert file.read_text() == sound


def test_a_file_that_others_may_have_written_is_tried_anew(stored: Find, trials: list[str]) -> None:
    path, worker = stored(), cpu_worker(threads=1)
    told(worker, path)
    (path / "packed").chmod(0o777)
    told(worker, path)
    assert len(trials) == 2


def test_other_weights_versions_or_ways_of_loading_are_other_trials(
    stored: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stored()
    orders = [
        load_order(path),
        load_order(path, dtype="bf16"),
        load_order(path, quant="int4"),
        load_order(path, quant="int4+bf16"),
    ]
    found = {KeptTrial.of(order) for order in orders}
    with monkeypatch.context() as patch:
        patch.setattr(kept_trial.transformers, "__version__", "0.0.1")
        found.add(KeptTrial.of(orders[0]))
    with monkeypatch.context() as patch:
        patch.setattr(kept_trial, "ENGINE", kept_trial.ENGINE / "quant")
        found.add(KeptTrial.of(orders[0]))
    with monkeypatch.context() as patch:
        patch.setattr(kept_trial, "device_name", lambda _: "another")
        found.add(KeptTrial.of(orders[0]))
    with (path / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\1")
    found.add(KeptTrial.of(orders[0]))
    assert len(found) == len(orders) + 4


def test_what_is_found_anew_takes_the_place_of_what_does_not_fit_any_more(
    stored: Find, trials: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, worker = stored(), cpu_worker(threads=1)
    told(worker, path)
    told(worker, path, dtype="bf16")
    before = kept(path)
    monkeypatch.setattr(kept_trial.transformers, "__version__", "0.0.1")
    told(worker, path)
    after = kept(path)
    assert len(trials) == 3
    assert len(before) == len(after) == 2
    assert len(set(before) & set(after)) == 1


@pytest.mark.parametrize("part", ["try_together", "try_fused"])
def test_what_went_wrong_by_itself_is_tried_again(
    part: str, stored: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise (NotTogether if part == "try_together" else Unusual)("it fails") from OSError()

    path, worker = stored(), cpu_worker(threads=1)
    with monkeypatch.context() as patch:
        patch.setattr(room, part, fail)
        told(worker, path)
    assert kept(path) == []
    told(worker, path)
    assert len(kept(path)) == 1


def test_a_load_that_fails_with_what_was_kept_tries_the_next_time(
    stored: Find, trials: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("it does not fit")

    path, worker = stored(), cpu_worker(threads=1)
    told(worker, path)
    with monkeypatch.context() as patch:
        patch.setattr(room, "fused_form", fail)
        notices = told(worker, path)
    assert isinstance(notices[-1], Failed)
    assert kept(path) == []
    told(worker, path)
    assert len(trials) == 2


def test_nothing_is_written_beside_a_model_that_is_not_the_stores(
    toy: Toy, trials: list[str]
) -> None:
    worker = cpu_worker(threads=1)
    for _ in range(2):
        told(worker, toy())
    assert len(trials) == 2
    assert not (toy() / "packed").exists()
