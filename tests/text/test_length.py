"""What cannot fit is refused before it takes time and memory; what may fit is encoded whole."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import normalizers

from helexa.conversation import Conversation, Message, Reasoning, Text, ToolResult
from helexa.store import StoredModel
from helexa.text.length import PromptTooLong, check_length, check_said
from helexa.text.prompter import Prompter
from helexa.text.render import Rendered
from helexa.text.tokenizer import Tokenizer


@given(text=st.text())
def test_no_text_is_longer_than_its_tokens_can_stand_for(
    byte_level: Tokenizer, pieces: Tokenizer, text: str
) -> None:
    for tokenizer in (byte_level, pieces):
        ids = tokenizer.encode(text)
        assert tokenizer.count(text) == len(ids)
        assert len(text.encode()) <= tokenizer.longest * len(ids)
        check_length(text, tokenizer, len(ids))


def test_the_longest_token_is_known(
    byte_level: Tokenizer, pieces: Tokenizer, byte_level_library: Library
) -> None:
    assert byte_level.longest == max(
        len(byte_level.token_bytes(id)) for id in range(byte_level_library.get_vocab_size())
    )
    assert pieces.longest == 4 * len(" capital")  # as its normalizer might shorten a text
    composing = Library.from_str(byte_level_library.to_str())
    composing.normalizer = normalizers.NFC()
    normal = Tokenizer.parse(composing.to_str().encode())
    assert normal.longest == 4 * byte_level.longest


def test_a_vocabulary_whose_unknown_words_are_one_token_has_no_bound(
    pieces_library: Library, byte_level: Tokenizer
) -> None:
    spec = pieces_library.to_str().replace('"ByteFallback"', '"Fuse"')
    without = Tokenizer.parse(spec.encode())
    assert without.longest == 0
    check_length("x" * 60_000, without, 10)


def test_what_is_too_large_is_refused_by_its_size(byte_level: Tokenizer) -> None:
    check_length("é" * (5 * byte_level.longest), byte_level, 10)
    with pytest.raises(PromptTooLong) as refused:
        check_length("é" * (5 * byte_level.longest + 1), byte_level, 10)
    assert refused.value.at_least == 11


def test_what_is_suspiciously_long_is_counted_only_until_that_is_certain(
    byte_level: Tokenizer,
) -> None:
    counted = Counting(evolve(byte_level, longest=0))
    with pytest.raises(PromptTooLong) as refused:
        check_length("7" * 10_000_000, counted, 100_000)  # type: ignore[arg-type]
    assert 100_000 < refused.value.at_least <= 10_000_000
    assert counted.characters == 4 * 65_536


def test_what_is_just_too_long_passes_to_be_told_exactly(byte_level: Tokenizer) -> None:
    check_length("7" * 100_001, byte_level, 100_000)
    check_length("7" * 500_000, evolve(byte_level, longest=0), None)


class Counting:
    """A tokenizer that remembers how much it was asked to count."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.longest = tokenizer.longest
        self.characters = 0

    def count(self, text: str) -> int:
        self.characters += len(text)
        return self._tokenizer.count(text)


def test_all_that_a_template_passes_on_is_counted_and_no_thoughts(byte_level: Tokenizer) -> None:
    word = "x" * byte_level.longest
    user = Message("user", (Text(word), ToolResult("c", (Text(word),))))
    thought = Message("assistant", (Reasoning(word * 10), Text(word * 10)))
    told = Conversation("m", (Message("system", (Text(word),)), user, thought))
    check_said(told, byte_level, 3)
    check_said(told, byte_level, None)
    with pytest.raises(PromptTooLong) as refused:
        check_said(told, byte_level, 2)
    assert refused.value.at_least == 3


@pytest.mark.real
@pytest.mark.parametrize("text", ["1", "a", " ", "日", "hello ", "\x04"])
@pytest.mark.parametrize("size", [200_000, 4_000_000])
def test_no_text_makes_more_tokens_than_the_limit_lets_it(
    demo_model: StoredModel, monkeypatch: pytest.MonkeyPatch, text: str, size: int
) -> None:
    prompter = Prompter.load(demo_model.path)
    made: list[int] = []
    monkeypatch.setattr(Tokenizer, "encode", noting(Tokenizer.encode, made))
    monkeypatch.setattr(Tokenizer, "count", noting(Tokenizer.count, made))
    with suppress(PromptTooLong):
        prompter.prompt(Rendered(text * (size // len(text.encode()))), 6144)
    assert sum(made) <= 3 * 65_536


def noting(method: Callable[..., Any], made: list[int]) -> Callable[..., Any]:
    """The method, with how many tokens it makes added to `made`."""

    def noted(*args: Any, **kwargs: Any) -> Any:
        found = method(*args, **kwargs)
        made.append(found if isinstance(found, int) else len(found))
        return found

    return noted


@pytest.mark.real
def test_a_prompt_that_fits_is_what_a_whole_encoding_makes_of_it(demo_model: StoredModel) -> None:
    prompter = Prompter.load(demo_model.path)
    text = ("#" * 80 + "\n" + " " * 80) * 1500  # 241 500 bytes, few tokens: counted first
    prompt = prompter.prompt(Rendered(text), 6144)
    assert len(prompt.ids) <= 6144
    assert prompt == prompter.prompt(Rendered(text))
    assert prompt.ids == prompter.tokenizer.encode(prompt.text)
