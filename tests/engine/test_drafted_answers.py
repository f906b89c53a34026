"""Drafts save steps and change no answer: what is said with them is what is said without."""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from toys import (
    ARCHITECTURES,
    VOCAB,
    cpu_worker,
    generate,
    load_order,
    loaded,
    prompt_of,
    reference,
    run,
    tokens_of,
)

from helexa.engine import drawing, planning, sampler, scheduler
from helexa.engine.kv.memory import Memory
from helexa.engine.orders import (
    Abort,
    Add,
    Failed,
    KvUse,
    Notice,
    Piece,
    PrefillProgress,
    SamplingParams,
)
from helexa.engine.penalties import Penalties
from helexa.engine.runner import Together
from helexa.engine.worker import Worker
from helexa.errors import HelexaError
from helexa.store import StoredModel

Toy = Callable[..., Path]

GREEDY = SamplingParams(temperature=0)
COUNT = 40  # tokens of an answer
REPEATS = (*prompt_of(20, seed=1), *prompt_of(20, seed=1), *prompt_of(9, seed=1))
RECURRENT = ("qwen3_next", "lfm2")

FEW = ((4, 50.0), (5, 50.0), (6, 50.0), (7, 50.0))  # so that a text repeats itself now and then

SAMPLINGS = {
    "greedy": SamplingParams(temperature=0, logit_bias=FEW),
    "sampled": SamplingParams(temperature=3, seed=1, logit_bias=FEW),
    "filtered": SamplingParams(seed=2, top_k=3, top_p=0.9, min_p=0.02, logit_bias=FEW),
    "penalised": SamplingParams(
        temperature=2,
        seed=3,
        repetition_penalty=1.01,
        frequency_penalty=0.05,
        presence_penalty=0.1,
        logit_bias=FEW,
    ),
    "scored": SamplingParams(temperature=2, seed=4, top_logprobs=2, logit_bias=FEW),
    "greedy and penalised": SamplingParams(temperature=0, frequency_penalty=0.3, logit_bias=FEW),
}


def always(chance: float, cost: float | None, decoding: int, most: int) -> int:
    return most


@pytest.fixture(autouse=True)
def _drafts_whatever_they_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "worth", always)


def ask(uid: int, prompt: tuple[int, ...] = REPEATS, count: int = COUNT, **more: Any) -> Add:
    return Add(uid, 1, prompt, count, **{"sampling": GREEDY, **more})


def pieces(notices: Iterable[Notice], uid: int) -> list[Piece]:
    return [n for n in notices if isinstance(n, Piece) and n.uid == uid]


def last_use(notices: Iterable[Notice]) -> KvUse:
    return [n for n in notices if isinstance(n, KvUse)][-1]


def answers(worker: Worker, *orders: Add) -> list[Notice]:
    """All at once."""
    return [n for order in orders for n in worker.apply(order)] + run(worker)


def both(path: Path, *orders: Add, **changes: Any) -> tuple[list[Notice], list[Notice]]:
    """What comes without drafts and with them."""
    plain = answers(loaded(path, drafts=False, **changes), *orders)
    drafted = answers(loaded(path, drafts=True, **changes), *orders)
    return plain, drafted


# -- exact -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_drafted_greedy_answers_are_generates(architecture: str, toy: Toy) -> None:
    path = toy(architecture)
    model = reference(path)
    worker = loaded(path, drafts=True)
    prompts = {10 + i: REPEATS[i : i + length] for i, length in enumerate((49, 9, 30, 41, 5))}
    notices = answers(worker, *(ask(uid, prompt) for uid, prompt in prompts.items()))
    for uid, prompt in prompts.items():
        assert tokens_of(notices, uid) == generate(model, prompt, COUNT)
    use = last_use(notices)
    assert (use.drafted > 0) == (architecture not in RECURRENT)
    assert use.accepted <= use.drafted
    assert use.running_tokens == 0


