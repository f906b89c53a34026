"""Sequences that share passes, prefixes and a pool that is too small answer as if each were alone."""

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from random import Random

import pytest
import torch
from attrs import evolve
from toys import (
    ARCHITECTURES,
    cpu_worker,
    generate,
    load_order,
    loaded,
    prompt_of,
    reference,
    run,
    tokens_of,
)

from helexa.engine import scheduler
from helexa.engine.orders import (
    Abort,
    Add,
    Failed,
    KvUse,
    Loaded,
    Notice,
    Piece,
    PrefillProgress,
    SamplingParams,
    Unload,
)
from helexa.engine.runner import Together
from helexa.engine.scheduler import Chunk
from helexa.engine.worker import Worker
from helexa.errors import HelexaError, InsufficientVram
from helexa.store import StoredModel

Toy = Callable[..., Path]
Expected = Callable[[Path, tuple[int, ...]], list[int]]

GREEDY = SamplingParams(temperature=0)
COUNT = 24  # tokens of an answer
CACHES = ["llama", "gemma3_text", "mistral", "qwen3_next", "lfm2"]  # one for each kind of layers


@pytest.fixture(scope="module")
def expected() -> Expected:
    """`generate`'s answer of COUNT tokens to a prompt."""
    model = cache(reference)

    @cache
    def get(path: Path, prompt: tuple[int, ...]) -> list[int]:
        return generate(model(path), prompt, COUNT)

    return get


def ask(uid: int, prompt: tuple[int, ...], salt: str = "", count: int = COUNT) -> Add:
    return Add(uid, 1, prompt, count, GREEDY, salt=salt)


def cached(notices: Iterable[Notice], uid: int) -> int:
    """How many tokens of a prompt were not computed for it."""
    (tokens,) = {
        n.cached_tokens for n in notices if isinstance(n, PrefillProgress) and n.uid == uid
    }
    return tokens


def last_use(notices: Iterable[Notice]) -> KvUse:
    return [n for n in notices if isinstance(n, KvUse)][-1]


def failures(notices: Iterable[Notice]) -> dict[int, HelexaError]:
    return {n.uid: n.error for n in notices if isinstance(n, Failed)}


def answers(worker: Worker, *orders: Add) -> list[Notice]:
    """All at once."""
    return [n for order in orders for n in worker.apply(order)] + run(worker)


# -- sequences that come and go in any step --------------------------------------------------------


def joined(worker: Worker, prompts: list[tuple[int, ...]], random: Random) -> list[Notice]:
    """Each prompt comes after some steps more, and some that nobody waits for leave in between."""
    notices: list[Notice] = []
    for uid, prompt in enumerate(prompts):
        notices += worker.apply(ask(uid, prompt))
        worker.apply(ask(100 + uid, prompt_of(random.randint(1, 40), seed=uid), count=99))
        for _ in range(random.randint(0, 4)):
            notices += worker.step()
        worker.apply(Abort(100 + random.randint(0, uid)))
    for uid in range(len(prompts)):
        worker.apply(Abort(100 + uid))
    return notices + run(worker)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("width", "chunk"), [(2, 5), (5, 16), (8, 64)])
def test_whoever_joins_and_leaves_every_answer_is_generates(
    architecture: str, width: int, chunk: int, toy: Toy, expected: Expected
) -> None:
    worker = cpu_worker(threads=1)
    worker.apply(load_order(toy(architecture), batch_width=width, prefill_chunk_tokens=chunk))
    (told,) = [n for n in run(worker) if isinstance(n, Loaded)]
    assert told.alone == ""
    assert told.kv_tokens == width * 512
    random = Random(width)
    prompts = [prompt_of(length, seed=length) for length in (45, 1, 30, 17, 64, 9)]
    notices = joined(worker, prompts, random)
    assert failures(notices) == {}
    for uid, prompt in enumerate(prompts):
        assert tokens_of(notices, uid) == expected(toy(architecture), prompt)


@pytest.mark.real
def test_whoever_joins_and_leaves_the_demo_model_answers_as_generate(
    demo_model: StoredModel, expected: Expected
) -> None:
    worker = cpu_worker()
    worker.apply(load_order(demo_model.path, kv_tokens=1024, prefill_chunk_tokens=20))
    (told,) = [n for n in run(worker) if isinstance(n, Loaded)]
    assert told.alone == ""
    prompts = [prompt_of(length, seed=length) for length in (45, 3, 70, 17)]
    notices = joined(worker, prompts, Random(1))
    for uid, prompt in enumerate(prompts):
        assert tokens_of(notices, uid) == expected(demo_model.path, prompt)


