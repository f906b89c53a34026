"""What every room's tests may use."""

import os
from pathlib import Path

import pytest

from helexa.config.schema import Store as StoreSettings
from helexa.fleet.catalogue import DEMO_MODEL
from helexa.store import Store, StoredModel


@pytest.fixture(scope="session")
def demo_store() -> Store:
    """A store kept from run to run, so that the demo model is prepared once per machine."""
    kept = os.environ.get("HELEXA_TEST_CACHE")
    root = Path(kept) if kept else Path.home() / ".cache" / "helexa-test"
    return Store(StoreSettings(), root)


@pytest.fixture(scope="session")
def demo_model(demo_store: Store) -> StoredModel:
    """The real demo model, for tests marked `real`."""
    return demo_store.add(DEMO_MODEL.source)
