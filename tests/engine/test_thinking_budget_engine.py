"""A toy model that would think for ever is made to speak when its budget is spent."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Library
from toys import loaded, run

from helexa.conversation import Conversation, Regex, Thinking
from helexa.engine.orders import Add, Piece, SamplingParams
from helexa.text.answer import AnswerReader
from helexa.text.markup import Markup
from helexa.text.prompt import Prompt
from helexa.text.prompter import constrained
from helexa.text.tokenizer import Tokenizer

Toy = Callable[..., Path]

THINK = Markup("hermes", ("<think>", "</think>"))
OPENED = "assistant\n<think>\n"
BUDGET = 11
MARKER = 2  # tokens: a line break and </think>
MOST = 60


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Every byte is a token, and so is each marker."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    library = Library(models.BPE({letter: id for id, letter in enumerate(letters)}, []))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_tokens([AddedToken("<think>"), AddedToken("</think>")])
    library.add_special_tokens(["<|end|>"])
    return Tokenizer.parse(library.to_str().encode())


def answered(
    path: Path, tokenizer: Tokenizer, *, stops: bool = True, **asked: Any
) -> tuple[AnswerReader, list[Piece]]:
    """The answer of a model that says nothing but "a" as far as it may."""
    conversation = Conversation("m", **asked)
    opened = Prompt(tokenizer.encode(OPENED), OPENED)
    (prompt,) = constrained(tokenizer, THINK, conversation, (opened,))
    (favourite,) = tokenizer.encode("a")
    end = tokenizer.token_id("<|end|>")
    order = Add(
        uid=10,
        model_uid=1,
        prompt=prompt.ids,
        max_tokens=MOST,
        sampling=SamplingParams(temperature=0, logit_bias=((favourite, 1000.0),)),
        stop_ids=frozenset([end] if stops and end is not None else []),
        constraint=prompt.constraint,
    )
    device = loaded(path)
    pieces = [n for n in [*device.apply(order), *run(device)] if isinstance(n, Piece)]
    reader = AnswerReader(0, tokenizer, conversation, prompt, THINK)
    for piece in pieces:
        reader.push(piece)
    return reader, pieces


@pytest.mark.parametrize("stops", [True, False])
def test_thoughts_end_and_the_answer_takes_the_rest_of_max_tokens(
    stops: bool, toy: Toy, tokenizer: Tokenizer
) -> None:
    thinks = Thinking(True, budget=BUDGET)
    reader, pieces = answered(toy(vocab_size=300), tokenizer, stops=stops, thinking=thinks)
    assert reader.reasoning_tokens == BUDGET + MARKER
    assert [tokenizer.token(piece.token) for piece in pieces] == (
        ["a"] * BUDGET + ["Ċ", "</think>"] + ["a"] * (MOST - BUDGET - MARKER)
    )
    assert pieces[-1].finish == "length"


def test_without_a_budget_nothing_ends_them(toy: Toy, tokenizer: Tokenizer) -> None:
    reader, pieces = answered(toy(vocab_size=300), tokenizer, thinking=Thinking(True))
    assert reader.reasoning_tokens == len(pieces) == MOST


def test_the_answer_then_has_the_form_that_was_asked_for(toy: Toy, tokenizer: Tokenizer) -> None:
    thinks = Thinking(True, budget=BUDGET)
    reader, pieces = answered(
        toy(vocab_size=300), tokenizer, thinking=thinks, format=Regex("(yes|no), a{3}")
    )
    assert reader.reasoning_tokens == BUDGET + MARKER
    said = b"".join(tokenizer.token_bytes(piece.token) for piece in pieces if not piece.finish)
    assert said.partition(b"</think>")[2].strip() in (b"yes, aaa", b"no, aaa")
    assert pieces[-1].finish == "stop"
