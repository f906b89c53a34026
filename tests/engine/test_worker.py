"""What a device thread sees: orders in, notices out, and memory that comes back."""

import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toys import (
    VOCAB,
    answer,
    cpu_worker,
    generate,
    load_order,
    loaded,
    prompt_of,
    reference,
    run,
    tokens_of,
)
from transformers.core_model_loading import MergeModulelist

from helexa.devices.monitor import CpuDevice
from helexa.engine import sampler, stream, worker
from helexa.engine.filters import Draw
from helexa.engine.orders import (
    Abort,
    Add,
    Crashed,
    Failed,
    KvUse,
    Loaded,
    LoadProgress,
    Notice,
    Piece,
    PrefillProgress,
    SamplingParams,
    Unload,
    Unloaded,
)
from helexa.engine.runner import Outcomes, Together
from helexa.engine.scheduler import Chunk
from helexa.engine.worker import Worker
from helexa.errors import (
    ContextLengthExceeded,
    DevicePoisoned,
    HelexaError,
    InsufficientVram,
    InvalidRequest,
    ServiceUnavailable,
    StoreError,
)

Toy = Callable[..., Path]

GREEDY = SamplingParams(temperature=0)
CPU_OUT_OF_MEMORY = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")
CUDA_OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
POISON = RuntimeError("CUDA error: an illegal memory access was encountered")


def ask(uid: int, length: int = 9, count: int = 5, **changes: Any) -> Add:
    usual = {"model_uid": 1, "prompt": prompt_of(length), "max_tokens": count, "sampling": GREEDY}
    return Add(uid=uid, **{**usual, **changes})


def failures(notices: Iterable[Notice]) -> dict[int, HelexaError]:
    return {notice.uid: notice.error for notice in notices if isinstance(notice, Failed)}


def pieces(notices: Iterable[Notice], uid: int) -> list[Piece]:
    return [n for n in notices if isinstance(n, Piece) and n.uid == uid]


def running_tokens(device: Worker, uid: int = 1) -> int:
    """Positions of the KV pool that sequences have."""
    return device._batches[uid]._memory.running_tokens


def wrap_run(
    patch: pytest.MonkeyPatch, after: Callable[[Sequence[Chunk], Outcomes], Outcomes]
) -> None:
    """Do something with what every pass of a model gives."""
    run_pass = Together.run

    def wrapped(self: Together, chunks: Sequence[Chunk], *sequences: Any) -> Outcomes:
        return after(chunks, run_pass(self, chunks, *sequences))

    patch.setattr(Together, "run", wrapped)


def spoil(patch: pytest.MonkeyPatch, uid: int) -> None:
    """Let all logits of a sequence be no numbers."""

    @torch.inference_mode()
    def spoilt(_: Sequence[Chunk], outcomes: Outcomes) -> Outcomes:
        if uid in outcomes.uids and outcomes.logits is not None:
            outcomes.logits = outcomes.logits.clone()
            outcomes.logits[outcomes.uids.index(uid)] = torch.nan
        return outcomes

    wrap_run(patch, spoilt)


# -- loading and unloading -------------------------------------------------------------------------


def test_a_load_tells_how_far_it_is_and_then_that_it_is_done(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "SLICE_BYTES", 20_000)
    monkeypatch.setattr(worker, "LOAD_SECONDS", 0)
    device = cpu_worker()
    assert device.idle
    assert device.apply(load_order(toy())) == []
    assert not device.idle
    *progress, done = run(device)
    assert len(progress) > 5
    assert all(isinstance(p, LoadProgress) and p.uid == 1 for p in progress)
    assert isinstance(done, Loaded)
    assert done.weights_bytes > 0
    assert done.seconds > 0
    assert device.idle


