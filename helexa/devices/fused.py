"""What the engine's fused layers do on this machine, told without torch."""

from helexa.devices.host import cpu_flags, cxx_compiler, multiplies_packed
from helexa.fleet.quant import Fused

BLOCK_ROWS, WIDE_BLOCK_ROWS = 32, 64  # of packed layers, with AVX2 and with AVX-512


def fused_here(kind: str, dtype: str) -> Fused:
    """FBGEMM and our own kernels are for float32 on processors with AVX2; ours need a compiler too."""
    if kind != "cpu" or dtype != "fp32" or not multiplies_packed():
        return Fused()
    rows = WIDE_BLOCK_ROWS if "avx512f" in cpu_flags() else BLOCK_ROWS
    return Fused(halves=True, block_rows=rows if cxx_compiler() else 0)
