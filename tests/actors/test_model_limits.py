"""What a model promises while it is loaded, the memory that it reserves for it, and what it finds again."""

from contextlib import aclosing

import pytest
import trio
from fakes import KV_BYTES_PER_TOKEN, FakeHost, FakeLibrary, ask, entry, trace
from fronts import local_port

from helexa.config.schema import Config, Engine, PrefixCache
from helexa.conversation import (
    ANONYMOUS,
    Conversation,
    Event,
    Finished,
    Principal,
    Progress,
    Started,
)
from helexa.errors import ContextLengthExceeded, InsufficientVram
from helexa.fleet.catalogue import Catalogue
from helexa.fleet.entry import ModelEntry
from helexa.fleet.known import Known
from helexa.fleet.limits import PrefillRate, Terms
from helexa.http.metrics import set_gauges
from helexa.listed import fleet_entries

CATALOGUE = Catalogue((entry("tiny"),))
ADA, BOB = Principal("ada", "laptop"), Principal("bob", "laptop")


async def started(nursery: trio.Nursery, config: Config = Config(), **options: object) -> FakeHost:
    host = FakeHost(config, FakeLibrary(**options) if options else None)  # type: ignore[arg-type]
    await host.start(nursery)
    return host


async def load(host: FakeHost, model: str = "tiny", **options: object) -> Known:
    await host.node.load(entry(model, **options)).reply.wait()
    return await host.node.loaded(model)


async def answer(
    host: FakeHost, conversation: Conversation, principal: Principal = ANONYMOUS
) -> list[Event]:
    known = await host.node.known(entry(conversation.model))
    prompts = await host.node.prepare(known, conversation).reply.wait()
    its_trace = trace()
    its_trace.principal = principal
    events: list[Event] = []
    stream = host.node.generate(known, conversation, prompts, its_trace)
    async with aclosing(stream) as batches:
        async for batch in batches:
            events += batch
    assert its_trace.usage == events[-1].usage  # type: ignore[union-attr]
    return events


def usage(events: list[Event]) -> tuple[int, int]:
    """Prompt tokens, and those of them that were cached; as told at the start and at the end."""
    (first,) = [event for event in events if isinstance(event, Started)]
    assert isinstance(events[-1], Finished)
    told = events[-1].usage
    assert (first.prompt_tokens, first.cached_tokens) == (told.prompt_tokens, told.cached_tokens)
    return told.prompt_tokens, told.cached_tokens


# -- the promise -----------------------------------------------------------------------------------