def test_streams_go_on_while_another_model_loads(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SLICE_BYTES", 20_000)
    monkeypatch.setattr(worker, "LOAD_SECONDS", 0)
    device = loaded(toy())
    device.apply(ask(10, count=4))
    device.apply(load_order(toy("qwen3"), uid=2))
    for _ in range(4):
        kinds = {type(notice) for notice in device.step()}
        assert {LoadProgress, Piece} <= kinds
    notices = [*run(device), *device.apply(ask(11, model_uid=2)), *run(device)]
    assert tokens_of(notices, 11) == generate(reference(toy("qwen3")), prompt_of(9), 5)


def test_models_on_one_device_do_not_mix(toy: Toy) -> None:
    device = loaded(toy())
    device.apply(load_order(toy("qwen3"), uid=2))
    run(device)
    device.apply(ask(10))
    device.apply(ask(11, model_uid=2))
    notices = run(device)
    assert tokens_of(notices, 10) == generate(reference(toy()), prompt_of(9), 5)
    assert tokens_of(notices, 11) == generate(reference(toy("qwen3")), prompt_of(9), 5)


def test_loads_are_done_in_the_order_they_came(toy: Toy) -> None:
    device = cpu_worker()
    for uid in (1, 2, 3):
        device.apply(load_order(toy(), uid=uid))
    assert [n.uid for n in run(device) if isinstance(n, Loaded)] == [1, 2, 3]


def test_a_load_that_is_aborted_is_forgotten(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SLICE_BYTES", 20_000)
    monkeypatch.setattr(worker, "LOAD_SECONDS", 0)
    device = cpu_worker()
    device.apply(load_order(toy()))
    for _ in range(4):
        device.step()
    slices = weakref.ref(device._loads[1].slices)
    device.apply(Abort(1))
    assert run(device) == []
    assert slices() is None
    assert isinstance(failures(device.apply(ask(10)))[10], ServiceUnavailable)


def test_an_abort_that_comes_after_the_load_was_done_frees_the_model(toy: Toy) -> None:
    device = loaded(toy())
    weights = weights_of(device)
    device.apply(Abort(1))
    assert run(device) == []
    assert not alive(weights)


def test_unloading_frees_the_weights_before_it_says_so(toy: Toy) -> None:
    device = loaded(toy("mixtral"))
    answer(device, ask(10))
    weights = weights_of(device)
    assert alive(weights)
    device.apply(Unload(1))
    assert device.step() == [Unloaded(1)]
    assert not alive(weights)
    assert device.idle


def test_unloading_ends_what_still_runs(toy: Toy) -> None:
    device = loaded(toy())
    device.apply(ask(10, count=99))
    device.step()
    device.apply(ask(11, count=99))
    device.apply(Unload(1))
    *failed, last = device.step()
    assert last == Unloaded(1)
    assert failures(failed).keys() == {10, 11}
    assert all(isinstance(e, ServiceUnavailable) for e in failures(failed).values())
    assert isinstance(failures(device.apply(ask(12)))[12], ServiceUnavailable)


def test_unloading_a_load_in_progress_or_nothing_at_all_is_answered(toy: Toy) -> None:
    device = cpu_worker()
    device.apply(load_order(toy()))
    device.apply(Unload(1))
    device.apply(Unload(99))
    assert run(device) == [Unloaded(1), Unloaded(99)]


def test_a_load_that_fails_says_why_and_leaves_the_others(toy: Toy, tmp_path: Path) -> None:
    device = loaded(toy())
    device.apply(ask(10, count=3))
    device.apply(load_order(tmp_path, uid=2))
    notices = run(device)
    assert isinstance(failures(notices)[2], StoreError)
    assert len(pieces(notices, 10)) == 3


@pytest.mark.parametrize("error", [CPU_OUT_OF_MEMORY, CUDA_OUT_OF_MEMORY])
def test_a_model_that_does_not_fit_fails_its_load_alone(
    error: Exception, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = loaded(toy())
    monkeypatch.setattr(stream, "build_skeleton", raising(error))
    device.apply(load_order(toy("qwen3"), uid=2, model="giant"))
    failure = failures(run(device))[2]
    assert isinstance(failure, InsufficientVram)
    assert "giant does not fit" in failure.message
    assert len(answer(device, ask(10))) == 5


def test_memory_that_runs_out_while_weights_are_fused_is_not_the_weights_fault(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MergeModulelist, "convert", raising(CPU_OUT_OF_MEMORY))
    device = cpu_worker()
    device.apply(load_order(toy("mixtral")))
    assert isinstance(failures(run(device))[1], InsufficientVram)


def test_an_unforeseen_error_in_a_load_fails_it_in_a_sentence(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "build_skeleton", raising(ZeroDivisionError("by zero\nat all")))
    device = cpu_worker()
    device.apply(load_order(toy()))
    failure = failures(run(device))[1]
    assert failure.message == "toy could not be loaded: by zero"


def test_the_whole_answer_of_a_poisoned_load_is_that_the_device_is_lost(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "build_skeleton", raising(POISON))
    device = cpu_worker()
    device.apply(load_order(toy()))
    with pytest.raises(DevicePoisoned, match="illegal memory access"):
        run(device)


# -- one sequence ----------------------------------------------------------------------------------


def test_a_prompt_tells_how_far_it_is(toy: Toy) -> None:
    device = loaded(toy(), prefill_chunk_tokens=4)
    device.apply(ask(10, length=10, count=1))
    notices = [n for n in run(device) if not isinstance(n, KvUse)]
    assert notices[:-1] == [PrefillProgress(10, done, 10) for done in (4, 8, 10)]
    assert isinstance(notices[-1], Piece)


def test_max_tokens_ends_an_answer(toy: Toy) -> None:
    device = loaded(toy())
    for count in (1, 2, 5):
        device.apply(ask(10, count=count))
        answered = pieces(run(device), 10)
        assert [piece.finish for piece in answered] == [None] * (count - 1) + ["length"]
        assert device.idle


def test_a_stop_id_ends_an_answer_and_is_its_last_token(toy: Toy) -> None:
    expected = generate(reference(toy()), prompt_of(9), 8)
    stop = expected[3]
    assert stop not in expected[:3]
    device = loaded(toy())
    device.apply(ask(10, count=8, stop_ids=frozenset({stop, VOCAB + 1})))
    answered = pieces(run(device), 10)
    assert [piece.token for piece in answered] == expected[:4]
    assert [piece.finish for piece in answered] == [None, None, None, "stop"]


def test_an_answer_ends_where_the_models_positions_end(toy: Toy) -> None:
    device = loaded(toy(max_position_embeddings=20))
    device.apply(ask(10, length=15, count=99))
    assert [p.finish for p in pieces(run(device), 10)] == [None] * 4 + ["length"]
    device.apply(ask(11, length=20, count=99))
    assert [p.finish for p in pieces(run(device), 11)] == ["length"]
    refusal = failures(device.apply(ask(12, length=21)))[12]
    assert isinstance(refusal, ContextLengthExceeded)
    assert refusal.details == {"prompt_len": 21, "max": 20}


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": ()},
        {"prompt": (3, VOCAB)},
        {"prompt": (-1, 3)},
        {"count": 0},
        {"sampling": SamplingParams(logit_bias=((VOCAB, 1.0),))},
        {"sampling": SamplingParams(logit_bias=((-1, 1.0),))},
    ],
)
def test_what_would_fail_on_the_device_is_refused_at_once(
    changes: dict[str, Any], toy: Toy
) -> None:
    device = loaded(toy())
    assert isinstance(failures(device.apply(ask(10, **changes)))[10], InvalidRequest)
    assert device.idle


def test_a_seed_repeats_a_text_whoever_else_runs(toy: Toy) -> None:
    device = loaded(toy())
    sampling = SamplingParams(temperature=1.5, top_p=0.95, seed=42)
    alone = answer(device, ask(10, count=12, sampling=sampling))
    assert answer(device, ask(11, count=12, sampling=sampling)) == alone
    device.apply(ask(12, length=30, count=20, sampling=SamplingParams()))
    device.step()
    device.apply(ask(13, count=12, sampling=sampling))
    assert tokens_of(run(device), 13) == alone
    assert answer(device, ask(14, count=12, sampling=SamplingParams(seed=43))) != alone


def test_logprobs_come_with_every_token(toy: Toy) -> None:
    device = loaded(toy())
    device.apply(ask(10, sampling=SamplingParams(temperature=0, top_logprobs=3)))
    for piece in pieces(run(device), 10):
        assert piece.top[0] == (piece.token, piece.logprob)
        assert len(piece.top) == 3


def test_logits_that_are_not_numbers_fail_their_sequence_alone(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 10)
    device = loaded(toy())
    device.apply(ask(10))
    device.apply(ask(11))
    notices = run(device)
    assert "not a number" in failures(notices)[10].message
    assert len(pieces(notices, 11)) == 5


# -- aborting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix_cache", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_an_abort_frees_the_cache_before_the_next_step_and_says_so(
    steps: int, prefix_cache: bool, toy: Toy
) -> None:
    """In the prompt (30 tokens in chunks of 16) and in the answer."""
    device = loaded(toy(), prefix_cache=prefix_cache)
    device.apply(ask(10, length=30, count=99))
    told = [n for _ in range(steps) for n in device.step() if isinstance(n, KvUse)]
    assert told[-1].running_tokens == running_tokens(device) > 0
    (use,) = device.apply(Abort(10))
    assert isinstance(use, KvUse)
    assert use.running_tokens == running_tokens(device) == 0
    assert use.entries == (1 if prefix_cache else 0)
    assert use.cached_tokens == ((0, 16, 30, 31, 32, 33)[steps] if prefix_cache else 0)
    assert device.idle


