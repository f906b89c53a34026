"""Which policies fit a device, and the context that each leaves."""

from attrs import evolve

from helexa.fleet.fit import fits
from helexa.fleet.known import Size
from helexa.fleet.limits import Terms
from helexa.fleet.placement import Room
from helexa.fleet.quant import Packable

SIZE = Size(
    num_parameters=8_030_261_248,
    elements_per_token=2 * 8 * 128,
    full_layers=32,
    packable=Packable(layers=6_979_321_856, head=525_336_576),
)
TERMS = Terms(positions=131_072)


def room(total_mb: int) -> Room:
    return Room(0, "card", total_mb, total_mb)


def test_on_a_card_of_12_gb_the_smaller_forms_fit_and_leave_more_context() -> None:
    found = {fit.quant: fit for fit in fits(SIZE, TERMS, "bf16", room(12_000), "8.6")}
    assert found["none"].reason == "does not fit"
    assert found["int4+bf16"].reason == "does not fit"
    assert "8.9" in found["fp8"].reason
    assert found["int8"].reason == "does not fit"
    four = found["int4"]
    assert (four.weights_mb, four.reason) == (5789, "")
    assert four.context % 1024 == 0
    assert four.weights_mb + four.kv_mb + room(12_000).spare_mb <= 12_000
    assert 0 < four.input < four.context


def test_the_context_is_bounded_by_what_the_entry_says() -> None:
    bounded = evolve(TERMS, max_context=8192)
    for fit in fits(SIZE, bounded, "bf16", room(80_000), "9.0"):
        assert (fit.context, fit.input, fit.kv_mb) == (8192, 6144, 1024)


def test_memory_that_is_not_used_for_weights_is_used_for_context() -> None:
    found = [fit for fit in fits(SIZE, TERMS, "bf16", room(24_000), "8.9") if not fit.reason]
    by_weights = sorted(found, key=lambda fit: fit.weights_mb)
    contexts = [fit.context for fit in by_weights]
    assert len(found) >= 3
    assert contexts == sorted(contexts, reverse=True)