@pytest.mark.parametrize("name", SAMPLINGS)
@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "mistral", "gpt_oss"])
def test_a_seed_gives_the_same_pieces_with_drafts_and_without(
    architecture: str, name: str, toy: Toy
) -> None:
    order = ask(10, sampling=SAMPLINGS[name])
    plain, drafted = both(toy(architecture), order)
    assert tokens_of(drafted, 10) == tokens_of(plain, 10)
    assert [p.finish for p in pieces(drafted, 10)] == [None] * (COUNT - 1) + ["length"]
    for one, other in zip(pieces(plain, 10), pieces(drafted, 10), strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
        assert [t for t, _ in one.top] == [t for t, _ in other.top]
    assert last_use(drafted).drafted > 0


def test_streams_of_all_kinds_draft_beside_each_other(toy: Toy) -> None:
    orders = [
        ask(10 + i, REPEATS[i:], sampling=sampling)
        for i, sampling in enumerate([*SAMPLINGS.values()] * 2)
    ]
    plain, drafted = both(toy(), *orders, batch_width=5)
    for order in orders:
        assert tokens_of(drafted, order.uid) == tokens_of(plain, order.uid)
    assert last_use(drafted).accepted > 0


@pytest.mark.real
@pytest.mark.parametrize("name", ["sampled"])
def test_the_demo_model_drafts_and_says_the_same(name: str, demo_model: StoredModel) -> None:
    prompts = [prompt_of(length, seed=length) * 2 for length in (25, 3, 17)]
    orders = [ask(10 + i, p, sampling=SAMPLINGS[name]) for i, p in enumerate(prompts)]
    told = []
    for drafts in (False, True):
        worker = cpu_worker()
        worker.apply(load_order(demo_model.path, kv_tokens=1024, drafts=drafts))
        run(worker)
        told.append(answers(worker, *orders))
    for order in orders:
        assert tokens_of(told[1], order.uid) == tokens_of(told[0], order.uid)
    assert last_use(told[1]).accepted > 0


# -- fewer steps -----------------------------------------------------------------------------------


def steps_of(worker: Worker, order: Add) -> int:
    worker.apply(order)
    steps = 0
    while not worker.idle:
        worker.step()
        steps += 1
    return steps


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_what_is_said_again_takes_fewer_steps(architecture: str, toy: Toy) -> None:
    """A bias makes the answer 5, 5, 5, ..."""
    order = ask(10, sampling=SamplingParams(temperature=0, logit_bias=((5, 1000.0),)), count=90)
    plain = steps_of(loaded(toy(architecture), drafts=False), order)
    drafted = steps_of(loaded(toy(architecture), drafts=True), order)
    # Three in the prompt, two until there is something to look for, and then nine at once but at the
    # end of a block of the pool.
    assert drafted <= 3 + 3 + -(-90 // 9) + 3 < plain


@pytest.mark.parametrize("architecture", RECURRENT)
def test_what_cannot_go_back_drafts_nothing(architecture: str, toy: Toy) -> None:
    notices = answers(loaded(toy(architecture), drafts=True), ask(10))
    assert last_use(notices).drafted == 0


def test_what_is_computed_alone_drafts_nothing(toy: Toy) -> None:
    worker = loaded(toy("bloom", n_layer=2, n_head=4), drafts=True)
    assert worker._batches[1].alone
    assert last_use(answers(worker, ask(10))).drafted == 0


# -- ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [*range(1, 14), 40])
def test_max_tokens_is_kept_to_the_token(count: int, toy: Toy) -> None:
    plain, drafted = both(toy(), ask(10, count=count), ask(11, REPEATS[3:], count=count))
    for uid in (10, 11):
        assert pieces(drafted, uid) == pieces(plain, uid)
        assert len(pieces(drafted, uid)) == count


def test_a_stop_id_ends_an_answer_in_the_middle_of_a_draft(toy: Toy) -> None:
    workers = [loaded(toy(), drafts=drafts) for drafts in (False, True)]
    said = tokens_of(answers(workers[0], ask(10)), 10)
    answers(workers[1], ask(10))
    for stop in dict.fromkeys(said):
        plain, drafted = (answers(w, ask(10, stop_ids=frozenset({stop}))) for w in workers)
        assert pieces(drafted, 10) == pieces(plain, 10)
        assert pieces(drafted, 10)[-1].finish == "stop"
        assert last_use(drafted).cached_tokens == last_use(plain).cached_tokens


def test_an_answer_fills_the_models_positions_and_the_pool_to_the_last(toy: Toy) -> None:
    path, prompt = toy(), (REPEATS * 12)[:500]
    for kv_tokens in (512, 576):
        plain, drafted = both(path, ask(10, prompt, count=99), kv_tokens=kv_tokens)
        assert pieces(drafted, 10) == pieces(plain, 10)
        assert len(pieces(drafted, 10)) == 12


# -- forms -----------------------------------------------------------------------------------------


class FreeThenOdd:
    """Anything goes until token `until`, from then on odd tokens; `held` may not end."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.said = 0

    def matcher(self) -> "FreeThenOdd":
        return FreeThenOdd(self.after)

    def allowed(self) -> tuple[bytearray, bool] | None:
        if self.said % 12 < self.after:
            return None
        return bytearray([0b10101010] * (VOCAB // 8)), False

    def closing(self, allowed: bytearray) -> bytearray:
        return allowed

    def accept(self, token: int) -> None:
        assert self.said % 12 < self.after or token % 2
        self.said += 1


@pytest.mark.parametrize("after", range(13))
def test_a_form_holds_from_the_very_token_on_though_that_was_drafted(after: int, toy: Toy) -> None:
    again = SamplingParams(temperature=0, logit_bias=((4, 1000.0),))
    order = ask(10, sampling=again, constraint=FreeThenOdd(after))
    plain, drafted = both(toy(), order)
    said = tokens_of(drafted, 10)
    assert said == tokens_of(plain, 10)
    assert [token == 4 for token in said] == [i % 12 < after for i in range(COUNT)]
    assert after < 6 or last_use(drafted).accepted > 0


class LostAt(FreeThenOdd):
    def allowed(self) -> None:
        if self.said == self.after:
            raise HelexaError("the form is lost")

    def matcher(self) -> "LostAt":
        return LostAt(self.after)


@pytest.mark.parametrize("lost_at", [0, 1, 6, 7, 12])
def test_a_form_that_is_lost_in_a_draft_fails_there(lost_at: int, toy: Toy) -> None:
    again = SamplingParams(temperature=0, logit_bias=((4, 1000.0),))
    order = ask(10, sampling=again, constraint=LostAt(lost_at), stop_ids=frozenset({2}))
    for notices in both(toy(), order, ask(11)):
        (failed,) = [n for n in notices if isinstance(n, Failed)]
        assert failed.uid == 10
        assert tokens_of(notices, 10) == [4] * lost_at
        assert len(pieces(notices, 11)) == COUNT
        assert last_use(notices).running_tokens == 0


# -- the pool --------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "mistral"])
def test_the_next_turn_finds_what_was_accepted_and_nothing_else(
    architecture: str, toy: Toy
) -> None:
    path = toy(architecture)
    plain, worker = loaded(path, drafts=False), loaded(path, drafts=True)
    prompt = REPEATS
    for turn in range(4):
        order = ask(turn, prompt, count=24, sampling=SAMPLINGS["filtered"])
        notices = answers(worker, order)
        assert tokens_of(notices, turn) == tokens_of(answers(plain, order), turn)
        (cached,) = {n.cached_tokens for n in notices if isinstance(n, PrefillProgress)}
        assert cached == (len(prompt) - 11 if turn else 0)
        prompt = (*prompt, *tokens_of(notices, turn), *prompt_of(10, seed=turn))
    assert last_use(notices).accepted > 0


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "mistral"])
@pytest.mark.parametrize("kv_tokens", [128, 192, 256])
def test_a_full_pool_makes_some_wait_and_changes_no_answer(
    architecture: str, kv_tokens: int, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "AHEAD", 0)
    orders = [
        ask(10 + i, REPEATS[i:], sampling=sampling, salt=str(i))
        for i, sampling in enumerate(SAMPLINGS.values())
    ]
    plain = answers(loaded(toy(architecture), drafts=False), *orders)
    worker = loaded(toy(architecture), drafts=True, kv_tokens=kv_tokens)
    drafted = answers(worker, *orders)
    for order in orders:
        assert tokens_of(drafted, order.uid) == tokens_of(plain, order.uid)
    use = last_use(drafted)
    assert (use.running_tokens, use.total_tokens) == (0, kv_tokens)
    assert use.preemptions > 0
    assert use.accepted > 0


# -- a device that is too small --------------------------------------------------------------------


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

WORK = {
    "forward": (Together, "run"),
    "draw": (drawing, "draw_all"),
    "draw a part": (sampler, "draw_part"),
    "penalties": (Penalties, "_write"),
    "keep": (Memory, "_keep"),
    "grow": (Memory, "grow"),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("where", WORK)
def test_memory_that_runs_out_anywhere_in_a_step_repeats_every_draw(
    where: str, seed: int, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "CACHED_BYTES", 4 * VOCAB * 3)
    orders = [
        ask(10 + i, REPEATS[i:], sampling=sampling, count=12, salt=str(i))
        for i, sampling in enumerate([*SAMPLINGS.values()] * 2)
    ]
    plain = answers(loaded(toy(), drafts=False), *orders)
    worker = loaded(toy(), drafts=True)
    (owner, name), random = WORK[where], Random(seed)
    work, failures = getattr(owner, name), [OUT_OF_MEMORY] * 2

    def fail_at_times(*args: Any, **options: Any) -> Any:
        result = work(*args, **options)
        if failures and random.random() < 0.3:
            raise failures.pop()
        return result

    monkeypatch.setattr(owner, name, fail_at_times)
    notices = answers(worker, *orders)
    assert len(failures) < 2
    failed = {n.uid for n in notices if isinstance(n, Failed)}
    assert len(failed) <= 1  # if one was left alone when it happened again
    for order in orders:
        found, expected = tokens_of(notices, order.uid), tokens_of(plain, order.uid)
        assert found == expected[: len(found)]
        assert len(found) == len(expected) or order.uid in failed
    assert last_use(notices).preemptions > 0
    assert last_use(notices).running_tokens == 0


# -- random lives ----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_whoever_joins_and_leaves_and_whatever_is_drafted_every_answer_is_the_same(
    architecture: str, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(architecture)
    monkeypatch.setattr(scheduler, "AHEAD", 0)
    monkeypatch.setattr(planning, "worth", lambda *_: random.randint(0, 8))
    worker = loaded(toy(architecture), drafts=True, kv_tokens=384, prefill_chunk_tokens=24)
    orders = [
        ask(uid, REPEATS[random.randint(0, 9) :], sampling=random.choice([*SAMPLINGS.values()]))
        for uid in range(10, 40)
    ]
    left: set[int] = set()
    notices: list[Notice] = []
    for order in orders:
        notices += worker.apply(order)
        for _ in range(random.randint(0, 6)):
            notices += worker.step()
        if random.random() < 0.2:
            left.add(random.randint(max(10, order.uid - 5), order.uid))
            for uid in left:
                notices += worker.apply(Abort(uid))
    notices += run(worker)
    alone = loaded(toy(architecture), drafts=False)
    ended = Counter(n.uid for n in notices if isinstance(n, Piece) and n.finish)
    for order in orders:
        expected = tokens_of(answers(alone, order), order.uid)
        found = tokens_of(notices, order.uid)
        assert found == expected[: len(found)]
        assert len(found) == COUNT or order.uid in left
        assert ended[order.uid] == (len(found) == COUNT)
    use = last_use(notices)
    assert use.running_tokens == 0
    assert 0 < use.accepted < use.drafted
    assert use.preemptions > 0
