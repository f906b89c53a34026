"""What a KV pool holds, who shares what is kept in it, and which prompt it could never hold."""

import pytest

from helexa.conversation import ANONYMOUS, Principal
from helexa.engine.orders import KvUse, Loaded
from helexa.errors import InsufficientVram
from helexa.fleet.limits import Limit
from helexa.fleet.pool import Counted, Pool, check_fits, counted, is_sized, pool_of, salt_of

LIMIT = Limit(1000, 800, 200)


def pool() -> Pool:
    return pool_of(Loaded(7, 1 << 20, 1.0, 2048, 1 << 20, "it has a state of its own"))


def test_a_pool_shows_what_it_holds_and_remembers_the_most_that_it_ever_held() -> None:
    full = pool().after(KvUse(7, 1000, 500, 2048))
    now = full.after(KvUse(7, 100, 300, 2048, entries=2))
    assert now.alone == "it has a state of its own"
    assert (now.held_tokens, now.touched_tokens) == (400, 1500)
    assert (now.held_bytes, now.cached_bytes) == (400 << 20, 300 << 20)
    assert (now.total_mb, now.untouched_mb, now.free_mb) == (2048, 548, 1948)


def test_a_pool_of_another_size_has_touched_only_what_was_copied_into_it() -> None:
    full = pool().after(KvUse(7, 1000, 500, 2048))
    smaller = full.after(KvUse(7, 1000, 100, 1152))
    assert (smaller.touched_tokens, smaller.untouched_mb) == (1100, 52)
    assert smaller.after(KvUse(7, 0, 0, 1152)).touched_tokens == 1100


@pytest.mark.parametrize(
    ("running", "total", "sized"),
    [(0, 1024, True), (512, 1024, True), (1088, 1088, True), (0, 2048, False), (1088, 2048, False)],
)
def test_a_pool_is_as_ordered_or_as_large_as_what_runs(
    running: int, total: int, sized: bool
) -> None:
    assert is_sized(KvUse(7, running, 0, total), 1024) is sized


def test_what_was_counted_between_two_words_of_the_device() -> None:
    before = KvUse(7, 0, 0, 9, hits=1, saved_tokens=10, evictions=2, preemptions=3)
    after = KvUse(7, 5, 0, 9, hits=2, saved_tokens=50, evictions=2, preemptions=4)
    assert counted(before, after) == Counted(1, 40, 0, 1)
    assert not counted(after, KvUse(7, 6, 1, 9, 1, 2, 50, 2, 4))


@pytest.mark.parametrize("tokens", [1, 800, 999])
def test_a_prompt_that_could_run_alone_is_let_through(tokens: int) -> None:
    check_fits(tokens, LIMIT, pool())
    check_fits(tokens, LIMIT, Pool())


def test_a_prompt_within_an_earlier_limit_is_refused_for_want_of_memory_and_not_as_too_long() -> (
    None
):
    busy = pool().after(KvUse(7, 1000, 500, 2048))
    with pytest.raises(InsufficientVram) as refused:
        check_fits(1000, LIMIT, busy)
    assert refused.value.details == {"required_mb": 1001, "free_mb": 1048}
    with pytest.raises(InsufficientVram):
        check_fits(600, LIMIT, Pool(tokens=512, bytes_per_token=1 << 20))


def test_prefixes_are_shared_by_an_account_or_by_all() -> None:
    ada, other_key = Principal("ada", "laptop"), Principal("ada", "phone")
    assert salt_of(ada, "account") == salt_of(other_key, "account") == "ada"
    assert salt_of(ANONYMOUS, "account") == "anonymous"
    assert salt_of(ada, "all") == salt_of(ANONYMOUS, "all") == ""