def test_a_short_request_need_not_wait_for_a_long_prompt(toy: Toy, expected: Expected) -> None:
    worker = loaded(toy(), prefill_chunk_tokens=16)
    long, short = prompt_of(400, seed=1), prompt_of(20, seed=2)
    notices = [*worker.apply(ask(1, long)), *worker.step(), *worker.apply(ask(2, short))]
    notices += run(worker)
    first = [notice.uid for notice in notices if isinstance(notice, Piece)]
    assert first.index(2) < first.index(1)
    assert tokens_of(notices, 1) == expected(toy(), long)
    assert tokens_of(notices, 2) == expected(toy(), short)


def test_streams_go_on_while_a_long_prompt_is_computed(toy: Toy) -> None:
    worker = loaded(toy(), prefill_chunk_tokens=8)
    worker.apply(ask(1, prompt_of(5), count=200))
    worker.step()
    worker.apply(ask(2, prompt_of(200)))
    for _ in range(20):
        notices = worker.step()
        assert len(tokens_of(notices, 1)) == 1
        assert [n.uid for n in notices if isinstance(n, PrefillProgress)] == [2]


# -- an architecture that cannot be batched --------------------------------------------------------


@pytest.mark.parametrize("architecture", ["llama", "qwen3_next"])
def test_what_comes_out_differently_together_is_computed_alone_and_says_so(
    architecture: str, toy: Toy, expected: Expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose sequences would look at each other's tokens."""
    forward = Together._forward

    def mixed_up(self: Together, group: list[Chunk], *rest: object, **more: object) -> torch.Tensor:
        return forward(self, group, *rest, **more).roll(1, 0)

    monkeypatch.setattr(Together, "_forward", mixed_up)
    worker = cpu_worker(threads=1)
    worker.apply(load_order(toy(architecture)))
    (told,) = [n for n in run(worker) if isinstance(n, Loaded)]
    assert told.alone == "computed together, its sequences come out differently"
    prompts = [prompt_of(length, seed=length) for length in (45, 1, 30)]
    notices = joined(worker, prompts, Random(1))
    for uid, prompt in enumerate(prompts):
        assert tokens_of(notices, uid) == expected(toy(architecture), prompt)
        assert cached(notices, uid) == 0
    assert (last_use(notices).running_tokens, last_use(notices).entries) == (0, 0)


def test_a_model_that_is_not_given_positions_is_computed_alone(
    toy: Toy, expected: Expected
) -> None:
    """Bloom adds them to the scores, in an attention of its own."""
    path = toy("bloom", n_layer=2, n_head=4)
    worker = cpu_worker(threads=1)
    worker.apply(load_order(path))
    (told,) = [n for n in run(worker) if isinstance(n, Loaded)]
    assert told.alone == "the model counts positions by itself"
    prompts = [prompt_of(length, seed=length) for length in (45, 1, 30)]
    notices = joined(worker, prompts, Random(1))
    for uid, prompt in enumerate(prompts):
        assert tokens_of(notices, uid) == expected(path, prompt)


# -- prefixes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix_cache", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_next_turn_computes_only_what_is_new(
    architecture: str, prefix_cache: bool, toy: Toy, expected: Expected
) -> None:
    path = toy(architecture)
    worker = loaded(path, prefix_cache=prefix_cache)
    prompt = prompt_of(70)
    for turn in range(3):
        notices = answers(worker, ask(turn, prompt))
        assert tokens_of(notices, turn) == expected(path, prompt)
        # All but the last token of the answer before, which was told but not computed.
        computed = len(prompt) - 11 if turn and prefix_cache else 0
        assert cached(notices, turn) == computed
        prompt = (*prompt, *tokens_of(notices, turn), *prompt_of(10, seed=turn))
    use = last_use(notices)
    assert use.hits == (2 if prefix_cache else 0)
    assert (use.entries, use.running_tokens) == (1 if prefix_cache else 0, 0)


