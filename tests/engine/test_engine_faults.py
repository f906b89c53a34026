"""Whatever requests and numbers come, the pool is whole and empty afterwards."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from attrs import evolve
from toys import VOCAB, generate, loaded, prompt_of, reference, run, tokens_of

from helexa.engine import planning, scheduler
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
from helexa.engine.worker import Worker
from helexa.errors import HelexaError

Toy = Callable[..., Path]
GREEDY = SamplingParams(temperature=0)


class OddTokens:
    """A form of odd tokens, which may end at any time; some are lost in the middle."""

    def __init__(self, lost_at: int) -> None:
        self.left = lost_at

    def matcher(self) -> "OddTokens":
        return OddTokens(self.left)

    def allowed(self) -> tuple[bytearray, bool]:
        if not self.left:
            raise HelexaError("the form is lost")
        return bytearray([0b10101010] * (VOCAB // 8)), True

    def closing(self, allowed: bytearray) -> bytearray:
        return allowed

    def accept(self, token: int) -> None:
        assert token % 2
        self.left -= 1


def some_request(uid: int, random: Random) -> Add:
    """Of few beginnings, so that many share some."""
    prompt = prompt_of(random.randint(1, 60), seed=random.randint(0, 3))
    sampling = random.choice(
        [
            GREEDY,
            SamplingParams(seed=uid, top_p=0.9, top_k=20),
            SamplingParams(seed=uid, min_p=0.1, repetition_penalty=1.2, top_logprobs=2),
        ]
    )
    lost = random.choice([None, None, None, 3, 50])
    return Add(
        uid,
        1,
        prompt,
        random.randint(1, 12),
        sampling,
        stop_ids=frozenset({2}),
        constraint=None if lost is None else OddTokens(lost),
        prompt_logprobs=random.choice([None] * 9 + [1]),
        salt=random.choice(["", "ann", "bob"]),
    )


def is_whole(worker: Worker) -> bool:
    """Whether every position of the pool is free or kept, and none is both."""
    memory = worker._batches[1]._memory
    held = sorted((each.start, each.size) for each in memory._kept)
    apart = all(a + n <= b for (a, n), (b, _) in pairwise(held))
    return apart and memory._spans.free + sum(size for _, size in held) == memory.total


@pytest.mark.parametrize(
    ("architecture", "count", "drafts"),
    [
        ("llama", 500, False),
        ("llama", 200, True),
        ("gemma3_text", 120, True),
        ("qwen3_next", 60, False),
    ],
)
def test_mixed_requests_with_aborts_leave_nothing_running_and_nothing_lost(
    architecture: str, count: int, drafts: bool, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "AHEAD", 0)
    random = Random(architecture)
    monkeypatch.setattr(planning, "worth", lambda *_: random.randint(0, 8))
    worker = loaded(toy(architecture), kv_tokens=384, prefill_chunk_tokens=48, drafts=drafts)
    orders = [some_request(uid, random) for uid in range(10, 10 + count)]
    aborted: set[int] = set()
    notices: list[Notice] = []
    for order in orders:
        notices += worker.apply(order)
        if random.random() < 0.4:
            notices += worker.step()
        if random.random() < 0.1:
            leaves = random.randint(max(10, order.uid - 8), order.uid)
            aborted.add(leaves)
            notices += worker.apply(Abort(leaves))
    notices += run(worker)
    ended = {n.uid for n in notices if isinstance(n, Piece) and n.finish}
    failed = {n.uid: n.error.message for n in notices if isinstance(n, Failed)}
    assert set(failed.values()) == {"the form is lost"}
    assert not ended & failed.keys()
    assert {order.uid for order in orders} - ended - failed.keys() <= aborted
    assert not worker._batches[1].is_busy
    use = [n for n in notices if isinstance(n, KvUse)][-1]
    assert use.running_tokens == 0
    assert use.preemptions > 0
    assert use.hits > 0
    assert use.evictions > 0
    assert (use.drafted > 0) == drafts
    assert is_whole(worker)


SAMPLED = SamplingParams(seed=1, frequency_penalty=0.5, repetition_penalty=1.1)


@pytest.mark.parametrize(
    ("sampling", "form"),
    [
        (SAMPLED, None),
        (SamplingParams(temperature=0, top_logprobs=3), None),
        (evolve(SAMPLED, top_logprobs=2), OddTokens(99)),
    ],
    ids=["sampled", "with logprobs", "held to a form"],
)
@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_no_client_sees_that_its_answer_was_preempted(
    architecture: str,
    sampling: SamplingParams,
    form: OddTokens | None,
    toy: Toy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduler, "AHEAD", 0)
    orders = [
        Add(uid, 1, prompt_of(60, seed=uid), 30, sampling, constraint=form, salt=str(uid))
        for uid in (10, 11, 12)
    ]
    plenty, scarce = (answered(toy(architecture), orders, size) for size in (1024, 128))
    assert [n for n in scarce if isinstance(n, KvUse)][-1].preemptions > 0
    for order in orders:
        for seen, expected in zip(*(pieces(n, order.uid) for n in (scarce, plenty)), strict=True):
            assert (seen.token, seen.finish) == (expected.token, expected.finish)
            assert seen.logprob == pytest.approx(expected.logprob, abs=1e-3)
            assert dict(seen.top) == pytest.approx(dict(expected.top), abs=1e-3)


def answered(path: Path, orders: list[Add], kv_tokens: int) -> list[Notice]:
    worker = loaded(path, kv_tokens=kv_tokens)
    return [n for order in orders for n in worker.apply(order)] + run(worker)


def pieces(notices: list[Notice], uid: int) -> list[Piece]:
    return [n for n in notices if isinstance(n, Piece) and n.uid == uid]


# -- numbers that are none -------------------------------------------------------------------------


def spoil_token(worker: Worker, token: int) -> None:
    """Let what the model makes of one token be no number, and so all that looks back at it."""

    def spoil(module: object, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return output.masked_fill((args[0] == token)[..., None], torch.nan)

    worker._batches[1]._loaded.model.get_input_embeddings().register_forward_hook(spoil)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "qwen3_next", "mixtral"])
def test_numbers_that_are_none_fail_their_sequence_alone(architecture: str, toy: Toy) -> None:
    path = toy(architecture)
    prompts = {uid: tuple(t for t in prompt_of(60, seed=uid) if t != 7) for uid in (10, 11, 12)}
    model = reference(path)
    expected = {uid: generate(model, prompt, 8) for uid, prompt in prompts.items()}
    assert not any(7 in answer for answer in expected.values())
    worker = loaded(path)
    spoil_token(worker, 7)
    prompts[11] = (*prompts[11][:20], 7, *prompts[11][20:])
    notices = [
        n for uid, prompt in prompts.items() for n in worker.apply(Add(uid, 1, prompt, 8, GREEDY))
    ]
    notices += run(worker)
    (failed,) = [n for n in notices if isinstance(n, Failed)]
    assert failed.uid == 11
    assert "not a number" in failed.error.message
    for uid in (10, 12):
        assert tokens_of(notices, uid) == expected[uid]
    kept = [held.tokens.tolist() for held in worker._batches[1]._memory._kept]
    assert len(kept) == 2
    assert not any(7 in tokens for tokens in kept)
    assert is_whole(worker)


def test_what_a_broken_sequence_computed_is_used_by_nobody(toy: Toy) -> None:
    worker = loaded(toy())
    spoil_token(worker, 7)
    prompt = (*prompt_of(20), 7, *prompt_of(9))
    for uid in (10, 11):
        worker.apply(Add(uid, 1, prompt, 8, GREEDY))
        notices: list[Any] = run(worker)
        assert [n.uid for n in notices if isinstance(n, Failed)] == [uid]
        assert {n.cached_tokens for n in notices if isinstance(n, PrefillProgress)} == {0}
