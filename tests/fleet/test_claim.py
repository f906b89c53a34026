"""What a load asks of its device and gets there."""

import pytest
from attrs import evolve
from known_models import known_model

from helexa.errors import InsufficientVram, ModelNotFound
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.claim import choose, claim_of, grant
from helexa.fleet.known import Known, Size
from helexa.fleet.limits import PrefillRate, Terms
from helexa.fleet.placement import Room

MIB = 1 << 20
SIZE = Size(
    500 * MIB, elements_per_token=2048, full_layers=16
)  # 1000 MiB and 64 KiB a token in bf16


def known(terms: Terms = Terms(32_768), size: Size = SIZE, **options: object) -> Known:
    return known_model(CatalogueModel("m", **options), terms, size)  # type: ignore[arg-type]


def test_a_model_asks_for_its_weights_and_the_shortest_context() -> None:
    claim = claim_of(known(), "bf16", PrefillRate())
    assert (claim.least_kv_mb, claim.required_mb) == (256, 1257)
    short = claim_of(known(Terms(1024)), "bf16", PrefillRate())
    assert short.least_kv_mb == 64


def test_vram_mb_overrules_what_is_reckoned() -> None:
    claim = claim_of(known(vram_mb=5000), "bf16", PrefillRate())
    assert claim.required_mb == 5000
    granted = grant(claim, Room(0, "card", 40_000, 10_000), batch_width=8)
    assert granted.terms.room_mb == 10_000 - 3548 - (5000 - 256)


def test_a_model_for_several_devices_is_for_other_nodes() -> None:
    with pytest.raises(ModelNotFound, match="2 devices together"):
        claim_of(known(min_devices=2), "bf16", PrefillRate())


def test_what_is_left_beside_weights_and_reserves_is_the_pool() -> None:
    claim = claim_of(known(), "bf16", PrefillRate())
    room = Room(0, "card", 40_000, 10_000)
    granted = grant(claim, room, batch_width=64)
    assert granted.terms.room_mb == 10_000 - 3548 - 1001
    assert granted.kv_mb == granted.terms.room_mb - granted.terms.room_mb % 4  # blocks of 64
    assert granted.terms.weights_mb + granted.kv_mb <= room.free_mb - room.spare_mb
    assert grant(claim, room, batch_width=2).kv_tokens == 2 * 32_768


def test_a_model_that_fits_at_all_is_promised_the_shortest_context_at_least() -> None:
    claim = claim_of(known(), "bf16", PrefillRate())
    tight = Room(0, "card", 40_000, claim.required_mb + 3548)
    assert choose(claim, [tight]) is tight
    granted = grant(claim, tight, batch_width=8)
    assert granted.terms.limit.context == granted.kv_tokens == 4096
    with pytest.raises(InsufficientVram):
        choose(claim, [evolve(tight, free_mb=tight.free_mb - 1)])
    with pytest.raises(ModelNotFound):
        choose(claim, [evolve(tight, total_mb=1200, free_mb=1200)])


def test_headroom_and_floor_are_kept_once_for_a_device_however_many_models_it_has() -> None:
    claim = claim_of(known(Terms(1024)), "bf16", PrefillRate())
    room = Room(0, "card", 40_000, 20_000)
    for _ in range((20_000 - 3548) // claim.required_mb):
        granted = grant(claim, choose(claim, [room]), batch_width=1)
        room = evolve(room, free_mb=room.free_mb - granted.terms.weights_mb - granted.kv_mb)
    assert room.free_mb >= room.spare_mb == 3548
    with pytest.raises(InsufficientVram):
        choose(claim, [room])


def test_a_budget_smaller_than_one_sequence_is_refused_in_words_that_help() -> None:
    with pytest.raises(InsufficientVram) as refused:
        claim_of(known(Terms(32_768, kv_budget_mb=100)), "bf16", PrefillRate())
    assert refused.value.message == (
        "kv_budget_mb = 100 of model m holds 1600 tokens, less than one sequence of 4096: "
        "give it at least 256."
    )
    assert refused.value.details == {"required_mb": 256, "free_mb": 100}


def test_a_budget_bounds_pool_and_context() -> None:
    claim = claim_of(known(Terms(32_768, kv_budget_mb=600)), "bf16", PrefillRate())
    granted = grant(claim, Room(0, "card", 80_000, 80_000), batch_width=8)
    assert granted.terms.limit.context == 9216
    assert granted.kv_tokens == 9600


def test_a_model_that_keeps_nothing_of_a_token_has_no_pool_and_no_bound_of_memory() -> None:
    claim = claim_of(known(size=Size(0, 0, 0)), "fp32", PrefillRate())
    granted = grant(claim, Room(0, "card", 16_000, 16_000), batch_width=8)
    assert (granted.kv_tokens, granted.terms.limit.context) == (0, 32_768)
