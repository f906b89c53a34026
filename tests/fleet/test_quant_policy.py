"""How weights are kept: what each policy takes, and which a device can do."""

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from helexa.engine.orders import Quant
from helexa.fleet.quant import (
    POLICIES,
    Fused,
    Packable,
    fused_bytes,
    stated,
    weights_bytes,
    why_not,
)

DEMO = 134_515_008
PACKABLE = Packable(
    layers=106_168_320,
    head=28_311_552,
    tied=True,
    down=26_542_080,
    table=28_311_552,
    bits=4,
    shapes=((192, 576, 60), (576, 576, 60), (576, 1536, 30), (1536, 576, 60)),
)


def test_what_the_demo_model_takes_on_a_cpu_without_bf16() -> None:
    taken = {quant: weights_bytes(DEMO, PACKABLE, quant, 4) for quant in POLICIES}
    assert taken == {
        "none": 538_060_032,
        "int4+bf16": 639_804_672,
        "fp8": 247_866_624,
        "int8": 281_486_592,
        "int4": 215_131_392,
    }


@pytest.mark.parametrize(
    ("fused", "taken"),
    [
        (Fused(halves=True, block_rows=32), (378_807_552, 158_508_288, 224_863_488, 158_508_288)),
        (Fused(halves=True), (378_807_552, 215_131_392, 281_486_592, 484_091_136)),
        (Fused(), (538_060_032, 215_131_392, 281_486_592, 639_804_672)),
    ],
    ids=["compiled", "without a compiler", "nothing of both"],
)
def test_what_is_left_of_it_once_it_is_fused(fused: Fused, taken: tuple[int, ...]) -> None:
    quants: tuple[Quant, ...] = ("none", "int4", "int8", "int4+bf16")
    assert tuple(fused_bytes(DEMO, PACKABLE, quant, fused) for quant in quants) == taken


def test_weights_that_16_bits_do_not_hold_are_not_halved() -> None:
    wide = evolve(PACKABLE, bits=32)
    assert fused_bytes(DEMO, wide, "none", Fused(halves=True)) == DEMO * 4


def test_rows_in_no_whole_blocks_are_not_compiled() -> None:
    assert Fused(block_rows=32).compiles(PACKABLE)
    assert not Fused(block_rows=64).compiles(evolve(PACKABLE, shapes=((96, 64, 1),)))
    assert not Fused().compiles(PACKABLE)


@given(st.integers(0, 10**9), st.integers(0, 10**8), st.booleans(), st.sampled_from([2, 4]))
def test_fewer_bits_never_take_more(layers: int, head: int, tied: bool, width: int) -> None:
    parameters = layers + head + 1000
    packable = Packable(layers, head, tied)
    int4, int8, both = (
        weights_bytes(parameters, packable, quant, width) for quant in ("int4", "int8", "int4+bf16")
    )
    assert int4 <= int8
    assert weights_bytes(parameters, packable, "none", width) == parameters * width <= both


@pytest.mark.parametrize(
    ("quant", "capability", "able"),
    [
        ("none", None, True),
        ("int8", None, True),
        ("int4", None, True),
        ("int4+bf16", None, True),
        ("fp8", None, False),
        ("fp8", "8.6", False),
        ("fp8", "8.9", True),
        ("fp8", "12.0", True),
        ("int4", "7.5", False),
        ("int8", "7.5", False),
        ("int4", "8.0", True),
        ("none", "6.1", True),
    ],
)
def test_which_device_can_do_what(quant: str, capability: str | None, able: bool) -> None:
    assert (why_not(quant, capability) == "") is able  # type: ignore[arg-type]


def test_a_card_that_is_too_old_is_told_what_it_would_take() -> None:
    assert why_not("fp8", "8.6") == "fp8 needs compute capability 8.9, and this card has 8.6"


@pytest.mark.parametrize("quant", POLICIES)
def test_a_policy_that_is_stated_is_taken_at_its_word(quant: str) -> None:
    assert (stated(quant).quant, stated(quant).reason) == (quant, "")


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        *dict.fromkeys(("Q4_K_M", "Q4_0", "q4_1", "IQ3_XXS", "Q2_K", "MXFP4"), "int4").items(),
        *dict.fromkeys(("Q8_0", "Q6_K", "Q5_K_S"), "int8").items(),
        *dict.fromkeys(("F16", "BF16", "F32"), "none").items(),
        ("FP8", "fp8"),
    ],
)
def test_the_names_of_other_quantisations_stand_for_the_nearest_policy(
    name: str, quant: str
) -> None:
    assert stated(name).quant == quant
    if name != "FP8":
        assert stated(name).reason == f"the nearest to {name}"


def test_a_name_that_nobody_knows_leaves_weights_as_they_are_and_says_so() -> None:
    assert stated("Z9_X").quant == "none"
    assert "Z9_X" in stated("Z9_X").reason
    assert (stated("").quant, stated("").reason) == ("none", "")
