"""Preparing a device thread."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from helexa.engine.torch_setup import num_cores, prepare_thread


@pytest.mark.parametrize(
    ("quota", "most"),
    [("max 100000", 10**6), ("100000 100000", 1), ("5000 100000", 1), ("", 10**6)],
)
def test_a_containers_quota_bounds_the_cores(quota: str, most: int, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    assert 1 <= num_cores(tmp_path / "cpu.max") <= most
    assert num_cores(tmp_path / "none") >= 1


def test_a_number_of_threads_holds_for_the_thread_that_asked() -> None:
    seen = []

    def work() -> None:
        prepare_thread("cpu", 1)
        seen.append(torch.get_num_threads())
        prepare_thread("cpu")
        seen.append(torch.get_num_threads())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen[0] == 1
    assert 1 <= seen[1] <= num_cores()


def test_transformers_is_kept_from_the_hub_and_from_threads_of_its_own() -> None:
    code = """if True:
        from helexa.engine import worker
        worker.prepare_thread("cpu")
        from transformers.core_model_loading import is_env_variable_true
        from transformers.integrations import hub_kernels
        assert not hub_kernels._kernels_enabled
        assert is_env_variable_true("HF_DEACTIVATE_ASYNC_LOAD")
    """
    subprocess.run([sys.executable, "-c", code], check=True)
