"""What "auto" comes to: it fits first, loses no more than is promised, and is then the fastest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.engine.orders import Quant
from helexa.fleet.auto import KEEPING, Choices, Speeds, choices, choose
from helexa.fleet.quant import POLICIES, Packable, weights_bytes

EIGHT = 8_030_261_248
MEASURED: Speeds = {"none": 4.0, "int4": 1.0, "int4+bf16": 1.01, "int8": 2.0}


def found(
    bits: int, capability: str | None = None, room_mb: int = 64_000, *, compiles: bool = False
) -> Choices:
    packable = Packable(layers=6_979_321_856, head=525_336_576, bits=bits)
    width = 4 if capability is None else 2

    def needed_mb(quant: Quant) -> int:
        return weights_bytes(EIGHT, packable, quant, width) >> 20

    return choices(packable, capability, room_mb, needed_mb, compiles=compiles)


@pytest.mark.parametrize(
    ("bits", "room_mb", "quant"),
    [
        (4, 64_000, "int4"),
        (8, 64_000, "int8"),
        (16, 64_000, "int8"),
        (16, 20_000, "int8"),
        (16, 10_000, "int4"),  # to fit, and only then
        (8, 10_000, "int4"),
        (4, 10_000, "int4"),
        (16, 1_000, "int4"),  # nothing fits: the smallest is what is asked for
    ],
)
def test_on_a_cpu_the_fastest_is_taken_that_loses_no_more_than_promised(
    bits: int, room_mb: int, quant: Quant
) -> None:
    assert choose("auto", found(bits, None, room_mb), MEASURED).quant == quant


@pytest.mark.parametrize(
    ("capability", "room_mb", "quant"),
    [
        ("8.6", 20_000, "none"),
        ("8.6", 12_000, "int8"),
        ("8.6", 8_000, "int4"),
        ("8.9", 10_500, "int8"),
        ("9.0", 9_600, "fp8"),  # nothing that was measured fits, and fp8 loses least of the rest
        ("8.6", 9_600, "int4"),  # which this card does not have
        ("7.5", 8_000, "none"),  # a card that can do nothing else
    ],
)
def test_on_a_card_that_was_not_measured_the_plain_form_comes_first(
    capability: str, room_mb: int, quant: Quant
) -> None:
    assert choose("auto", found(16, capability, room_mb), {}).quant == quant


def test_times_that_hardly_differ_leave_it_at_the_usual() -> None:
    both = {"int4": 1.04, "int4+bf16": 1.0}
    assert choose("auto", found(4), both).quant == "int4"  # type: ignore[arg-type]
    assert choose("auto", found(4), {**both, "int4": 1.2}).quant == "int4+bf16"  # type: ignore[dict-item]


def test_kernels_of_our_own_need_no_plain_form_beside_the_packed_one() -> None:
    assert found(4).fitting == ("int4", "int4+bf16", "none")
    assert found(4, compiles=True).fitting == ("int4", "none")


def test_the_reason_tells_what_was_measured_or_what_fits() -> None:
    assert choose("auto", found(4), MEASURED).reason == (
        "measured: int4 1 s, int4+bf16 1 s, none 4 s"
    )
    assert "not measured yet" in choose("auto", found(4), {}).reason
    assert choose("auto", found(16, None, 10_000), MEASURED).reason == (
        "the best that fits into 10000 MB"
    )
    assert "nothing fits into 1 MB" in choose("auto", found(16, None, 1), MEASURED).reason


def test_what_could_not_be_run_is_not_taken() -> None:
    assert choose("auto", found(16), {"none": 4.0}).quant == "none"


@pytest.mark.parametrize("quant", POLICIES)
def test_a_policy_that_is_stated_is_not_overruled(quant: Quant) -> None:
    assert choose(quant, found(16, "7.5", 1), MEASURED).quant == quant


@given(
    st.sampled_from([1, 4, 5, 8, 16, 32]),
    st.sampled_from([None, "7.5", "8.6", "9.0"]),
    st.integers(1, 64_000),
    st.dictionaries(st.sampled_from(POLICIES), st.floats(0.001, 100)),
)
def test_what_loses_more_is_only_taken_to_fit(
    bits: int, capability: str | None, room_mb: int, speeds: Speeds
) -> None:
    could = found(bits, capability, room_mb)
    taken = choose("auto", could, speeds).quant
    keeping = next(forms for most, forms in KEEPING.items() if bits <= most)
    if could.fitting:
        assert taken in could.fitting
        assert could.needed_mb[taken] < room_mb
    assert taken in keeping or not could.fitting
