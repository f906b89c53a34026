"""The log-probabilities of a prompt's tokens are those of transformers, however it is cut."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import VOCAB, loaded, prompt_of, reference, run

from helexa.engine import runner, scheduler
from helexa.engine.orders import Add, Failed, KvUse, Notice, Piece, PromptScores, SamplingParams
from helexa.engine.runner import Together
from helexa.engine.scheduler import Chunk
from helexa.engine.sequence import Sequence
from helexa.engine.worker import Worker

Toy = Callable[..., Path]
GREEDY = SamplingParams(temperature=0)
Scores = list[tuple[int, float, tuple[tuple[int, float], ...]]]


def ask(uid: int, prompt: tuple[int, ...], num_top: int | None) -> Add:
    return Add(uid, 1, prompt, 1, GREEDY, prompt_logprobs=num_top)


def scored(notices: list[Notice], uid: int) -> Scores:
    return [t for n in notices if isinstance(n, PromptScores) and n.uid == uid for t in n.tokens]


def expected(path: Path, prompt: tuple[int, ...]) -> torch.Tensor:
    """Log-probabilities [position, vocab] of what comes after each token."""
    with torch.inference_mode():
        logits: torch.Tensor = reference(path)(torch.tensor([prompt])).logits[0]
    return logits.float().log_softmax(-1)


def logits_at_once(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    monkeypatch.setattr(runner, "SCORED_BYTES", 4 * VOCAB * tokens)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "qwen3_next"])
@pytest.mark.parametrize(("chunk", "at_once"), [(512, 512), (1, 9), (7, 3), (16, 5)])
def test_every_token_of_a_prompt_is_scored(
    architecture: str, chunk: int, at_once: int, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits_at_once(monkeypatch, at_once)
    path, prompt = toy(architecture), prompt_of(40)
    device = loaded(path, prefill_chunk_tokens=chunk)
    device.apply(ask(10, prompt, 3))
    (first, *others) = scored(run(device), 10)
    assert first[0] == prompt[0]
    assert math.isnan(first[1])
    assert first[2] == ()
    assert [token for token, _, _ in others] == list(prompt[1:])
    logs = expected(path, prompt)
    for position, (token, logprob, top) in enumerate(others):
        assert logprob == pytest.approx(float(logs[position, token]), abs=1e-3)
        values, ids = logs[position].topk(3)
        assert [id for id, _ in top] == ids.tolist()
        assert [value for _, value in top] == pytest.approx(values.tolist(), abs=1e-3)


def test_scores_come_chunk_by_chunk_before_the_first_token(toy: Toy) -> None:
    device = loaded(toy(), prefill_chunk_tokens=10)
    device.apply(ask(10, prompt_of(25), 0))
    notices = run(device)
    kinds = [type(n) for n in notices if isinstance(n, PromptScores | Piece)]
    assert kinds == [PromptScores] * 3 + [Piece]
    assert [len(n.tokens) for n in notices if isinstance(n, PromptScores)] == [11, 10, 4]
    assert all(top == () for _, _, top in scored(notices, 10))


def test_scoring_leaves_the_answer_as_it_is(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    logits_at_once(monkeypatch, 4)
    device = loaded(toy())
    device.apply(Add(10, 1, prompt_of(30), 8, GREEDY, prompt_logprobs=2))
    device.apply(Add(11, 1, prompt_of(30), 8, GREEDY))
    notices = run(device)
    assert tokens(notices, 10) == tokens(notices, 11)
    assert not scored(notices, 11)


def tokens(notices: list[Notice], uid: int) -> list[int]:
    return [n.token for n in notices if isinstance(n, Piece) and n.uid == uid]


def test_a_prompt_of_one_token_has_nothing_to_score(toy: Toy) -> None:
    device = loaded(toy())
    device.apply(ask(10, (5,), 4))
    ((token, logprob, top),) = scored(run(device), 10)
    assert (token, top) == (5, ())
    assert math.isnan(logprob)


def test_no_more_logits_than_allowed_are_there_at_once(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits_at_once(monkeypatch, 6)
    device = loaded(toy(), prefill_chunk_tokens=512)
    sizes = watch_logits(device, monkeypatch)
    device.apply(ask(10, prompt_of(45), 1))
    run(device)
    assert max(sizes) == 6
    assert sum(sizes) == 45


def watch_logits(device: Worker, patch: pytest.MonkeyPatch) -> list[int]:
    """Of how many tokens the model gives logits, each time."""
    runner, sizes = device._batches[1]._runner, list[int]()
    forward = runner._forward

    def watched(*args: Any, **options: Any) -> torch.Tensor:
        logits = forward(*args, **options)
        sizes.append(len(logits))
        return logits

    patch.setattr(runner, "_forward", watched)
    return sizes


def test_numbers_that_are_none_fail_the_sequence_alone(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Together.whole

    def broken(self: Together, chunk: Chunk, sequence: Sequence) -> torch.Tensor:
        logits = whole(self, chunk, sequence)
        return logits * math.nan if chunk.uid == 10 else logits

    monkeypatch.setattr(Together, "whole", broken)
    device = loaded(toy())
    device.apply(ask(10, prompt_of(9), 1))
    device.apply(ask(11, prompt_of(9), 1))
    notices = run(device)
    (failed,) = [n for n in notices if isinstance(n, Failed)]
    assert failed.uid == 10
    assert "not a number" in failed.error.message
    assert len(scored(notices, 11)) == 9


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "qwen3_next"])
def test_a_prompt_is_scored_whole_though_it_is_cached_and_preempted(
    architecture: str, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first grows in a full pool while the prompt of the second is in the middle."""
    monkeypatch.setattr(scheduler, "AHEAD", 0)
    path, prompt = toy(architecture), prompt_of(60)
    device = loaded(path, kv_tokens=128, prefill_chunk_tokens=4)
    device.apply(ask(9, prompt, None))
    run(device)
    orders = [Add(uid, 1, prompt, 30, GREEDY, prompt_logprobs=1) for uid in (10, 11)]
    for order in orders:
        device.apply(order)
    notices = run(device)
    logs = expected(path, prompt)
    for uid in (10, 11):
        (_, *others) = scored(notices, uid)
        assert [token for token, _, _ in others] == list(prompt[1:])
        for position, (token, logprob, _) in enumerate(others):
            assert logprob == pytest.approx(float(logs[position, token]), abs=1e-3)
    assert tokens(notices, 10) == tokens(notices, 11)
    assert len(tokens(notices, 10)) == 30
    assert [n.preemptions for n in notices if isinstance(n, KvUse)][-1] > 0
