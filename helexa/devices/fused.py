"""What the engine's fused layers do on this machine, told without torch."""

from helexa.devices.host import cpu_flags, cxx_compiler, multiplies_packed
from helexa.fleet.quant import Fused

BLOCK_ROWS = {"AVX2": 32, "AVX512": 64}  # of packed layers, by the layout of torch's kernels


def fused_here(kind: str, dtype: str) -> Fused:
    """What FBGEMM and our own kernels do for models that are computed in `dtype`."""
    if kind != "cpu" or dtype != "fp32" or not multiplies_packed():
        return Fused()
    rows = BLOCK_ROWS["AVX512" if "avx512f" in cpu_flags() else "AVX2"]
    return Fused(halves=True, block_rows=0 if why_uncompiled(kind, dtype) else rows)


def why_uncompiled(kind: str, dtype: str) -> str:
    """Why packed layers are not computed by our own kernels, in a clause; "" if they are."""
    if kind != "cpu":
        return "compiled kernels are for CPUs"
    if not multiplies_packed():
        return "compiled kernels take a processor with AVX2"
    if dtype != "fp32":
        return "compiled kernels are for models in fp32"
    return "" if cxx_compiler() else "compiled kernels take a C++ compiler (g++ or clang++)"
