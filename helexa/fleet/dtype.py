"""Which number format a model runs in on a device, and what one of keys and values takes."""

from collections.abc import Collection
from typing import Literal

from helexa.engine.orders import Dtype, KvDtype

BYTES: dict[Dtype, int] = {"fp32": 4, "bf16": 2, "fp16": 2}
KV_BYTES: dict[KvDtype, int] = {"bf16": 2, "fp8": 1, "int8": 1}  # "auto" is as the model computes
SCALE_BYTES: dict[KvDtype, int] = {"int8": 2}  # that go with each head's key, and with its value
NATIVE_BF16_FLAGS = frozenset(
    {"avx512_bf16", "amx_bf16"}
)  # without one of them a CPU emulates bf16


def choose_dtype(
    wanted: Literal["auto", "fp32", "bf16", "fp16"],
    compute_capability: str | None,
    cpu_flags: Collection[str] = (),
) -> Dtype:
    """`wanted`, or for "auto" what the hardware computes natively.

    CUDA has bf16 from compute capability 8.0 (CUDA C++ programming guide, arithmetic throughput); a
    device without a capability is a CPU, described by the flags of /proc/cpuinfo.
    """
    if wanted != "auto":
        return wanted
    if compute_capability is not None:
        return "bf16" if float(compute_capability) >= 8.0 else "fp16"
    return "bf16" if NATIVE_BF16_FLAGS & frozenset(cpu_flags) else "fp32"
