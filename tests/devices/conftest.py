"""The stub driver, compiled once per test run, and the machine it is in."""

from pathlib import Path

import pytest
from devices_machine import Machine
from devices_stub import Stub, build


@pytest.fixture(scope="session")
def stub_libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("stub") / "libraries")


@pytest.fixture(scope="session")
def old_libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A driver from before CUDA 12, which lacks cuGetProcAddress_v2."""
    return build(tmp_path_factory.mktemp("stub") / "old", ["-DBEFORE_CUDA_12"])


@pytest.fixture
def stub(stub_libraries: Path, tmp_path: Path) -> Stub:
    stub = Stub(stub_libraries, tmp_path)
    stub.set({})
    return stub


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "root")