@pytest.mark.parametrize("architecture", ["gemma3_text", "qwen3_next"])
def test_an_abort_frees_windows_and_states(architecture: str, toy: Toy) -> None:
    device = loaded(toy(architecture), prefix_cache=False)
    device.apply(ask(10, length=30, count=99))
    device.step()
    states = [weakref.ref(s) for s in device._batches[1]._memory.segment(10, 0, 0).states.values()]
    device.apply(Abort(10))
    answer(device, ask(11))  # the last pass is remembered until the next
    assert states
    assert not any(state() for state in states)


def test_an_answer_that_ends_frees_its_cache(toy: Toy) -> None:
    device = loaded(toy(), prefix_cache=False)
    device.apply(ask(10))
    told = [n for n in run(device) if isinstance(n, KvUse)]
    assert (told[-1].running_tokens, told[-1].cached_tokens) == (0, 0)
    assert running_tokens(device) == 0


def test_aborting_what_is_not_there_is_nothing(toy: Toy) -> None:
    device = loaded(toy())
    answer(device, ask(10))
    for uid in (10, 11):
        assert device.apply(Abort(uid)) == []
    assert device.idle


def test_an_abort_lets_the_one_that_waited_start(toy: Toy) -> None:
    device = loaded(toy(), batch_width=1)
    device.apply(ask(10, count=99))
    device.apply(ask(11, count=2))
    device.step()
    assert pieces(device.step(), 11) == []
    device.apply(Abort(10))
    assert len(pieces(run(device), 11)) == 2


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 40), st.integers(1, 6)),
        st.tuples(st.just("abort"), st.integers(0, 12), st.just(0)),
        st.tuples(st.just("step"), st.integers(1, 3), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS, width=st.integers(1, 4), chunk=st.integers(1, 16))
