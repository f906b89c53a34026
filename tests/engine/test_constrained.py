"""Sequences that are held to a form, on toy models and on the real demo model."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from attrs import evolve, frozen
from toys import VOCAB, cpu_worker, load_order, loaded, prompt_of, run

from helexa.conversation import (
    Conversation,
    Format,
    Grammar,
    JsonObject,
    JsonSchema,
    Regex,
    Tool,
    ToolChoice,
)
from helexa.engine.form import unpacked
from helexa.engine.orders import Add, Constraint, Failed, Notice, Piece, SamplingParams
from helexa.engine.worker import Worker
from helexa.errors import HelexaError
from helexa.store import StoredModel
from helexa.text.chat import tool_preamble, tools_of
from helexa.text.constraint import compile_constraint
from helexa.text.markup import Markup
from helexa.text.markup.outputs import Arguments, Call, Say
from helexa.text.markup.reader import MarkupReader
from helexa.text.tokenizer import Tokenizer

Toy = Callable[..., Path]

STOP = 2


@frozen
class Counting:
    """Allows the token after the last one; may end once it has come to `end`."""

    first: int
    end: int
    broken_at: int = -1

    def matcher(self) -> "CountingMatcher":
        return CountingMatcher(self)


class CountingMatcher:
    def __init__(self, rule: Counting) -> None:
        self._rule = rule
        self._next = rule.first

    def allowed(self) -> tuple[bytearray, bool]:
        if self._next == self._rule.broken_at:
            raise HelexaError("the form is lost")
        bits = bytearray(VOCAB // 8 - 1)  # fewer than the model has tokens
        if self._next < self._rule.end:
            bits[self._next // 8] |= 1 << self._next % 8
        return bits, self._next == self._rule.end

    def closing(self, allowed: bytearray) -> bytearray:
        return allowed

    def accept(self, token: int) -> None:
        assert token == self._next
        self._next += 1


def ask(uid: int, rule: Constraint | None, **changes: Any) -> Add:
    usual = {"prompt": prompt_of(9), "max_tokens": 20, "stop_ids": frozenset({STOP})}
    return Add(uid=uid, model_uid=1, constraint=rule, **{**usual, **changes})


def pieces(notices: list[Notice], uid: int) -> list[Piece]:
    return [n for n in notices if isinstance(n, Piece) and n.uid == uid]


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(temperature=0),
        SamplingParams(temperature=1.5, seed=1),
        SamplingParams(top_k=1, top_p=0.1, min_p=0.5, seed=2),
        SamplingParams(repetition_penalty=2, frequency_penalty=1, logit_bias=((7, 100.0),), seed=3),
    ],
)
def test_only_what_is_allowed_is_drawn_and_then_a_stop_id(
    sampling: SamplingParams, toy: Toy
) -> None:
    device = loaded(toy())
    device.apply(ask(10, Counting(20, 26), sampling=sampling))
    told = pieces(run(device), 10)
    assert [piece.token for piece in told] == [20, 21, 22, 23, 24, 25, STOP]
    assert [piece.finish for piece in told] == [None] * 6 + ["stop"]


def test_sequences_of_one_constraint_do_not_share_their_place(toy: Toy) -> None:
    device = loaded(toy())
    rule = Counting(30, 35)
    device.apply(ask(10, rule))
    device.step()
    device.step()
    device.apply(ask(11, rule))
    notices = run(device)
    assert [p.token for p in pieces(notices, 11)] == [30, 31, 32, 33, 34, STOP]


def test_an_answer_ends_when_it_is_complete_where_no_token_ends_it(toy: Toy) -> None:
    device = loaded(toy())
    device.apply(ask(10, Counting(20, 23), stop_ids=frozenset()))
    told = pieces(run(device), 10)
    assert [(p.token, p.finish) for p in told] == [(20, None), (21, None), (22, "length")]


def test_max_tokens_cuts_what_is_not_complete(toy: Toy) -> None:
    device = loaded(toy())
    device.apply(ask(10, Counting(20, 90), max_tokens=3))
    assert [p.finish for p in pieces(run(device), 10)] == [None, None, "length"]


def test_a_form_that_is_lost_fails_its_own_sequence_alone(toy: Toy) -> None:
    device = loaded(toy())
    device.apply(ask(10, Counting(20, 30, broken_at=22)))
    device.apply(ask(11, Counting(20, 30)))
    device.apply(ask(12, None, max_tokens=5, stop_ids=frozenset()))
    notices = run(device)
    (failed,) = [n for n in notices if isinstance(n, Failed)]
    assert (failed.uid, failed.error.message) == (10, "the form is lost")
    assert len(pieces(notices, 11)) == 11
    assert len(pieces(notices, 12)) == 5


def test_logprobs_are_those_of_the_model_and_not_of_the_form(toy: Toy) -> None:
    device = loaded(toy())
    device.apply(ask(10, Counting(20, 21), sampling=SamplingParams(top_logprobs=1)))
    device.apply(ask(11, None, sampling=SamplingParams(temperature=0, top_logprobs=VOCAB)))
    notices = run(device)
    held, free = pieces(notices, 10)[0], pieces(notices, 11)[0]
    assert held.token == 20
    assert held.logprob == pytest.approx(dict(free.top)[20], abs=1e-4)
    assert held.top[0][0] == free.top[0][0]
    assert held.top[0][1] == pytest.approx(free.top[0][1], abs=1e-4)


class Endless:
    """Any token but 9 goes on; 8 closes what is open, and then only 9 may follow."""

    def matcher(self) -> "Endless":
        return Endless()

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def allowed(self) -> tuple[bytearray, bool]:
        open_ = 8 not in self.tokens
        return bytearray([255, 1] if open_ else [0, 2 * (9 not in self.tokens)]), 9 in self.tokens

    def closing(self, allowed: bytearray) -> bytearray:
        return bytearray([0, 1]) if allowed[1] == 1 else allowed

    def accept(self, token: int) -> None:
        self.tokens.append(token)


NEVER_CLOSES = SamplingParams(temperature=0, logit_bias=((5, 100.0),))
SOON_CLOSES = SamplingParams(temperature=0, logit_bias=((8, 100.0),))


def test_an_answer_that_would_be_cut_is_closed_and_still_told_as_cut(toy: Toy) -> None:
    device = loaded(toy())
    device.apply(ask(10, Endless(), sampling=NEVER_CLOSES, max_tokens=16))
    told = pieces(run(device), 10)
    assert [p.token for p in told] == [5] * 12 + [8, 9]
    assert told[-1].finish == "length"


def test_an_answer_that_closes_in_time_is_not_told_as_cut(toy: Toy) -> None:
    device = loaded(toy())
    for max_tokens in (3, 4, 16):
        device.apply(ask(10, Endless(), sampling=SOON_CLOSES, max_tokens=max_tokens))
        told = pieces(run(device), 10)
        assert [p.token for p in told] == [8, 9, STOP]
        assert told[-1].finish == "stop"


@pytest.mark.parametrize("size", [1, 8, 13, 32, 40])
def test_bits_become_a_mask_of_the_models_width(size: int) -> None:
    bits = bytearray([0b10000001, 0b00000010, 0, 255])
    allowed = {0, 7, 9, *range(24, 32)}
    assert unpacked(bits, size, "cpu").tolist() == [i in allowed for i in range(size)]


# -- the real demo model ---------------------------------------------------------------------------

WEATHER = Tool(
    "get_weather",
    "Get the weather of a city",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "mood": {"$ref": "#/$defs/mood"},
        "id": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{2}$"},
        "pet": {"anyOf": [{"type": "null"}, {"enum": ["cat", "dog"]}]},
        "ages": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
    },
    "required": ["name", "mood", "id", "pet", "ages"],
    "additionalProperties": False,
    "$defs": {"mood": {"enum": ["happy", "sad"]}},
}
QUESTION = "What is the weather in Paris?"
TERSE = "Answer shortly.<|im_end|>\n"
MOST = 70


def is_person(text: str) -> bool:
    jsonschema.validate(json.loads(text), PERSON)
    return True


@pytest.fixture(scope="module")
def demo(demo_model: StoredModel) -> tuple[Worker, Tokenizer]:
    worker = cpu_worker(threads=1)
    worker.apply(
        load_order(demo_model.path, prefill_chunk_tokens=512, batch_width=12, kv_tokens=4096)
    )
    run(worker)
    return worker, Tokenizer.load(demo_model.path / "tokenizer.json")


def answers(
    demo: tuple[Worker, Tokenizer], conversation: Conversation, sampling: SamplingParams, count: int
) -> list[str]:
    """The text of one answer for each seed, cut after MOST tokens."""
    worker, tokenizer = demo
    tools = tools_of(conversation.tools)
    said = f"{tool_preamble(tools)}<|im_end|>\n" if tools else TERSE
    prompt = (
        f"<|im_start|>system\n{said}<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    )
    constraint = compile_constraint(tokenizer, conversation, prompt, Markup())
    end = tokenizer.token_id("<|im_end|>")
    assert end is not None
    orders = [
        Add(
            seed + 10,
            1,
            tokenizer.encode(prompt),
            MOST,
            evolve(sampling, seed=seed),
            frozenset({end}),
            constraint,
        )
        for seed in range(count)
    ]
    notices = [n for order in orders for n in worker.apply(order)] + run(worker)
    texts = []
    for order in orders:
        words = [p.token for p in pieces(notices, order.uid) if p.finish != "stop"]
        texts.append(b"".join(map(tokenizer.token_bytes, words)).decode())
    return texts


@pytest.mark.real
@pytest.mark.parametrize(("temperature", "seeds"), [(0.2, 2), (0.8, 4), (1.5, 12)])
def test_a_forced_call_parses_and_is_valid_every_time(
    temperature: float, seeds: int, demo: tuple[Worker, Tokenizer]
) -> None:
    asked = Conversation(
        "m", tools=(WEATHER,), tool_choice=ToolChoice("required", only=("get_weather",))
    )
    sampling = SamplingParams(temperature=temperature)
    for text in answers(demo, asked, sampling, seeds):
        reader = MarkupReader(Markup(), asked.tools)
        outputs = [*reader.push(text), *reader.finish()]
        assert [o.name for o in outputs if isinstance(o, Call)] == ["get_weather"]
        assert not [o for o in outputs if isinstance(o, Say)]
        told = "".join(o.text for o in outputs if isinstance(o, Arguments))
        jsonschema.validate(json.loads(told), WEATHER.parameters)


@pytest.mark.real
@pytest.mark.parametrize(
    ("form", "holds"),
    [
        (JsonSchema("x", PERSON), is_person),
        (JsonObject(), lambda t: isinstance(json.loads(t), dict)),
        (Regex(r"(yes|no), [a-z]{3,9}\."), re.compile(r"(yes|no), [a-z]{3,9}\.").fullmatch),
        (
            Grammar('start: N (" + " N){0,3}\nN: /[0-9]{1,2}/'),
            re.compile(r"\d+( \+ \d+)*").fullmatch,
        ),
    ],
    ids=["schema", "object", "regex", "grammar"],
)
def test_an_answer_has_the_form_that_was_asked_for(
    form: Format, holds: Callable[[str], object], demo: tuple[Worker, Tokenizer]
) -> None:
    asked = Conversation("m", format=form)
    for text in answers(demo, asked, SamplingParams(temperature=0.8, top_p=0.9), 5):
        assert holds(text), text
