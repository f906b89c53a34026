"""Which number format a model runs in on a device, and what one of keys and values takes."""

from collections.abc import Collection
from typing import Literal

from helexa.engine.orders import Dtype, KvDtype

BYTES: dict[Dtype, int] = {"fp32": 4, "bf16": 2, "fp16": 2}
KV_BYTES: dict[KvDtype, int] = {"bf16": 2, "fp8": 1, "int8": 1}  # "auto" is as the model computes
SCALE_BYTES: dict[KvDtype, int] = {"int8": 2}  # that go with each head's key, and with its value
NATIVE_FLAGS: dict[Dtype, frozenset[str]] = {  # without one of them a CPU emulates the format
    "bf16": frozenset({"avx512_bf16", "amx_bf16"}),
    "fp16": frozenset({"avx512_fp16", "amx_fp16"}),
}


def choose_dtype(
    wanted: Literal["auto", "fp32", "bf16", "fp16"],
    compute_capability: str | None,
    cpu_flags: Collection[str] = (),
) -> Dtype:
    """`wanted`, or for "auto" what the hardware computes natively: bf16, else fp16, else fp32.

    A device without a compute capability is a CPU, described by the flags of /proc/cpuinfo.
    """
    if wanted != "auto":
        return wanted
    order: tuple[Dtype, ...] = ("bf16", "fp16")
    native = (each for each in order if not why_slow(each, compute_capability, cpu_flags))
    return next(native, "fp32")


def why_slow(dtype: Dtype, compute_capability: str | None, cpu_flags: Collection[str] = ()) -> str:
    """Why a device is not made for a number format, in a clause; "" if it is.

    CUDA has bf16 from compute capability 8.0 (CUDA C++ programming guide, arithmetic throughput).
    """
    if compute_capability is not None:
        is_old = dtype == "bf16" and float(compute_capability) < 8.0
        return "cards below compute capability 8.0 emulate bf16" if is_old else ""
    is_native = dtype == "fp32" or NATIVE_FLAGS[dtype] & frozenset(cpu_flags)
    return "" if is_native else f"this processor emulates {dtype}"
