"""A KV pool in fewer bits: what it takes, how far it moves logits, and that all that a pool does goes on."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from passes import carried_out
from toys import (
    ARCHITECTURES,
    answer,
    cpu_worker,
    load_order,
    loaded,
    prompt_of,
    run,
    tokens_of,
)

from helexa.engine.kv.spans import rounded
from helexa.engine.kv.storage import storage_of
from helexa.engine.orders import (
    Add,
    Dtype,
    KvDtype,
    Loaded,
    PrefillProgress,
    Resize,
    SamplingParams,
    Unload,
)
from helexa.engine.room import make_room
from helexa.engine.sampler import Sampler
from helexa.engine.scheduler import Chunk
from helexa.engine.sequence import Sequence
from helexa.engine.worker import Worker
from helexa.fleet.fit import size_of
from helexa.store.facts import read_facts

Toy = Callable[..., Path]
GREEDY = SamplingParams(temperature=0)
NARROW: tuple[KvDtype, ...] = ("bf16", "fp8", "int8")


@given(
    st.sampled_from([(1e-6, 1.0), (1.0, 1.0), (1.0, 300.0)]),
    st.integers(0, 2**31),
    st.sampled_from(NARROW),
)
def test_what_comes_back_is_what_went_in_within_its_bits(
    scale: tuple[float, float], seed: int, kv_dtype: KvDtype
) -> None:
    random = torch.Generator().manual_seed(seed)
    spread = torch.linspace(*scale, 5)[None, :, None]
    values = torch.randn(2, 5, 16, generator=random) * spread
    storage = storage_of(kv_dtype, torch.float32)
    back = storage.unpack(storage.pack(values), torch.float32)
    largest = values.abs().amax(-1, keepdim=True)
    bound = {
        "bf16": values.abs() / 256,
        "fp8": (values.abs() / 16).clamp_min(2.0**-10) + (values.abs() - 448).clamp_min(0),
        "int8": largest / 127 * 0.76,  # half a step, and the scale's own rounding at the far end
    }[kv_dtype]
    assert ((back - values).abs() <= bound + 1e-30).all()


@pytest.mark.parametrize("kv_dtype", NARROW)
def test_a_head_that_is_zero_stays_zero_and_one_that_is_no_number_stays_none(
    kv_dtype: KvDtype,
) -> None:
    storage = storage_of(kv_dtype, torch.float32)
    values = torch.stack([torch.zeros(3, 8), torch.full((3, 8), torch.nan)])
    zero, none = storage.unpack(storage.pack(values), torch.float32)
    assert (zero == 0).all()
    assert none.isnan().all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("kv_dtype", ["auto", *NARROW])
def test_a_token_takes_what_the_files_said_it_would(
    architecture: str, dtype: Dtype, kv_dtype: KvDtype, toy: Toy
) -> None:
    path = toy(architecture)
    worker = cpu_worker(threads=1)
    worker.apply(load_order(path, dtype=dtype, kv_dtype=kv_dtype))
    told = next(notice for notice in run(worker) if isinstance(notice, Loaded))
    size = size_of(read_facts(path))
    assert told.kv_bytes_per_token == size.kv_bytes_per_token(dtype, kv_dtype)
    memory = worker._batches[1]._memory
    pools = sum(part.nbytes for layer in memory.layers.full for part in layer.pool)
    assert pools == memory.total * told.kv_bytes_per_token


# How far logits may move in the root mean square, in their standard deviations, against a pool in the
# model's own fp32.  Without mixtures: what a router chooses is all or nothing.
BOUNDS = {"bf16": 0.02, "fp8": 0.3, "int8": 0.05}


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3_text", "lfm2"])
@pytest.mark.parametrize("kv_dtype", NARROW)
def test_logits_stay_within_a_bound_that_is_stated(
    architecture: str, kv_dtype: KvDtype, toy: Toy
) -> None:
    path, tokens = toy(architecture), prompt_of(48)
    plain, narrow = (forced_logits(path, tokens, kind) for kind in ("auto", kv_dtype))
    moved = (plain - narrow).square().mean().sqrt() / plain.std()
    assert 0 < moved <= BOUNDS[kv_dtype]


def forced_logits(path: Path, tokens: tuple[int, ...], kv_dtype: KvDtype) -> torch.Tensor:
    """The logits after the second half of the tokens, read one by one, so that all come from the pool."""
    order = load_order(path, kv_dtype=kv_dtype)
    model, _ = carried_out(order)
    memory, runner, alone = make_room(order, model)
    assert not alone
    sampler = Sampler(GREEDY, tokens, model.vocab_size, "cpu")
    sequences = {1: Sequence(Add(1, 1, tokens, 1), 1, sampler, list(tokens))}
    memory.begin(1, list(tokens), "", rounded(len(tokens)), reuses=False)
    ends = [0, *range(len(tokens) // 2, len(tokens) + 1)]
    found = []
    for start, end in pairwise(ends):
        outcomes = runner.run((Chunk(1, start, end - start, samples=True),), sequences)
        assert outcomes.logits is not None
        found.append(outcomes.logits[0].clone())
    return torch.stack(found)


# -- what a pool does ------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["qwen3", "gemma3_text"])
@pytest.mark.parametrize("kv_dtype", NARROW)
def test_together_they_answer_as_alone(architecture: str, kv_dtype: KvDtype, toy: Toy) -> None:
    path = toy(architecture)
    orders = [Add(uid, 1, prompt_of(20 + uid), 12, GREEDY) for uid in range(10, 14)]
    alone = [answer(loaded(path, kv_dtype=kv_dtype), order) for order in orders]
    worker = loaded(path, kv_dtype=kv_dtype)
    for order in orders:
        worker.apply(order)
    notices = run(worker)
    assert [tokens_of(notices, order.uid) for order in orders] == alone


@pytest.mark.parametrize("kv_dtype", NARROW)
def test_what_was_computed_is_found_again_copied_moved_resized_and_parked(
    kv_dtype: KvDtype, toy: Toy
) -> None:
    path, prompt = toy("qwen3"), prompt_of(100)
    expected = answer(loaded(path, kv_dtype=kv_dtype), Add(10, 1, prompt, 12, GREEDY))
    worker = loaded(path, kv_dtype=kv_dtype)
    worker.apply(Add(9, 1, prompt_of(30, seed=1), 400, GREEDY))  # runs on, and lies before it
    said = tokens_of(stepped(worker, Add(10, 1, prompt, 12, GREEDY)), 10)
    assert said == expected
    again = stepped(worker, Add(11, 1, prompt, 12, GREEDY))
    assert cached(again) >= 64
    assert tokens_of(again, 11) == expected
    worker.apply(Resize(1, 1024))
    resized = stepped(worker, Add(12, 1, prompt, 12, GREEDY))
    assert cached(resized) >= 64
    assert tokens_of(resized, 12) == expected
    worker.apply(Unload(1))
    run(worker)
    worker.apply(load_order(path, uid=2, kv_dtype=kv_dtype))
    run(worker)
    parked = stepped(worker, Add(13, 2, prompt, 12, GREEDY))
    assert cached(parked) >= 64
    assert tokens_of(parked, 13) == expected


def stepped(worker: Worker, order: Add) -> list[object]:
    """Until this one sequence has its answer; others may go on."""
    notices: list[object] = [*worker.apply(order)]
    while not any(getattr(notice, "finish", None) for notice in notices):
        notices += [n for n in worker.step() if getattr(n, "uid", None) == order.uid]
    return notices


def cached(notices: list[object]) -> int:
    return next(n.cached_tokens for n in notices if isinstance(n, PrefillProgress))


def test_what_another_form_of_the_pool_left_behind_is_not_taken(toy: Toy) -> None:
    path, prompt = toy("qwen3"), prompt_of(100)
    worker = loaded(path, kv_dtype="int8")
    answer(worker, Add(10, 1, prompt, 2, GREEDY))
    worker.apply(Unload(1))
    run(worker)
    worker.apply(load_order(path, uid=2, kv_dtype="auto"))
    run(worker)
    assert cached([*worker.apply(Add(11, 2, prompt, 2, GREEDY)), *run(worker)]) == 0


def test_a_pool_takes_no_more_bytes_than_it_was_given(toy: Toy) -> None:
    path = toy("qwen3")
    worker = cpu_worker(threads=1)
    each = 4 * 4 * 2 * 2 * 16  # four layers of fp32: two sides of two heads of 16
    worker.apply(load_order(path, kv_tokens=4096, kv_bytes=1024 * each + 100))
    told = next(notice for notice in run(worker) if isinstance(notice, Loaded))
    assert (told.kv_bytes_per_token, told.kv_tokens) == (each, 1024)
