"""Small tokenisers of the two kinds, trained in the blink of an eye."""

import pytest
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Library

from helexa.text.tokenizer import Tokenizer

CORPUS = [
    "The capital of France is Paris.",
    "naïve café – 日本語のテキスト",
    "emoji 😀 and 👩‍👩‍👧",
    "END of it all",
] * 3
SPECIAL = ["<|begin|>", "<|end|>"]


@pytest.fixture(scope="session")
def byte_level_library() -> Library:
    """Byte-level BPE as GPT-2 has it, with two special tokens and one that is only added."""
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(CORPUS, trainer)
    library.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("<｜wide｜>")])
    return library


@pytest.fixture(scope="session")
def byte_level(byte_level_library: Library) -> Tokenizer:
    return Tokenizer.parse(byte_level_library.to_str().encode())


@pytest.fixture(scope="session")
def pieces_library() -> Library:
    """SentencePiece's kind with byte fallback, as Llama 2 has it."""
    words = ["▁", "▁The", "▁capital", "▁of", "▁France", "is", "▁Paris", ".", "a", "é"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    vocabulary = {token: id for id, token in enumerate(tokens)}
    library = Library(
        models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    library.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    library.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    library.add_special_tokens(["<unk>", "<s>", "</s>"])
    return library


@pytest.fixture(scope="session")
def pieces(pieces_library: Library) -> Tokenizer:
    return Tokenizer.parse(pieces_library.to_str().encode())
