from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers

from helexa.conversation import Json
from helexa.errors import StoreError
from helexa.text.detokenize import decode
from helexa.text.tokenizer import Tokenizer


@given(text=st.text())
def test_ids_are_those_of_the_library(
    byte_level: Tokenizer, byte_level_library: Library, text: str
) -> None:
    ids = byte_level.encode(text)
    assert list(ids) == byte_level_library.encode(text, add_special_tokens=False).ids


def test_special_tokens_written_in_a_text_are_those_tokens(byte_level: Tokenizer) -> None:
    begin, end = byte_level.token_id("<|begin|>"), byte_level.token_id("<|end|>")
    assert byte_level.special_ids == {begin, end}
    assert byte_level.encode("<|begin|>Paris<|end|>")[0] == begin
    assert byte_level.token_id("no such token") is None


@given(text=st.text())
def test_the_bytes_of_the_tokens_are_those_of_the_text(byte_level: Tokenizer, text: str) -> None:
    assert b"".join(map(byte_level.token_bytes, byte_level.encode(text))) == text.encode()


def test_a_token_with_foreign_letters_stands_for_itself(byte_level: Tokenizer) -> None:
    assert byte_level.token_bytes(byte_level.token_id("<｜wide｜>")) == "<｜wide｜>".encode()


def test_a_lone_byte_is_a_token_of_its_own(pieces: Tokenizer) -> None:
    ids = pieces.encode("😀")
    assert b"".join(map(pieces.token_bytes, ids)) == b" " + "😀".encode()
    assert pieces.token_bytes(pieces.token_id("<0xE2>")) == b"\xe2"


def test_an_id_beyond_the_vocabulary_stands_for_nothing(byte_level: Tokenizer) -> None:
    assert byte_level.token_bytes(10**6) == b""


def test_a_prompt_is_never_cut_or_padded(byte_level_library: Library) -> None:
    library = Library.from_str(byte_level_library.to_str())
    library.enable_truncation(3)
    library.enable_padding(length=50)
    tokenizer = Tokenizer.parse(library.to_str().encode())
    assert 3 < len(tokenizer.encode("The capital of France")) < 50


def test_words_without_a_decoder_have_spaces_between() -> None:
    library = Library(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = Tokenizer.parse(library.to_str().encode())
    ids = tokenizer.encode("a b b")
    assert decode(tokenizer, ids) == library.decode(list(ids)) == "a b b"


def test_a_metaspace_is_a_space() -> None:
    library = Library(models.WordLevel({"▁a": 0, "▁b": 1}, unk_token="▁a"))
    library.decoder = decoders.Metaspace()
    tokenizer = Tokenizer.parse(library.to_str().encode())
    assert decode(tokenizer, [0, 1]) == library.decode([0, 1]) == "a b"


HOSTILE = [
    b"",
    b"not json",
    b"\xff\xfe",
    b"[]",
    b"{}",
    b"null",
    b'{"model": null}',
    b'{"version":"1.0","model":{"type":"BPE","vocab":{"a":0},"merges":[["a","b"]]}}',
    b'{"version":"1.0","model":{"type":"BPE","vocab":{"a":-1},"merges":[]}}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_a_malformed_file_is_one_clear_error(data: bytes) -> None:
    with pytest.raises(StoreError) as refused:
        Tokenizer.parse(data)
    assert "tokenizer.json" in refused.value.message
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    "decoder",
    [
        {"type": "WordPiece", "prefix": "##", "cleanup": True},
        {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True},
    ],
)
def test_a_decoder_of_another_kind_of_model_is_refused(
    byte_level_library: Library, decoder: Json
) -> None:
    content = orjson.loads(byte_level_library.to_str()) | {"decoder": decoder}
    with pytest.raises(StoreError, match="not supported"):
        Tokenizer.parse(orjson.dumps(content))


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"tokenizer\.json cannot be read"):
        Tokenizer.load(tmp_path / "tokenizer.json")


def test_a_file_is_read(tmp_path: Path, byte_level: Tokenizer, byte_level_library: Library) -> None:
    byte_level_library.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.load(tmp_path / "tokenizer.json").encode("Paris") == byte_level.encode("Paris")