@pytest.mark.parametrize("architecture", CACHES)
def test_eight_at_once_share_a_system_prompt(
    architecture: str, toy: Toy, expected: Expected
) -> None:
    path, system = toy(architecture), prompt_of(150)
    worker = loaded(path)
    prompts = [(*system, *prompt_of(12, seed=uid)) for uid in range(8)]
    notices = answers(worker, *(ask(uid, prompt) for uid, prompt in enumerate(prompts)))
    for uid, prompt in enumerate(prompts):
        assert tokens_of(notices, uid) == expected(path, prompt)
    # One computes it, the others wait for that.
    shared = [cached(notices, uid) for uid in range(8)]
    assert shared[0] == 0
    assert sum(tokens > 120 for tokens in shared) == 7


@pytest.mark.parametrize("architecture", CACHES)
def test_the_same_prompt_again_and_again_is_computed_once(
    architecture: str, toy: Toy, expected: Expected
) -> None:
    path, prompt = toy(architecture), prompt_of(70)
    worker = loaded(path)
    for uid in range(3):
        notices = answers(worker, ask(uid, prompt))
        assert tokens_of(notices, uid) == expected(path, prompt)
        assert cached(notices, uid) == (69 if uid else 0)
    together = answers(worker, *(ask(uid, prompt) for uid in range(10, 14)))
    for uid in range(10, 14):
        assert tokens_of(together, uid) == expected(path, prompt)
        assert cached(together, uid) == 69
    assert last_use(together).entries == 1


@pytest.mark.parametrize("architecture", CACHES)
def test_other_salts_see_nothing(architecture: str, toy: Toy, expected: Expected) -> None:
    path, prompt = toy(architecture), prompt_of(70)
    worker = loaded(path)
    for uid, salt in enumerate(["", "ann", "bob"]):
        notices = answers(worker, ask(uid, prompt, salt))
        assert cached(notices, uid) == 0
        assert tokens_of(notices, uid) == expected(path, prompt)
    assert cached(answers(worker, ask(9, prompt, "ann")), 9) == 69
    at_once = answers(worker, *(ask(10 + i, prompt, salt) for i, salt in enumerate("abcd")))
    for uid in range(10, 14):
        assert cached(at_once, uid) == 0
        assert tokens_of(at_once, uid) == expected(path, prompt)


def test_what_was_left_in_the_middle_is_used_too(toy: Toy, expected: Expected) -> None:
    worker = loaded(toy(), prefill_chunk_tokens=20)
    worker.apply(ask(10, prompt_of(70)))
    worker.step()
    worker.apply(Abort(10))
    notices = answers(worker, ask(11, prompt_of(70)))
    assert cached(notices, 11) == 20
    assert tokens_of(notices, 11) == expected(toy(), prompt_of(70))


@pytest.mark.parametrize("architecture", CACHES)
def test_a_model_that_comes_back_knows_the_conversation(
    architecture: str, toy: Toy, expected: Expected
) -> None:
    path, prompt = toy(architecture), prompt_of(70)
    worker = loaded(path)
    answers(worker, ask(10, prompt))
    for uid, changes in enumerate([{}, {"dtype": "bf16"}, {"prefix_cache": False}], 2):
        worker.apply(Unload(uid - 1))
        worker.apply(load_order(path, uid=uid, **changes))
        run(worker)
        notices = answers(worker, evolve(ask(10, prompt), model_uid=uid))
        assert cached(notices, 10) == (0 if changes else 69)
        if "dtype" not in changes:
            assert tokens_of(notices, 10) == expected(path, prompt)


# -- a pool that is too small ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "kv_tokens", "ahead"),
    [
        ("llama", 256, scheduler.AHEAD),
        *((architecture, 128, 0) for architecture in CACHES),
        *((architecture, 192, 0) for architecture in ("llama", "gemma3_text")),
    ],
)
def test_a_full_pool_makes_some_wait_and_changes_no_answer(
    architecture: str,
    kv_tokens: int,
    ahead: int,
    toy: Toy,
    expected: Expected,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduler, "AHEAD", ahead)
    path = toy(architecture)
    worker = loaded(path, kv_tokens=kv_tokens)
    prompts = [prompt_of(length, seed=length) for length in (50, 60, 45, 100, 7)]
    notices = answers(worker, *(ask(uid, prompt) for uid, prompt in enumerate(prompts)))
    assert failures(notices) == {}
    for uid, prompt in enumerate(prompts):
        assert tokens_of(notices, uid) == expected(path, prompt)
    use = last_use(notices)
    assert (use.running_tokens, use.total_tokens) == (0, kv_tokens)
    assert ahead or use.preemptions > 0


