from collections.abc import Iterable

import pytest
from growth import in_proportion
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library

from helexa.store import StoredModel
from helexa.text.detokenize import Detokenizer, decode
from helexa.text.tokenizer import Tokenizer


def pushed(tokenizer: Tokenizer, ids: Iterable[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer)
    return [*map(detokenizer.push, ids), detokenizer.finish()]


@given(ids=st.lists(st.integers(0, 410), max_size=40))
def test_any_ids_make_the_text_that_the_library_makes_of_all(
    byte_level: Tokenizer, byte_level_library: Library, ids: list[int]
) -> None:
    assert "".join(pushed(byte_level, ids)) == byte_level_library.decode(ids)


@pytest.mark.real
@given(ids=st.lists(st.integers(0, 49151), max_size=40))
def test_any_ids_of_the_real_model_make_the_text_that_the_library_makes_of_all(
    demo_tokenizer: Tokenizer, demo_library: Library, ids: list[int]
) -> None:
    assert "".join(pushed(demo_tokenizer, ids)) == demo_library.decode(ids)


@pytest.fixture(scope="session")
def demo_tokenizer(demo_model: StoredModel) -> Tokenizer:
    return Tokenizer.load(demo_model.path / "tokenizer.json")


@pytest.fixture(scope="session")
def demo_library(demo_model: StoredModel) -> Library:
    return Library.from_file(str(demo_model.path / "tokenizer.json"))


@given(text=st.text())
def test_any_text_comes_back(byte_level: Tokenizer, text: str) -> None:
    assert decode(byte_level, byte_level.encode(text)) == text


@given(text=st.text())
def test_any_text_of_the_other_kind_is_what_the_library_makes_of_it(
    pieces: Tokenizer, pieces_library: Library, text: str
) -> None:
    ids = pieces.encode(text)
    assert decode(pieces, ids) == pieces_library.decode(list(ids))


@given(text=st.text("é日😀👩‍👧a ", min_size=1))
def test_no_character_is_ever_split(byte_level: Tokenizer, text: str) -> None:
    assert "\ufffd" not in "".join(pushed(byte_level, byte_level.encode(text)))


def test_a_character_comes_with_its_last_byte(byte_level: Tokenizer) -> None:
    letters = {byte_level.token_bytes(id): id for id in range(300)}
    ids = [letters[bytes([byte])] for byte in "😀".encode()]
    assert pushed(byte_level, ids) == ["", "", "", "😀", ""]
    assert pushed(byte_level, ids[:3]) == ["", "", "", "\ufffd"]


def test_special_tokens_are_skipped_and_added_ones_are_not(byte_level: Tokenizer) -> None:
    ids = byte_level.encode("<|begin|>a<tool_call>b<|end|>")
    assert decode(byte_level, ids) == "a<tool_call>b"


def test_a_leading_space_is_dropped_unless_the_answer_continues_a_text(pieces: Tokenizer) -> None:
    ids = pieces.encode("Paris")
    continued = Detokenizer(pieces, continues=True)
    assert decode(pieces, ids) == "Paris"
    assert "".join(map(continued.push, ids)) == " Paris"


def test_a_long_answer_takes_time_in_proportion(byte_level: Tokenizer) -> None:
    ids = byte_level.encode("Paris ")
    assert in_proportion(lambda num_ids: pushed(byte_level, ids * (num_ids // 2)), 8_000)