async def test_a_load_orders_a_pool_for_as_many_of_the_longest_sequences_as_run_together(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    config = Config(
        engine=Engine(batch_width=3), prefix_cache=PrefixCache(enabled=False, parked_mb=5)
    )
    host = await started(nursery, config)
    await load(host)
    (order,) = host.worker.loads.values()
    assert (order.kv_tokens, order.prefix_cache) == (3 * 1024, False)
    assert order.parked_bytes == 5 << 20


async def test_memory_bounds_context_and_pool(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = await started(nursery, terms=Terms(10_000_000, prefill_limit_seconds=0))
    known = await load(host)
    assert known.terms.binds == "memory"
    room = known.terms.room_mb << 20
    assert room == (16_000 - known.terms.spare_mb - known.terms.weights_mb) << 20
    (order,) = host.worker.loads.values()
    assert known.limit.context <= order.kv_tokens <= room // KV_BYTES_PER_TOKEN


async def test_a_budget_that_holds_no_sequence_is_refused_at_the_load(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = await started(nursery)
    with pytest.raises(InsufficientVram, match="kv_budget_mb = 1 of model tiny holds 256 tokens"):
        await load(host, kv_budget_mb=1)


async def test_an_advertised_input_is_kept_while_the_model_is_loaded(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = await started(nursery, terms=Terms(200_000, prefill_limit_seconds=10))
    host.worker.chunk_tokens = 300
    before = await load(host)
    assert (before.limit.context, before.terms.binds) == (7168, "prefill")  # 10 s at 800 tokens/s
    await answer(host, ask("x" * 900, max_tokens=1))  # the device reads 300 tokens a second
    assert (await host.node.known(entry())).limit == before.limit
    await host.node.unload("tiny")
    after = await host.node.known(entry())
    assert after.terms.prefill_rate == PrefillRate(300, measured=True)
    assert (await load(host)).limit.context == 2048  # 3000, rounded down


async def test_cached_tokens_are_not_counted_as_computed(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = await started(nursery, terms=Terms(200_000, prefill_limit_seconds=120))
    host.worker.chunk_tokens = 300
    await load(host)
    await answer(host, ask("x" * 600, max_tokens=1))
    await answer(host, ask("x" * 600 + "y" * 600, max_tokens=1))
    await host.node.unload("tiny")
    known = await host.node.known(entry())
    assert known.terms.prefill_rate == PrefillRate(300, measured=True)


async def shown(host: FakeHost) -> ModelEntry:
    local = local_port(host)
    entries = await fleet_entries(CATALOGUE, [await local.look()], {}, local)
    return next(each for each in entries if each.id == "tiny")


async def test_a_model_that_is_not_loaded_shows_its_last_limit_as_an_estimate(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = await started(nursery, terms=Terms(10_000_000, prefill_limit_seconds=0))
    assert (await shown(host)).limit_estimated
    promised = (await load(host)).limit
    loaded = await shown(host)
    assert (loaded.limit, loaded.limit_estimated) == (promised, False)
    await host.node.unload("tiny")
    await load(host, "greedy")  # its pool leaves no room at all
    left = await shown(host)
    assert (left.limit, left.limit_estimated, left.feasible_on) == (promised, True, ("local",))


async def test_a_limit_holds_from_the_placement_on_and_until_the_memory_is_free(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = await started(nursery, terms=Terms(10_000_000, prefill_limit_seconds=0))
    host.worker.load_steps = 10
    loading = host.node.load(entry())
    await trio.sleep(3)
    early = (await host.node.known(entry())).limit
    await loading.reply.wait()
    assert (await host.node.loaded("tiny")).limit == early
    nursery.start_soon(answer, host, ask(max_tokens=10))
    await trio.sleep(2.5)
    nursery.start_soon(host.node.unload, "tiny")
    await trio.sleep(0.5)
    assert (await host.node.status()).models[0].status == "unloading"
    assert (await host.node.known(entry())).limit == early


async def test_an_estimate_follows_what_is_free_once_that_changed_for_good(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = await started(nursery, terms=Terms(10_000_000, prefill_limit_seconds=0))
    before = (await shown(host)).limit
    await load(host, "small", kv_budget_mb=100)
    assert (await shown(host)).limit == before
    await load(host, "large", kv_budget_mb=9000)
    after = (await shown(host)).limit
    assert before is not None
    assert after is not None
    assert after.context < before.context / 2


async def test_a_prompt_that_the_load_has_no_room_for_is_told_so_and_not_that_it_is_too_long(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = await started(nursery)
    host.worker.kv_tokens = 512  # a device that had less than it was thought to have
    known = await load(host)
    prompts = await host.node.prepare(known, ask("x" * 700)).reply.wait()
    with pytest.raises(InsufficientVram) as refused:
        await anext(host.node.generate(known, ask("x" * 700), prompts, trace()))
    assert refused.value.details == {"required_mb": 3, "free_mb": 2}
    with pytest.raises(ContextLengthExceeded):
        await host.node.prepare(known, ask("x" * 801)).reply.wait()
    assert host.at_rest


async def test_memory_that_a_pool_has_not_touched_yet_is_not_given_to_others(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = await started(nursery, terms=Terms(10_000_000, prefill_limit_seconds=0))
    known = await load(host)
    with pytest.raises(InsufficientVram) as refused:
        await load(host, "second")
    assert refused.value.details["free_mb"] < 16_000 - known.terms.room_mb + 100
    await host.node.unload("tiny")
    await load(host, "second")


# -- the prefix cache ------------------------------------------------------------------------------


async def test_cached_tokens_are_told_at_the_start_and_in_the_usage(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = await started(nursery)
    await load(host)
    assert usage(await answer(host, ask("hello", max_tokens=2))) == (5, 0)
    assert usage(await answer(host, ask("hello there", max_tokens=2))) == (11, 5)


async def test_a_prompt_of_several_answers_counts_once_and_is_cached_only_if_none_computed_it(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = await started(nursery)
    await load(host)
    await answer(host, ask("hello", max_tokens=1))
    assert usage(await answer(host, ask("hello there", max_tokens=2, n=3))) == (11, 5)
    two = Conversation("tiny", texts=("hello there you", "new"), n=2, max_tokens=2)
    assert usage(await answer(host, two)) == (18, 11)


@pytest.mark.parametrize(("share", "found"), [("account", [0, 0, 0, 10]), ("all", [0, 10, 10, 10])])
async def test_an_account_finds_what_others_sent_only_where_that_is_wanted(
    autojump_clock: object, nursery: trio.Nursery, share: str, found: list[int]
) -> None:
    host = await started(nursery, Config(prefix_cache=PrefixCache(share=share)))  # type: ignore[arg-type]
    await load(host)
    who = [ADA, BOB, ANONYMOUS, Principal("ada", "phone")]
    answers = [await answer(host, ask("hello there", max_tokens=1), each) for each in who]
    assert [usage(events)[1] for events in answers] == found


async def test_progress_of_a_cached_prompt_begins_where_the_cache_ends_and_never_goes_back(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = await started(nursery)
    await load(host)
    await answer(host, ask("x" * 400, max_tokens=1))
    host.worker.chunk_tokens = 100
    events = await answer(host, ask("x" * 400 + "y" * 350, max_tokens=1))
    told = [e.done for e in events if isinstance(e, Progress) and e.phase == "prefill"]
    assert told == [500, 600, 700, 750]


# -- what is told of it ----------------------------------------------------------------------------


async def test_what_the_pool_holds_is_in_the_status_and_in_the_metrics(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    host = await started(nursery)
    host.worker.alone = "it has a state of its own"
    await load(host)
    await answer(host, ask("hello", max_tokens=1))
    await answer(host, ask("hello there", max_tokens=1))
    await trio.testing.wait_all_tasks_blocked()
    status = await host.node.status()
    (state,) = status.models
    assert state.pool.alone == "it has a state of its own"
    assert (state.pool.held_tokens, state.pool.use.running_tokens) == (16, 0)
    set_gauges(host.metrics, "local", status)
    where = {"model": "tiny", "node": "local"}
    told = {
        name: host.metrics.registry.get_sample_value(f"helexa_{name}", where)
        for name in (
            "kv_cache_tokens",
            "kv_pool_tokens",
            "prefix_cache_bytes",
            "prefix_cache_entries",
            "prefix_cache_hits_total",
            "prefix_cache_saved_tokens_total",
            "prefix_cache_evictions_total",
            "preemptions_total",
        )
    }
    assert list(told.values()) == [16, 8192, 16 * KV_BYTES_PER_TOKEN, 2, 1, 5, 0, 0]
