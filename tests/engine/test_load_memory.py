"""What a load takes and an unload gives back, in bytes of a process that does nothing else."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from test_loader import write_gguf

from helexa.devices.fused import fused_here
from helexa.engine.stream import SLICE_BYTES
from helexa.fleet.dtype import BYTES
from helexa.fleet.fit import size_of
from helexa.store.facts import read_facts

Toy = Callable[..., Path]
MIB = 1 << 20
# 10 layers of 3.1 million parameters, and a small vocabulary.
LARGE = {
    "hidden_size": 512,
    "head_dim": 128,
    "num_key_value_heads": 4,
    "intermediate_size": 1408,
    "num_hidden_layers": 10,
    "tie_word_embeddings": False,
}
LAYER_BYTES = 4 * (4 * 512 * 512 + 3 * 512 * 1408)  # in float32
SLACK = 20 * MIB  # of Python, of the allocator, and of the pieces that a tensor is unpacked from


def halved(source: Path, target: Path) -> Path:
    """The same checkpoint in bf16 and in one file, so that a load in fp32 has something to do."""
    target.mkdir()
    tensors = {}
    for file in source.glob("*.safetensors"):
        tensors |= {name: tensor.bfloat16() for name, tensor in load_file(file).items()}
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    config = json.loads((source / "config.json").read_text()) | {"dtype": "bfloat16"}
    (target / "config.json").write_text(json.dumps(config))
    return target


def as_gguf(source: Path, target: Path) -> Path:
    target.mkdir()
    write_gguf(source, target / "toy.gguf")
    shutil.copy(source / "config.json", target)
    return target


def told(small: Path, path: Path, **changes: object) -> dict[str, int]:
    child = Path(__file__).parent / "load_memory.py"
    paths = [str(Path(__file__).parent), *sys.path]
    done = subprocess.run(
        [sys.executable, str(child), str(small), str(path), json.dumps(changes)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "MALLOC_ARENA_MAX": "2"},
        stdout=subprocess.PIPE,
        check=True,
    )
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("form", "changes"),
    [
        (halved, {}),
        (halved, {"quant": "int4"}),
        (as_gguf, {"dtype": "bf16"}),
        (as_gguf, {"quant": "int4"}),
    ],
    ids=["safetensors", "safetensors packed", "gguf", "gguf packed"],
)
def test_a_load_takes_its_weights_and_a_layer_and_an_unload_gives_all_back(
    form: Callable[[Path, Path], Path], changes: dict[str, Any], toy: Toy, tmp_path: Path
) -> None:
    small, large = (
        form(toy("llama", **{**LARGE, **size}), tmp_path / name)
        for name, size in (
            (
                "small",
                {
                    "num_hidden_layers": 1,
                    "hidden_size": 64,
                    "head_dim": 16,
                    "intermediate_size": 96,
                },
            ),
            ("large", {}),
        )
    )
    found = told(small, large, **changes)
    size, dtype, quant = (
        size_of(read_facts(large)),
        changes.get("dtype", "fp32"),
        changes.get("quant", "none"),
    )
    foretold = size.weights_bytes(BYTES[dtype], quant)
    kept = size.loaded_bytes(dtype, quant, fused_here("cpu", dtype))
    assert found["weights"] == pytest.approx(kept, abs=MIB)  # its odd vocabulary is not packed
    assert found["there"] <= found["weights"] + SLACK
    assert found["peak"] <= foretold + max(LAYER_BYTES, 2 * SLICE_BYTES) + SLACK
    assert found["left"] <= SLACK
    assert found["aborted"] <= SLACK
