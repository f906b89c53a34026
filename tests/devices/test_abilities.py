"""What a device can do is told with the reason for what it cannot."""

import pytest

from helexa.devices import fused
from helexa.devices.abilities import abilities_of
from helexa.devices.discovery import DeviceInfo
from helexa.devices.fused import fused_here, why_uncompiled
from helexa.fleet.dtype import choose_dtype, why_slow

CARD = DeviceInfo(1, "RTX 3090", "GPU-fa", 24576, "8.6", "cuda")
CPU = DeviceInfo(0, "Ryzen", "cpu", 32768, None, "cpu")


def test_a_card_says_which_forms_it_takes_and_why_not_the_others() -> None:
    can = abilities_of(CARD, "bf16")
    assert can.dtypes == {"fp32": "", "bf16": "", "fp16": ""}
    refused = {name: why for name, why in can.weights.items() if why}
    assert refused == {"fp8": "fp8 needs compute capability 8.9, and this card has 8.6"}
    assert can.attention == {"torch": "", "compiled": "compiled kernels are for CPUs"}


def test_what_is_told_of_compiled_kernels_is_what_is_reckoned_with() -> None:
    for dtype in ("fp32", "bf16"):
        can = abilities_of(CPU, dtype)
        assert bool(can.attention["compiled"]) == (not fused_here("cpu", dtype).block_rows)


@pytest.mark.parametrize(
    ("dtype", "has_avx2", "compiler", "reason"),
    [
        ("fp32", True, "g++", ""),
        ("fp32", False, "g++", "compiled kernels take a processor with AVX2"),
        ("bf16", True, "g++", "compiled kernels are for models in fp32"),
        ("fp32", True, None, "compiled kernels take a C++ compiler (g++ or clang++)"),
    ],
)
def test_compiled_kernels_say_what_they_lack(
    dtype: str,
    has_avx2: bool,
    compiler: str | None,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fused, "multiplies_packed", lambda: has_avx2)
    monkeypatch.setattr(fused, "cxx_compiler", lambda: compiler)
    assert why_uncompiled("cpu", dtype) == reason


@pytest.mark.parametrize(
    ("capability", "flags", "dtype"),
    [
        ("8.0", (), "bf16"),
        ("7.5", (), "fp16"),
        (None, ("avx2",), "fp32"),
        (None, ("avx2", "avx512_bf16"), "bf16"),
        (None, ("amx_bf16",), "bf16"),
    ],
)
def test_models_are_computed_in_what_a_device_is_made_for_unless_it_is_stated(
    capability: str | None, flags: tuple[str, ...], dtype: str
) -> None:
    assert choose_dtype("auto", capability, flags) == dtype
    assert choose_dtype("fp16", capability, flags) == "fp16"
    assert why_slow("fp32", capability, flags) == ""
