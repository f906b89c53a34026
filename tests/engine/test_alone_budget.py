"""A model whose sequences run one at a time has caches of its own: what they take is counted and bounded."""

from collections.abc import Callable
from pathlib import Path

from toys import cpu_worker, load_order, prompt_of, run
from transformers import DynamicCache

from helexa.engine.orders import Add, Failed, KvUse, Loaded, SamplingParams
from helexa.engine.runner import Alone
from helexa.engine.worker import Worker
from helexa.errors import InsufficientVram

Toy = Callable[..., Path]
EACH = 2 * 4 * 48 * 4  # keys and values of four layers, 48 columns in fp32
GREEDY = SamplingParams(temperature=0)


def alone(toy: Toy, **changes: object) -> tuple[Worker, Loaded]:
    """Bloom adds positions to the scores, in an attention of its own."""
    worker = cpu_worker(threads=1)
    worker.apply(load_order(toy("bloom", n_head=4), **changes))
    (told,) = [notice for notice in run(worker) if isinstance(notice, Loaded)]
    assert told.alone
    return worker, told


def bytes_of(cache: DynamicCache) -> int:
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


def test_what_a_token_takes_is_measured_and_the_bytes_bound_the_tokens(toy: Toy) -> None:
    _, told = alone(toy, kv_tokens=4096, kv_bytes=300 * EACH, kv_dtype="int8")
    assert (told.kv_bytes_per_token, told.kv_tokens) == (EACH, 256)


def test_all_caches_together_stay_within_the_budget(toy: Toy) -> None:
    worker, told = alone(toy, kv_tokens=192)
    runner = worker._batches[1]._runner
    assert isinstance(runner, Alone)
    for uid in range(10, 14):
        worker.apply(Add(uid, 1, prompt_of(50, seed=uid), 20, GREEDY))
    uses = []
    while not worker.idle:
        uses += [notice for notice in worker.step() if isinstance(notice, KvUse)]
        taken = sum(map(bytes_of, runner._caches.values()))
        assert taken <= told.kv_tokens * told.kv_bytes_per_token
    assert max(use.running_tokens for use in uses) <= 192
    assert not runner._caches


def test_a_prompt_that_the_budget_does_not_hold_is_refused(toy: Toy) -> None:
    worker, _ = alone(toy, kv_tokens=64)
    (failed,) = worker.apply(Add(10, 1, prompt_of(65), 1, GREEDY))
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, InsufficientVram)
