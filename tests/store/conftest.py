"""Toy models, and stores that prepare them without a child process."""

import os
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
from store_toys import toy_model, write_checkpoint, write_gguf
from transformers import PreTrainedModel

from helexa.config.schema import Store as Settings
from helexa.errors import StoreError
from helexa.store import Store
from helexa.store.prepare import answer


@pytest.fixture(scope="session")
def llama() -> PreTrainedModel:
    return toy_model()


@pytest.fixture
def small_gguf(tmp_path: Path, llama: PreTrainedModel) -> Path:
    return write_gguf(tmp_path / "toy.Q8_0.gguf", llama, gguf.GGMLQuantizationType.Q8_0)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "toy")


@pytest.fixture
def prepared_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do the child's work in this process: the same code, without seconds of imports per model."""

    def run_here(order: dict[str, object], memory: int = 0) -> None:
        previous = os.umask(0o077)
        told = answer(dict(order))
        os.umask(previous)
        if "error" in told:
            raise StoreError(told["error"])

    monkeypatch.setattr("helexa.store.assemble.run_child", run_here)


@pytest.fixture
def open_store(tmp_path: Path, prepared_in_process: None) -> Callable[..., Store]:
    """Opens the store under test, with settings of the caller's choice."""
    return lambda **settings: Store(
        Settings(**{"min_free_gb": 0.0, **settings}), tmp_path / "store"
    )


@pytest.fixture
def store(open_store: Callable[..., Store]) -> Store:
    return open_store()
