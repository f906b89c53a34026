import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import script_models
from process import Helexa, helexa

from helexa.store import Store, StoredModel


@pytest.fixture(scope="session")
def store_dir(demo_store: Store, demo_model: StoredModel) -> Path:
    """A store that has the demo model."""
    return demo_model.path.parent.parent


@pytest.fixture(scope="session")
def served(store_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Helexa]:
    """One process with both roles, shared by the tests that leave it as they found it."""
    with helexa(tmp_path_factory.mktemp("served") / "state", store_dir) as process:
        yield process


@pytest.fixture(scope="session")
def scripts(
    store_dir: Path, qwen3_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Helexa]:
    """One process that serves `script_models`, shared like `served`."""
    folder = tmp_path_factory.mktemp("scripts")
    options = script_models.options(folder, qwen3_tokenizer)
    with helexa(folder / "state", store_dir, options) as process:
        yield process


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"
