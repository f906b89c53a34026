"""Gateways whose models say what rules tell them to, and the real agents that talk to them."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from agent_rules import LOAD_SECONDS, catalogue, furnish, rules
from coding_agents import Home, install
from process import Helexa, helexa

STREAM_OPEN_SECONDS = "0.5"  # so that a stream is open long before the slow one is loaded


@pytest.fixture(scope="session")
def agent_commands(store_dir: Path) -> Path:
    return install(store_dir)


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the agents work in."""
    made = tmp_path_factory.mktemp("work")
    furnish(made)
    return made


@pytest.fixture
def home(agent_commands: Path, tmp_path: Path, work: Path) -> Home:
    return Home(agent_commands, tmp_path, work)


@pytest.fixture(scope="session")
def scripted(
    store_dir: Path, qwen3_tokenizer: Path, work: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Helexa]:
    """`scripted`, `narrow` and `tiny` windows, `slow` to load, and `breaking`, whose rules tests write."""
    folder = tmp_path_factory.mktemp("scripted")
    models = {
        "scripted": 'aliases = ["small"]',
        "narrow": "max_context = 20480",
        "tiny": "max_context = 4096",
    }
    written = catalogue(qwen3_tokenizer, **models, slow="", breaking="")
    (folder / "models.toml").write_text(written)
    for name in (*models, "breaking"):
        (folder / f"{name}.rules").write_text(rules(work))
    (folder / "slow.rules").write_text(f"load_seconds = {LOAD_SECONDS}\n{rules(work)}")
    options = {
        "HELEXA_MODELS__CATALOGUE": str(folder / "models.toml"),
        "HELEXA_MODELS__PRELOAD": '["scripted", "narrow"]',
        "HELEXA_ADMISSION__STREAM_OPEN_SECONDS": STREAM_OPEN_SECONDS,
    }
    with helexa(folder / "state", store_dir, options) as process:
        yield process


@pytest.fixture(scope="session")
def crowded(
    store_dir: Path, qwen3_tokenizer: Path, work: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Helexa]:
    """A model with one place and no queue before it."""
    folder = tmp_path_factory.mktemp("crowded")
    (folder / "models.toml").write_text(catalogue(qwen3_tokenizer, scripted=""))
    (folder / "scripted.rules").write_text(rules(work))
    options = {
        "HELEXA_MODELS__CATALOGUE": str(folder / "models.toml"),
        "HELEXA_MODELS__PRELOAD": '["scripted"]',
        "HELEXA_ADMISSION__MAX_IN_FLIGHT": "1",
        "HELEXA_ADMISSION__MAX_QUEUE_DEPTH": "0",
    }
    with helexa(folder / "state", store_dir, options) as process:
        yield process
