"""In fp32, greedy answers are transformers' `generate` token for token, however they are computed."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from passes import read
from toys import (
    ARCHITECTURES,
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

from helexa.engine.kv.spans import rounded
from helexa.engine.loader import LoadedModel
from helexa.engine.orders import Add, SamplingParams
from helexa.engine.room import make_room
from helexa.engine.sampler import Sampler
from helexa.engine.scheduler import Chunk
from helexa.engine.sequence import Sequence
from helexa.store import StoredModel

GREEDY = SamplingParams(temperature=0)
LENGTHS = (45, 9, 30)  # tokens of the prompts; the first two windows long
COUNT = 24  # tokens of an answer

Expected = Callable[[Path], tuple[list[int], ...]]


@pytest.fixture(scope="module")
def expected() -> Expected:
    """`generate`'s answers to the prompts of LENGTHS, in order."""

    @cache
    def get(path: Path) -> tuple[list[int], ...]:
        model = reference(path)
        return tuple(generate(model, prompt_of(length), COUNT) for length in LENGTHS)

    return get


def ask(uid: int, length: int) -> Add:
    return Add(uid, 1, prompt_of(length), COUNT, GREEDY)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("chunk", [512, 1, 7])
def test_one_sequence(
    architecture: str, chunk: int, toy: Callable[..., Path], expected: Expected
) -> None:
    path = toy(architecture)
    worker = loaded(path, prefill_chunk_tokens=chunk)
    for uid, (length, tokens) in enumerate(zip(LENGTHS, expected(path), strict=True), 10):
        assert answer(worker, ask(uid, length)) == tokens
        assert len(set(tokens)) > 3, "a toy that repeats itself proves nothing"


@pytest.mark.real
@pytest.mark.parametrize("chunk", [7, 4096])
def test_the_demo_model(chunk: int, demo_model: StoredModel, expected: Expected) -> None:
    worker = cpu_worker()
    worker.apply(load_order(demo_model.path, prefill_chunk_tokens=chunk))
    run(worker)
    notices = []
    for uid, length in enumerate(LENGTHS):
        worker.apply(ask(uid, length))
        notices += worker.step()
    notices += run(worker)
    for uid, tokens in enumerate(expected(demo_model.path)):
        assert tokens_of(notices, uid) == tokens


# -- bf16 ------------------------------------------------------------------------------------------

# The largest difference of a logit, as a part of the logits' standard deviation, between a prompt
# computed whole and one computed in chunks and token by token.  bf16 keeps 8 bits: 1/256 for each
# rounding, some dozens of roundings deep, through weights that are larger than a trained model's.  What
# is fused rounds at other places; either way lies 0.3 to 0.4 from what float32 gives.
BF16_BOUND = 0.35


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("chunk", [1, 7, 16])
def test_bf16_logits_stay_near_those_of_one_whole_pass(
    architecture: str, chunk: int, toy: Callable[..., Path]
) -> None:
    tokens = prompt_of(48)
    experts = ARCHITECTURES[architecture].get("num_experts_per_tok")
    # All experts for every token: where they are picked, a low bit may pick another one.
    path = toy(architecture, num_experts_per_tok=4) if experts else toy(architecture)
    with torch.inference_mode():
        whole = reference(path, torch.bfloat16)(torch.tensor([tokens])).logits[0].float()
    ours = forced_logits(read(path, dtype="bf16"), tokens, chunk)
    assert ours.keys() == set(range(chunk - 1, 48, chunk))
    for position, logits in ours.items():
        difference = (logits.float() - whole[position]).abs().max()
        assert difference <= BF16_BOUND * whole[position].std()


def forced_logits(
    model: LoadedModel, tokens: tuple[int, ...], chunk: int
) -> dict[int, torch.Tensor]:
    """The logits after the last token of every chunk, by its position."""
    memory, runner, alone = make_room(load_order(Path()), model)
    assert not alone
    order = Add(1, 1, tokens, 1)
    sampler = Sampler(order.sampling, tokens, model.vocab_size, "cpu")
    sequences = {1: Sequence(order, 1, sampler, list(tokens))}
    memory.begin(1, list(tokens), "", rounded(len(tokens)), reuses=False)
    logits = {}
    for start in range(0, len(tokens) - chunk + 1, chunk):
        outcomes = runner.run((Chunk(1, start, chunk, samples=True),), sequences)
        assert outcomes.uids == [1]
        assert outcomes.logits is not None
        logits[start + chunk - 1] = outcomes.logits[0]
    return logits