def test_whatever_comes_between_every_sequence_ends_once_and_leaves_nothing(
    actions: list[tuple[str, int, int]], width: int, chunk: int, toy: Toy
) -> None:
    device = loaded(toy(), batch_width=width, prefill_chunk_tokens=chunk)
    added: dict[int, int] = {}
    aborted: set[int] = set()
    notices: list[Notice] = []
    for what, number, count in actions:
        if what == "add":
            uid = 100 + len(added)
            added[uid] = count
            notices += device.apply(ask(uid, length=number, count=count))
        elif what == "abort":
            aborted.add(100 + number)
            notices += device.apply(Abort(100 + number))
        else:
            for _ in range(number):
                notices += device.step()
    notices += run(device)
    assert failures(notices) == {}
    for uid, count in added.items():
        finishes = [piece.finish for piece in pieces(notices, uid)]
        if uid not in aborted:
            assert finishes == [None] * (count - 1) + ["length"]
        else:
            assert finishes.count("length") <= 1
    assert running_tokens(device) == 0
    assert not device._batches[1].is_busy


# -- errors of the device --------------------------------------------------------------------------


@pytest.mark.parametrize("error", [CPU_OUT_OF_MEMORY, CUDA_OUT_OF_MEMORY])
@pytest.mark.parametrize("place", [0, 16, 30])
def test_a_sequence_that_finds_no_memory_fails_alone(
    error: Exception, place: int, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_pass(monkeypatch, error, uid=10, place=place)
    device = loaded(toy())
    device.apply(ask(10, length=30))
    device.apply(ask(11))
    notices = run(device)
    assert isinstance(failures(notices)[10], InsufficientVram)
    assert tokens_of(notices, 11) == generate(reference(toy()), prompt_of(9), 5)
    assert running_tokens(device) == 0


def test_a_sampler_that_finds_no_memory_fails_its_sequence_alone(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = sampler.choose

    def refuse_random(logits: torch.Tensor, draws: Sequence[Draw], width: int) -> torch.Tensor:
        if any(draw.params.temperature for draw in draws):
            raise CPU_OUT_OF_MEMORY
        return choose(logits, draws, width)

    monkeypatch.setattr(sampler, "choose", refuse_random)
    device = loaded(toy())
    device.apply(ask(10, sampling=SamplingParams()))
    device.apply(ask(11))
    notices = run(device)
    assert isinstance(failures(notices)[10], InsufficientVram)
    assert len(pieces(notices, 11)) == 5


def test_a_crash_ends_one_model_and_frees_it_and_spares_the_other(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_pass(monkeypatch, RuntimeError("a kernel\nof ours is wrong"), uid=10, place=9)
    device = loaded(toy())
    device.apply(load_order(toy("qwen3"), uid=2))
    run(device)
    weights = weights_of(device)
    for order in (ask(10), ask(11), ask(12, model_uid=2)):
        device.apply(order)
    notices = run(device)
    failed = failures(notices)
    assert failed.keys() == {10, 11}
    assert all(isinstance(e, ServiceUnavailable) and e.retry_after for e in failed.values())
    assert Crashed(1, "toy crashed: a kernel") in notices
    assert notices.index(Crashed(1, "toy crashed: a kernel")) > 1
    assert len(pieces(notices, 12)) == 5
    assert not alive(weights)
    assert isinstance(failures(device.apply(ask(13)))[13], ServiceUnavailable)


def test_after_a_crash_the_model_can_be_loaded_again(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = loaded(toy())
    with monkeypatch.context() as patch:
        fail_pass(patch, RuntimeError("boom"), uid=10, place=0)
        device.apply(ask(10))
        run(device)
    device.apply(load_order(toy(), uid=2))
    run(device)
    expected = generate(reference(toy()), prompt_of(9), 5)
    assert answer(device, ask(11, model_uid=2)) == expected


def test_an_error_that_poisons_the_device_comes_out_of_the_step(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_pass(monkeypatch, POISON, uid=10, place=9)
    device = loaded(toy())
    device.apply(ask(10))
    with pytest.raises(DevicePoisoned, match="CPU: CUDA error"):
        run(device)


def test_poison_that_is_met_while_memory_is_freed_is_named_too(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = loaded(toy())
    monkeypatch.setattr(CpuDevice, "trim", raising(POISON))
    device.apply(Unload(1))
    with pytest.raises(DevicePoisoned):
        device.step()


def raising(error: Exception) -> Callable[..., Any]:
    def function(*args: object, **options: object) -> None:
        raise error

    return function


def fail_pass(patch: pytest.MonkeyPatch, error: Exception, uid: int, place: int) -> None:
    """Raise `error` from a pass that computes token number `place` of a sequence."""

    def failing(chunks: Sequence[Chunk], outcomes: Outcomes) -> Outcomes:
        if any(c.uid == uid and c.start <= place < c.start + c.count for c in chunks):
            raise error
        return outcomes

    wrap_run(patch, failing)


def weights_of(device: Worker) -> list[weakref.ref[torch.Tensor]]:
    model = device._batches[1]._loaded.model
    return [weakref.ref(tensor) for tensor in (*model.parameters(), *model.buffers())]


def alive(tensors: list[weakref.ref[torch.Tensor]]) -> int:
    return sum(tensor() is not None for tensor in tensors)
