"""Which errors poison a device, held against what NVIDIA's own bindings say of them."""

import pytest
from cuda.bindings import driver, runtime

from helexa.devices.cuda import CudaError
from helexa.devices.faults import STICKY, STICKY_CODES, Fault, classify
from helexa.devices.nvml import NvmlError

STICKY_WITHOUT_THE_WORDS = {214, 220, 710}


class AcceleratorError(RuntimeError):
    """As torch's: a code beside the words."""

    def __init__(self, message: str, error_code: int) -> None:
        super().__init__(message)
        self.error_code = error_code


class OutOfMemoryError(RuntimeError):
    """As torch's."""


def test_causes_in_a_circle_are_looked_through_once() -> None:
    first, second = ValueError("first"), MemoryError("second")
    first.__cause__, second.__cause__ = second, first
    assert classify(first) == classify(second) == "out_of_memory"


def test_every_error_that_nvidia_says_ends_the_process_is_sticky() -> None:
    says_so = {
        int(code)
        for code in driver.CUresult
        if "the process must be terminated" in " ".join((code.__doc__ or "").split())
    }
    assert says_so | STICKY_WITHOUT_THE_WORDS == STICKY_CODES


@pytest.mark.parametrize(("code", "name", "words"), STICKY)
def test_codes_names_and_words_are_cudas_own(code: int, name: str, words: str) -> None:
    error = runtime.cudaError_t(code)
    _, said = runtime.cudaGetErrorString(error)
    assert error.name == name
    assert words in said.decode()


@pytest.mark.parametrize("code", sorted(STICKY_CODES))
def test_a_sticky_code_of_the_driver_poisons(code: int) -> None:
    assert classify(CudaError("cuCtxSynchronize", code, "CUDA_ERROR")) == "sticky"


@pytest.mark.parametrize(("code", "name", "words"), STICKY)
def test_torch_says_the_same_in_words(code: int, name: str, words: str) -> None:
    advice = "CUDA kernel errors might be asynchronously reported at some other API call"
    assert classify(RuntimeError(f"CUDA error: {words}\n{advice}")) == "sticky"
    assert classify(RuntimeError(f"CUDA error: ?\nSearch for `{name}' in the docs")) == "sticky"


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (AcceleratorError("CUDA error: ?", 700), "sticky"),
        (AcceleratorError("CUDA error: out of memory", 2), "out_of_memory"),
        (AcceleratorError("CUDA error: invalid argument", 1), "other"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), "out_of_memory"),
        (RuntimeError("CUDA error: out of memory"), "out_of_memory"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
            "out_of_memory",
        ),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: "
                "can't allocate memory: you tried to allocate 4398046511104 bytes."
            ),
            "out_of_memory",
        ),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("CUDA error: no kernel image is available for execution"), "other"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "other"),
        (RuntimeError("a test of misaligned address handling on the host"), "other"),
        (ValueError("CUDA error: device-side assert triggered"), "other"),
        (CudaError("cuMemAlloc", 2, "CUDA_ERROR_OUT_OF_MEMORY"), "out_of_memory"),
        (CudaError("cuInit", 999, "CUDA_ERROR_UNKNOWN"), "other"),
        (NvmlError(15, "GPU is lost"), "sticky"),
        (NvmlError(16, "GPU requires reset"), "sticky"),
        (NvmlError(3, "Not Supported"), "other"),
        (KeyError("error_code"), "other"),
    ],
)
def test_errors_are_judged(error: BaseException, fault: Fault) -> None:
    assert classify(error) == fault


def test_an_error_is_judged_by_its_cause_too() -> None:
    error = ValueError("the step failed")
    error.__cause__ = RuntimeError("CUDA error: device-side assert triggered")
    assert classify(error) == "sticky"


def test_torchs_own_errors_are_judged_as_their_likenesses_here() -> None:
    torch = pytest.importorskip("torch")
    assert classify(torch.OutOfMemoryError("CUDA out of memory.")) == "out_of_memory"
    assert classify(torch.AcceleratorError("CUDA error: unspecified launch failure")) == "sticky"
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert classify(caught.value) == "out_of_memory"
