"""Answers picked at random among all that a constraint allows."""

import random

import numpy as np

from helexa.conversation import Conversation
from helexa.text.constraint import Constraint, Matcher, compile_constraint
from helexa.text.markup import Markup
from helexa.text.tokenizer import Tokenizer

MOST_TOKENS = 400
CLOSERS = set(b"\"'}])</>")


def compiled(
    tokenizer: Tokenizer, conversation: Conversation, markup: Markup | None = None, prompt: str = ""
) -> Constraint:
    constraint = compile_constraint(tokenizer, conversation, prompt, markup or Markup())
    assert constraint is not None
    return constraint


def allowed_ids(matcher: Matcher) -> tuple[list[int], bool]:
    bits, may_end = matcher.allowed()
    return ids_in(bits), may_end


def ids_in(bits: bytearray) -> list[int]:
    ids: list[int] = np.flatnonzero(
        np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")
    ).tolist()
    return ids


def text_of(tokenizer: Tokenizer, id: int) -> bytes:
    """Markers count as text here, as they do for who reads calls."""
    special = id in tokenizer.special_ids
    return tokenizer.token(id).encode() if special else tokenizer.token_bytes(id)


def walk(tokenizer: Tokenizer, constraint: Constraint, seed: int) -> str | None:
    """One answer; None for one that found no end.  Tokens that close something come often."""
    chance = random.Random(seed)
    matcher, written = constraint.matcher(), b""
    for _ in range(MOST_TOKENS):
        ids, may_end = allowed_ids(matcher)
        if may_end and (not ids or chance.random() < 0.3):
            return written.decode()
        closers = [id for id in ids if set(text_of(tokenizer, id)) <= CLOSERS]
        id = chance.choice(closers if closers and chance.random() < 0.4 else ids)
        matcher.accept(id)
        written += text_of(tokenizer, id)
    return None


def refusal(tokenizer: Tokenizer, constraint: Constraint, text: str) -> str | None:
    """The first token of `text` that is not allowed; None if it may be the whole answer."""
    matcher = constraint.matcher()
    for id in tokenizer.encode(text):
        ids, _ = allowed_ids(matcher)
        if id not in ids:
            return text_of(tokenizer, id).decode(errors="replace")
        matcher.accept(id)
    return None if allowed_ids(matcher)[1] else "the end"
