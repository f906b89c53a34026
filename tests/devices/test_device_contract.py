"""The same cases on the CPU and on the stub driver, through the real bindings."""

from pathlib import Path

import devices_contract as contract
import pytest
from devices_stub import Stub

Results = dict[str, dict[str, str | None]]


@pytest.fixture(scope="module")
def results(stub_libraries: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Every case ran once per kind of device, all of a kind in one process."""
    stub = Stub(stub_libraries, tmp_path_factory.mktemp("contract"))
    stub.set({})
    return {
        kind: stub.run("contract_cases", kind=kind, scratch=str(stub.scratch))
        for kind in ("cpu", "stub")
    }


@pytest.mark.parametrize("case", contract.CASES)
@pytest.mark.parametrize("kind", ["cpu", "stub"])
def test_every_device_obeys(results: Results, kind: str, case: str) -> None:
    failure = results[kind][case]
    assert failure is None, failure
