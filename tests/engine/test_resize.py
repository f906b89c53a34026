"""A KV pool gives room back, or gets more, between two steps; nobody loses a token by it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from toys import ARCHITECTURES, generate, loaded, prompt_of, reference, run, tokens_of

from helexa.engine import scheduler
from helexa.engine.orders import Add, Failed, KvUse, PrefillProgress, Resize, SamplingParams
from helexa.errors import InsufficientVram

Toy = Callable[..., Path]
GREEDY = SamplingParams(temperature=0)
COUNT = 24


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kv_tokens", [64, 640, 8192])
def test_running_sequences_do_not_notice(architecture: str, kv_tokens: int, toy: Toy) -> None:
    path = toy(architecture)
    worker = loaded(path)
    lengths = (45, 90, 30)
    for uid, length in enumerate(lengths, 10):
        worker.apply(Add(uid, 1, prompt_of(length), COUNT, GREEDY))
    notices = [notice for _ in range(12) for notice in worker.step()]
    (use,) = worker.apply(Resize(1, kv_tokens))
    assert isinstance(use, KvUse)
    assert use.running_tokens <= use.total_tokens
    assert use.total_tokens == max(kv_tokens, use.running_tokens)
    notices += run(worker)
    model = reference(path)
    for uid, length in enumerate(lengths, 10):
        assert tokens_of(notices, uid) == generate(model, prompt_of(length), COUNT)


def test_what_is_cached_is_kept_as_far_as_it_fits_the_latest_first(toy: Toy) -> None:
    worker = loaded(toy())
    prompts = [prompt_of(100, seed) for seed in range(3)]
    for uid, prompt in enumerate(prompts, 10):
        worker.apply(Add(uid, 1, prompt, 1, GREEDY))
        run(worker)
    (use,) = worker.apply(Resize(1, 256))
    assert isinstance(use, KvUse)
    assert (use.total_tokens, use.entries) == (256, 2)
    for uid, prompt, cached in zip((20, 21), prompts[:0:-1], (99, 99), strict=True):
        notices = [*worker.apply(Add(uid, 1, prompt, 1, GREEDY)), *run(worker)]
        first = next(notice for notice in notices if isinstance(notice, PrefillProgress))
        assert first.cached_tokens == cached


def test_a_pool_that_grew_takes_more_at_once(toy: Toy) -> None:
    worker = loaded(toy(), kv_tokens=128)
    (use,) = worker.apply(Resize(1, 512))
    assert isinstance(use, KvUse)
    for uid in range(10, 14):
        worker.apply(Add(uid, 1, prompt_of(90, uid), COUNT, GREEDY))
    uses = [notice for notice in run(worker) if isinstance(notice, KvUse)]
    assert max(use.running_tokens for use in uses) == 512
    assert uses[-1].preemptions == 0


def test_who_no_longer_fits_fails_and_nobody_waits_for_ever(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One grows out of what is left, one that waits had been within what there was."""
    monkeypatch.setattr(scheduler, "AHEAD", 0)
    worker = loaded(toy(), batch_width=1)
    for uid, length in ((10, 50), (11, 200), (12, 40)):
        worker.apply(Add(uid, 1, prompt_of(length), COUNT, GREEDY))
    notices = [notice for _ in range(5) for notice in worker.step()]
    worker.apply(Resize(1, 64))
    for _ in range(200):
        notices += worker.step()
    assert worker.idle
    failed = {n.uid: n.error for n in notices if isinstance(n, Failed)}
    assert failed.keys() == {10, 11}
    assert all(isinstance(error, InsufficientVram) for error in failed.values())
    assert tokens_of(notices, 12) == generate(reference(toy()), prompt_of(40), COUNT)


@pytest.mark.parametrize("what", ["resize", "move"])
@pytest.mark.parametrize("kv_tokens", [256, 8192])
def test_a_pool_that_finds_no_room_to_change_costs_no_answer(
    what: str, kv_tokens: int, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = loaded(toy(), kv_tokens=1024)
    for uid in (10, 11, 12):
        worker.apply(Add(uid, 1, prompt_of(45, uid), COUNT, GREEDY))
    notices = [notice for _ in range(12) for notice in worker.step()]
    layers = list(worker._batches[1]._memory.layers.full)

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with monkeypatch.context() as patch:
        patch.setattr(layers[2], what, fail)
        (use,) = worker.apply(Resize(1, kv_tokens))
    assert isinstance(use, KvUse)
    assert use.total_tokens == min(layer.pool[0].shape[1] for layer in layers)
    assert (use.total_tokens < 1024) == (what == "resize" and kv_tokens == 256)
    notices += run(worker)
    for uid in (10, 11, 12):
        assert tokens_of(notices, uid) == generate(reference(toy()), prompt_of(45, uid), COUNT)


def test_nothing_there_is_nothing(toy: Toy) -> None:
    assert loaded(toy()).apply(Resize(7, 64)) == []
