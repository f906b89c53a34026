"""Cached prefixes outlive an unload, where the model that comes back is the same."""

import os
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from toys import (
    ARCHITECTURES,
    answer,
    cpu_worker,
    generate,
    load_order,
    prompt_of,
    reference,
    run,
    tokens_of,
)

from helexa.engine.kv.parked import Parked, Parking
from helexa.engine.orders import Add, Load, PrefillProgress, SamplingParams, Unload
from helexa.engine.worker import Worker

Toy = Callable[..., Path]
GREEDY = SamplingParams(temperature=0)
PROMPT = prompt_of(100)
COUNT = 12


def swap(worker: Worker, order: Load) -> None:
    """Unload model 1 and load `order`."""
    worker.apply(Unload(1))
    run(worker)
    worker.apply(order)
    run(worker)


def talked(path: Path, **changes: object) -> tuple[Worker, tuple[int, ...]]:
    """A worker that has answered once, and the conversation so far."""
    worker = cpu_worker(threads=1)
    worker.apply(load_order(path, **changes))
    run(worker)
    said = answer(worker, Add(10, 1, PROMPT, COUNT, GREEDY))
    return worker, (*PROMPT, *said, 5, 6, 7)


def goes_on(worker: Worker, prompt: tuple[int, ...], salt: str = "") -> tuple[int, list[int]]:
    """How many tokens were cached, and the answer of model 2."""
    notices = [*worker.apply(Add(11, 2, prompt, COUNT, GREEDY, salt=salt)), *run(worker)]
    first = next(notice for notice in notices if isinstance(notice, PrefillProgress))
    return first.cached_tokens, tokens_of(notices, 11)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_conversation_goes_on_after_a_swap(architecture: str, toy: Toy) -> None:
    path = toy(architecture)
    worker, prompt = talked(path)
    swap(worker, load_order(path, uid=2))
    cached, tokens = goes_on(worker, prompt)
    assert cached == len(PROMPT) + COUNT - 1  # the last token was drawn, not computed
    assert tokens == generate(reference(path), prompt, COUNT)


def test_it_goes_on_for_its_own_account_alone(toy: Toy) -> None:
    worker, prompt = talked(toy())
    swap(worker, load_order(toy(), uid=2))
    assert goes_on(worker, prompt, salt="other")[0] == 0


@pytest.mark.parametrize(
    "changes", [{"dtype": "bf16"}, {"parked_bytes": 0}, {"prefix_cache": False}]
)
def test_nothing_comes_back_where_it_would_be_wrong_or_is_not_wanted(
    changes: dict[str, object], toy: Toy
) -> None:
    own = {} if "dtype" in changes else changes
    worker, prompt = talked(toy(), **own)
    swap(worker, load_order(toy(), uid=2, **changes))
    assert goes_on(worker, prompt)[0] == 0


def test_changed_weights_begin_anew_though_their_time_of_change_was_set_back(
    toy: Toy, tmp_path: Path
) -> None:
    path = copytree(toy(), tmp_path / "model")
    worker, prompt = talked(path)
    file = next(path.glob("*.safetensors"))
    other = next(toy(seed=1).glob(file.name))
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    assert other.stat().st_size == file.stat().st_size
    file.unlink()
    file.write_bytes(other.read_bytes())
    os.utime(file, ns=times)
    swap(worker, load_order(path, uid=2))
    assert goes_on(worker, prompt)[0] == 0


def test_the_same_weights_elsewhere_go_on(toy: Toy, tmp_path: Path) -> None:
    worker, prompt = talked(toy())
    swap(worker, load_order(copytree(toy(), tmp_path / "model"), uid=2))
    assert goes_on(worker, prompt)[0] > 0


def parked(uid: int, size: int) -> Parked:
    pools = [(torch.zeros(1, size // 8, 1), torch.zeros(1, size // 8, 1))]  # 4 bytes a number
    return Parked("", np.empty(0, np.int64), pools, {uid: {}})


def test_the_latest_are_kept_where_there_is_room_for_some() -> None:
    parking = Parking()
    parking.put("a", [parked(1, 80), parked(2, 80), parked(3, 80)], 200)
    assert parking.num_bytes == 160
    assert [list(each.marks) for each in parking.take("a")] == [[1], [2]]
    assert parking.num_bytes == 0


def test_the_model_that_left_first_makes_room() -> None:
    parking = Parking()
    for name in "abc":
        parking.put(name, [parked(1, 80)], 200)
    assert parking.take("a") == ()
    assert len(parking.take("b")) == len(parking.take("c")) == 1
