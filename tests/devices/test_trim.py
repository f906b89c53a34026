"""What was freed is given back to the device."""

import sys
from types import SimpleNamespace

import pytest

from helexa.devices.discovery import DeviceInfo
from helexa.devices.monitor import CudaDevice


def test_a_card_gets_back_what_torch_keeps_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[bool] = []
    cuda = SimpleNamespace(empty_cache=lambda: emptied.append(True))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    CudaDevice(DeviceInfo(0, "card", "GPU-fa", 24576, "8.6", "cuda")).trim()
    assert emptied == [True]
