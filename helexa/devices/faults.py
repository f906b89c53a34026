"""What an error means for its device: go on, make room, or leave the device to a new process.

A sticky error outlives the call that met it: "This leaves the process in an inconsistent state and
any further CUDA work will return the same error.  To continue using CUDA, the process must be
terminated and relaunched." (CUresult in the CUDA driver API; the runtime's codes are the same.)
Those words stand at every code below but three.  A device-side assert (710) says that the context
"cannot be used anymore, and must be destroyed", which torch cannot do.  For uncorrectable ECC (214)
and NVLink (220) errors the Xid catalogue (Xid 48, 94, 95 and 74) has the application restarted.
"""

from collections.abc import Iterator
from typing import Literal

from helexa.devices.cuda import CudaError
from helexa.devices.nvml import NvmlError

Fault = Literal["sticky", "out_of_memory", "other"]

OUT_OF_MEMORY = 2

# CUresult, the runtime's name of it, and what cudaGetErrorString says.
STICKY = (
    (214, "cudaErrorECCUncorrectable", "uncorrectable ECC error encountered"),
    (220, "cudaErrorNvlinkUncorrectable", "uncorrectable NVLink error detected"),
    (226, "cudaErrorContained", "Invalid access of peer GPU memory over nvlink"),
    (700, "cudaErrorIllegalAddress", "an illegal memory access was encountered"),
    (702, "cudaErrorLaunchTimeout", "the launch timed out and was terminated"),
    (710, "cudaErrorAssert", "device-side assert triggered"),
    (714, "cudaErrorHardwareStackError", "hardware stack error"),
    (715, "cudaErrorIllegalInstruction", "an illegal instruction was encountered"),
    (716, "cudaErrorMisalignedAddress", "misaligned address"),
    (717, "cudaErrorInvalidAddressSpace", "operation not supported on global/shared address space"),
    (718, "cudaErrorInvalidPc", "invalid program counter"),
    (719, "cudaErrorLaunchFailure", "unspecified launch failure"),
    (721, "cudaErrorTensorMemoryLeak", "tensor memory not completely freed"),
    (810, "cudaErrorMpsClientTerminated", "the MPS client has been terminated by the server"),
    (911, "cudaErrorExternalDevice", "an async error has occured in external entity"),
)
STICKY_CODES = frozenset(code for code, _, _ in STICKY)

# How torch says that memory ran out: its own allocators', the driver's and cuBLAS' words.
NO_MEMORY_WORDS = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def classify(error: BaseException) -> Fault:
    """Judge an error of the driver, of NVML or of torch, or one that was raised from such.

    "sticky": the device is poisoned until the process ends.  "out_of_memory": free some and go on.
    """
    faults = [judge(cause) for cause in chain(error)]
    if "sticky" in faults:
        return "sticky"
    return "out_of_memory" if "out_of_memory" in faults else "other"


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from or over, each once: causes can run in a circle."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and not any(cause is known for known in seen):
        seen.append(cause)
        yield cause
        cause = cause.__cause__ or cause.__context__


def judge(error: BaseException) -> Fault:
    if isinstance(error, NvmlError):
        return "sticky" if error.is_lost else "other"
    code = code_of(error)
    if code is not None:
        return judge_code(code)
    if isinstance(error, MemoryError):
        return "out_of_memory"
    return judge_words(str(error)) if isinstance(error, RuntimeError) else "other"


def code_of(error: BaseException) -> int | None:
    """The driver's code: our own error carries it, and so does torch.AcceleratorError."""
    if isinstance(error, CudaError):
        return error.code
    code = getattr(error, "error_code", None)
    return code if isinstance(code, int) and type(error).__name__ == "AcceleratorError" else None


def judge_code(code: int) -> Fault:
    if code in STICKY_CODES:
        return "sticky"
    return "out_of_memory" if code == OUT_OF_MEMORY else "other"


def judge_words(words: str) -> Fault:
    """Torch raises a RuntimeError where it has no code: "CUDA error: ..." with CUDA's own words."""
    if "CUDA" in words and any(name in words or said in words for _, name, said in STICKY):
        return "sticky"
    return "out_of_memory" if any(said in words for said in NO_MEMORY_WORDS) else "other"
