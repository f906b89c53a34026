"""Which KV pools make room for a newcomer, how much of it, and which of them grow back."""

from collections.abc import Sequence

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from helexa.engine.kv.spans import BLOCK
from helexa.errors import InsufficientVram
from helexa.fleet.claim import Claim, choose
from helexa.fleet.limits import Terms
from helexa.fleet.placement import Room
from helexa.fleet.resizing import Gift, Holding, NewSize, gift, growths, shrinks

BYTES = 1 << 14  # a block of 64 tokens is 1 MiB


def claim(mb: int, min_device_mb: int = 0, more_mb: int = 0) -> Claim:
    return Claim("new", Terms(4096), mb, 0, more_mb, min_device_mb)


def room(free_mb: int, device: int = 0) -> Room:
    return Room(device, "card", 40_000, free_mb + 2048 + 1500)


def holding(
    mb: int, promised_mb: int = 0, running_mb: int = 0, device: int = 0, model: str = "a"
) -> Holding:
    tokens = mb * 64
    return Holding(model, device, tokens, tokens, promised_mb * 64, running_mb * 64, BYTES)


@pytest.mark.parametrize(
    ("wanted", "rooms", "holdings", "sizes"),
    [
        pytest.param(
            claim(100), [room(100)], [holding(500)], (), id="nobody, where there is room as it is"
        ),
        pytest.param(
            claim(100),
            [room(0), room(100, 1)],
            [holding(500)],
            (),
            id="nobody, where another device has room",
        ),
        pytest.param(
            claim(100),
            [room(40)],
            [holding(500)],
            (NewSize("a", 440 * 64),),
            id="no more than what is lacking",
        ),
        pytest.param(
            claim(100),
            [room(0)],
            [holding(500, promised_mb=400)],
            (NewSize("a", 400 * 64),),
            id="down to what is promised",
        ),
        pytest.param(
            claim(100),
            [room(0)],
            [holding(500, promised_mb=401)],
            None,
            id="nobody, where it would take what is promised",
        ),
        pytest.param(
            claim(100),
            [room(0)],
            [holding(500, promised_mb=10, running_mb=401)],
            None,
            id="nobody, where it would take what runs",
        ),
        pytest.param(
            claim(100),
            [room(0)],
            [holding(60, model="a"), holding(80, model="b")],
            (NewSize("b", 0), NewSize("a", 40 * 64)),
            id="who has most to spare first",
        ),
        pytest.param(
            claim(100),
            [room(10), room(30, 1)],
            [holding(500), holding(500, device=1, model="b")],
            (NewSize("b", 430 * 64),),
            id="on the device that lacks least",
        ),
        pytest.param(
            claim(100),
            [room(10), room(30, 1)],
            [holding(500), holding(69, device=1, model="b")],
            (NewSize("a", 410 * 64),),
            id="on the device that has enough",
        ),
        pytest.param(
            claim(100, min_device_mb=50_000),
            [room(10)],
            [holding(500)],
            None,
            id="nobody on a device that is too small for the model",
        ),
        pytest.param(
            claim(100),
            [room(10)],
            [evolve(holding(500), bytes_per_token=0)],
            None,
            id="nobody who keeps nothing of a token",
        ),
    ],
)
def test_pools_that_make_room(
    wanted: Claim,
    rooms: Sequence[Room],
    holdings: Sequence[Holding],
    sizes: tuple[NewSize, ...] | None,
) -> None:
    assert shrinks(wanted, rooms, holdings) == sizes


