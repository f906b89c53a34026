"""Why there is no CUDA: every refusal comes with words that a machine's owner can act on."""

import pytest

from helexa.devices.cuda import CudaUnavailable
from helexa.devices.host import NvidiaHardware
from helexa.devices.reasons import Circumstances, why

NOTHING = NvidiaHardware(cards=0, kernel_module=None, refused=())
CARD = NvidiaHardware(cards=1, kernel_module=None, refused=())
MODULE = NvidiaHardware(cards=1, kernel_module="580.95.05", refused=())
CLOSED = NvidiaHardware(cards=1, kernel_module="580.95.05", refused=("/dev/nvidia0",))


def refusal(code: int) -> CudaUnavailable:
    return CudaUnavailable("refused", code, "CUDA_ERROR_OF_A_TEST")


@pytest.mark.parametrize(
    ("error", "seen", "words"),
    [
        (CudaUnavailable("no_bindings"), Circumstances(CARD), "pip install 'helexa[node]'"),
        (CudaUnavailable("no_library"), Circumstances(NOTHING), "no NVIDIA card"),
        (CudaUnavailable("no_library"), Circumstances(CARD), "no NVIDIA driver"),
        (CudaUnavailable("no_library"), Circumstances(MODULE), "--gpus all"),
        (CudaUnavailable("too_old"), Circumstances(MODULE), "525 or newer"),
        (refusal(100), Circumstances(MODULE), "finds no card"),
        (refusal(100), Circumstances(CLOSED), "/dev/nvidia0 (permission denied)"),
        (refusal(100), Circumstances(MODULE, nvml_code=4), "permission denied"),
        (refusal(304), Circumstances(MODULE, nvml_code=17), "DeviceAllow="),
        (refusal(100), Circumstances(CARD, nvml_code=9), "modprobe nvidia"),
        (refusal(999), Circumstances(MODULE, nvml_code=18), "reboot"),
        (refusal(100), Circumstances(MODULE, visible_devices=""), "CUDA_VISIBLE_DEVICES=''"),
        (refusal(34), Circumstances(MODULE), "`stubs`"),
        (refusal(802), Circumstances(MODULE), "nvidia-fabricmanager"),
        (refusal(803), Circumstances(MODULE), "reboot"),
        (refusal(804), Circumstances(MODULE), "cuda-compat"),
        (refusal(999), Circumstances(MODULE), "nvidia_uvm"),
        (refusal(46), Circumstances(MODULE), "(CUDA_ERROR_OF_A_TEST, 46)"),
    ],
)
def test_a_refusal_is_explained(error: CudaUnavailable, seen: Circumstances, words: str) -> None:
    assert words in why(error, seen)