def test_only_a_prompt_that_does_not_fit_alone_fails(toy: Toy) -> None:
    worker = loaded(toy(), kv_tokens=128)
    notices = answers(worker, *(ask(length, prompt_of(length)) for length in (129, 128, 127, 100)))
    assert failures(notices).keys() == {129}
    assert isinstance(failures(notices)[129], InsufficientVram)
    assert [len(tokens_of(notices, uid)) for uid in (128, 127, 100)] == [1, 1, COUNT]


# -- a device that is too small --------------------------------------------------------------------

OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def limit(worker: Worker, patch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Let a pass of more than `most` tokens find no memory; the tokens of each pass."""
    runner = worker._batches[1]._runner
    assert isinstance(runner, Together)
    forward, sizes = runner._forward, []

    def limited(group: list[Chunk], *rest: object) -> torch.Tensor:
        sizes.append(sum(chunk.count for chunk in group))
        logits = forward(group, *rest)
        if sizes[-1] > most:
            raise OUT_OF_MEMORY
        return logits

    patch.setattr(runner, "_forward", limited)
    return sizes


@pytest.mark.parametrize("architecture", CACHES)
def test_out_of_memory_in_a_pass_all_begin_again_unseen(
    architecture: str, toy: Toy, expected: Expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = toy(architecture)
    worker = loaded(path, prefill_chunk_tokens=3)
    limit(worker, monkeypatch, most=4)
    prompts = [prompt_of(length, seed=length) for length in (9, 1, 30, 17, 12, 9)]
    notices = answers(worker, *(ask(uid, prompt) for uid, prompt in enumerate(prompts)))
    assert failures(notices) == {}
    for uid, prompt in enumerate(prompts):
        assert tokens_of(notices, uid) == expected(path, prompt)
    assert last_use(notices).running_tokens == 0
    if architecture not in ("qwen3_next", "lfm2"):  # a pass of theirs has one text, or some tokens
        assert last_use(notices).preemptions > 0


def test_what_is_too_large_alone_fails_alone(
    toy: Toy, expected: Expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = loaded(toy(), prefill_chunk_tokens=30)
    limit(worker, monkeypatch, most=20)
    prompts = [prompt_of(length, seed=length) for length in (9, 30, 12)]
    notices = answers(worker, *(ask(uid, prompt) for uid, prompt in enumerate(prompts)))
    assert failures(notices).keys() == {1}
    assert isinstance(failures(notices)[1], InsufficientVram)
    for uid in (0, 2):
        assert tokens_of(notices, uid) == expected(toy(), prompts[uid])
    again = answers(worker, ask(9, prompts[0]))
    assert tokens_of(again, 9) == expected(toy(), prompts[0])


def test_the_width_comes_back_when_memory_does(
    toy: Toy, expected: Expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = loaded(toy())
    with monkeypatch.context() as patch:
        limit(worker, patch, most=2)
        answers(worker, *(ask(uid, prompt_of(1, seed=uid), count=2) for uid in range(4)))
    sizes = limit(worker, monkeypatch, most=1000)
    orders = [ask(uid, prompt_of(1, seed=uid), count=2 + 2 * uid) for uid in range(20)]
    assert failures(answers(worker, *orders)) == {}
    assert max(sizes) >= 8


def test_memory_that_runs_out_while_the_pool_is_moved_costs_no_answer(
    toy: Toy, expected: Expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "AHEAD", 0)
    worker = loaded(toy(), kv_tokens=192, prefix_cache=False)
    layers = worker._batches[1]._memory.layers
    calls = []

    def fail(moves: object) -> None:
        calls.append(moves)
        raise OUT_OF_MEMORY

    monkeypatch.setattr(next(layers.full), "move", fail)
    prompts = [prompt_of(length, seed=length) for length in (60, 55, 50, 50)]
    notices = answers(worker, *(ask(uid, prompt) for uid, prompt in enumerate(prompts)))
    assert calls
    assert failures(notices) == {}
    for uid, prompt in enumerate(prompts):
        assert tokens_of(notices, uid) == expected(toy(), prompt)