def test_a_newcomer_gets_up_to_half_of_what_others_need_not_keep() -> None:
    rooms, there = [room(10)], [holding(1000, promised_mb=200)]
    for more_mb, gives in [(0, 90), (100, 190), (5000, 90 + (800 - 90) // 2)]:
        wants = claim(100, more_mb=more_mb)
        assert gift(wants, rooms, there, generous=True) == Gift(0, gives)
        assert gift(wants, rooms, there) == Gift(0, 90)
    assert gift(claim(100, more_mb=500), [room(600)], there, generous=True) == Gift(0, 0)
    assert gift(claim(900), rooms, there, generous=True) is None


def blocks(most: int) -> st.SearchStrategy[int]:
    return st.integers(0, most).map(lambda count: count * BLOCK)


@st.composite
def holdings(draw: st.DrawFn) -> list[Holding]:
    return [
        Holding(
            f"model {number}",
            draw(st.integers(0, 1)),
            tokens,
            granted_tokens=tokens + draw(blocks(1000)),
            promised_tokens=draw(st.integers(0, 128_000)),
            running_tokens=draw(st.integers(0, 128_000)),
            bytes_per_token=draw(st.integers(0, 1 << 18)),
        )
        for number, tokens in enumerate(draw(st.lists(blocks(2000), max_size=4)))
    ]


def freed_mb(sizes: Sequence[NewSize], there: Sequence[Holding], device: int) -> int:
    """What comes free at least, where each pool is counted in whole MiB."""
    size_of = {size.model: size.kv_tokens for size in sizes}
    return sum(
        (each.tokens - size_of[each.model]) * each.bytes_per_token >> 20
        for each in there
        if each.model in size_of and each.device == device
    )


def one_more(sizes: Sequence[NewSize], index: int) -> list[NewSize]:
    return [
        evolve(size, kv_tokens=size.kv_tokens + BLOCK) if i == index else size
        for i, size in enumerate(sizes)
    ]


@settings(max_examples=300)
@given(st.integers(0, 60_000), st.tuples(*[st.integers(-3000, 40_000)] * 2), holdings())
def test_what_is_given_is_enough_and_no_more_and_takes_neither_promises_nor_what_runs(
    required: int, free: tuple[int, int], there: list[Holding]
) -> None:
    rooms = [room(mb, device) for device, mb in enumerate(free)]
    sizes = shrinks(claim(required), rooms, there)
    by_model = {each.model: each for each in there}
    for size in sizes or ():
        gives = by_model[size.model]
        assert max(gives.promised_tokens, gives.running_tokens) <= size.kv_tokens < gives.tokens
        assert size.kv_tokens % BLOCK == 0
    devices = {by_model[size.model].device for size in sizes or ()}
    all_of_it = [sum(h.spare_mb for h in there if h.device == device) for device in (0, 1)]
    assert (sizes is None) == all(
        mb + spare < required for mb, spare in zip(free, all_of_it, strict=True)
    )
    if not devices:
        assert sizes is None or any(mb >= required for mb in free)
        return
    assert sizes is not None
    (device,) = devices
    assert max(free) < required <= free[device] + freed_mb(sizes, there, device)
    for index in range(len(sizes)):
        assert free[device] + freed_mb(one_more(sizes, index), there, device) < required


@pytest.mark.parametrize(
    ("free_mb", "sizes"),
    [
        pytest.param(0, (), id="none without room"),
        pytest.param(10, (), id="none by what is not worth the copying"),
        pytest.param(60, (NewSize("b", 100 * 64),), id="who then has all, though others lack more"),
        pytest.param(200, (NewSize("a", 400 * 64),), id="who gave most first"),
        pytest.param(
            640, (NewSize("a", 800 * 64), NewSize("b", 90 * 64)), id="another by what is then left"
        ),
        pytest.param(
            9000,
            (NewSize("a", 800 * 64), NewSize("b", 100 * 64)),
            id="all to what they were granted, and no further",
        ),
    ],
)
def test_pools_grow_back(free_mb: int, sizes: tuple[NewSize, ...]) -> None:
    gave_most = evolve(holding(200, model="a"), granted_tokens=800 * 64)
    gave_less = evolve(holding(50, model="b"), granted_tokens=100 * 64)
    gave_nothing = holding(300, model="c")
    elsewhere = evolve(gave_most, device=1, model="d")
    there = [gave_less, gave_most, gave_nothing, elsewhere]
    assert growths([room(free_mb)], there) == sizes


@settings(max_examples=200)
@given(st.tuples(*[st.integers(-3000, 40_000)] * 2), holdings())
def test_no_pool_grows_beyond_its_grant_or_into_what_a_device_has_not(
    free: tuple[int, int], there: list[Holding]
) -> None:
    rooms = [room(mb, device) for device, mb in enumerate(free)]
    by_model = {each.model: each for each in there}
    taken = [0, 0]
    for size in growths(rooms, there):
        grows = by_model[size.model]
        assert grows.tokens < size.kv_tokens <= grows.granted_tokens
        taken[grows.device] += (size.kv_tokens - grows.tokens) * grows.bytes_per_token
    assert all(bytes_ <= max(0, mb) << 20 for bytes_, mb in zip(taken, free, strict=True))


def test_a_refusal_says_what_pools_could_give_and_whether_that_would_do() -> None:
    small = Room(0, "card", 40_000, 3600, pools_mb=40)
    with pytest.raises(InsufficientVram) as refused:
        choose(claim(100), [small])
    assert refused.value.message == (
        "model new needs 100 MB: device 0 (card) has 3600 MB free of 40000 MB and keeps 3548 MB spare, "
        "and the KV pools of its models can give 40 MB. Unload another model, give one a kv_budget_mb "
        "or a max_context, or stop other programs to make room."
    )
    with pytest.raises(
        InsufficientVram, match=r"can give 48 MB\. They are busy with it: try again"
    ):
        choose(claim(100), [evolve(small, pools_mb=48)])
