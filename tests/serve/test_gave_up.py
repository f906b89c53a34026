"""A device that keeps crashing: the process ends, says why, and leaves the rest to systemd."""

from pathlib import Path

import pytest
from process import MODEL, helexa, select_nothing

from helexa.control.client import Ended, NoDaemon, Refused
from helexa.local import DEVICE_POLICY

pytestmark = pytest.mark.real


def test_a_device_that_crashes_too_often_ends_the_process_with_4(
    store_dir: Path, tmp_path: Path
) -> None:
    server = (str(Path(__file__).with_name("crashing_server.py")),)
    with helexa(tmp_path / "state", store_dir, {}, server) as process:
        while process.process.poll() is None:
            try:
                process.control("load", model=MODEL)
            except (NoDaemon, Ended, Refused):
                select_nothing(0.05)
        assert process.process.returncode == 4
        crashes = [line for line in process.events("actor crashed") if "device" in line["actor"]]
        assert len(crashes) == DEVICE_POLICY.max_restarts + 1
        (end,) = process.events("helexa ends")
        assert end["reason"] == "device 0 crashed too often: RuntimeError('a bug in the worker')"
        assert end["exit_code"] == 4
