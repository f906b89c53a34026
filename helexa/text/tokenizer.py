"""The tokeniser of one model: text to ids, and what each id stands for."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from attrs import field, frozen

from helexa.conversation import Json
from helexa.errors import StoreError
from helexa.escape import escape
from helexa.text.decoder import ByteLevel, Decoder, read_decoder

if TYPE_CHECKING:
    import tokenizers

    from helexa.text.constraint.compiler import Compiler

MAX_FILE_BYTES = 256 * 1024 * 1024
NORMALIZED = 4  # composing characters makes a text shorter by at most this factor


@frozen(eq=False)
class Tokenizer:
    """Immutable but for what it remembers: any number of threads may use it at once.

    `special_ids` are the tokens that steer the model and are no part of any text.  `longest` is how
    many bytes of a text one token stands for at most, 0 where there is no bound: a word that such a
    vocabulary lacks is one token, however long.
    """

    decoder: Decoder
    special_ids: frozenset[int]
    longest: int
    _tokens: "tokenizers.Tokenizer"
    _bytes: dict[int, bytes] = field(
        factory=dict, init=False
    )  # of tokens seen: asked once per token

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read a tokenizer.json.  StoreError, in one sentence, for whatever is wrong with it."""
        return cls.parse(read_file(path))

    @classmethod
    def parse(cls, data: bytes) -> "Tokenizer":
        import tokenizers  # a gateway alone does not have it

        try:
            tokens = tokenizers.Tokenizer.from_str(data.decode())
            spec = orjson.loads(data)
            decoder = read_decoder(spec.get("decoder"))
            longest = longest_token(decoder, tokens.get_vocab(with_added_tokens=True))
            longest *= NORMALIZED if spec.get("normalizer") else 1
        except StoreError:
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise  # what the library panics over is the file's fault too; all else is not ours
            raise StoreError(
                f"The tokenizer.json is malformed: {escape(str(error))[:200]}"
            ) from None
        tokens.no_truncation()  # a prompt is refused when it is too long, never cut
        tokens.no_padding()
        added = tokens.get_added_tokens_decoder()
        special = frozenset(id for id, token in added.items() if token.special)
        return cls(decoder, special, longest, tokens)

    def encode(self, text: str, *, add_special_tokens: bool = False) -> tuple[int, ...]:
        """The ids of `text`; special tokens written in it are those tokens, as in a rendered template.

        `add_special_tokens` puts before and after what the model expects around a bare text.
        """
        # Of the library's ways only a batch lets other Python threads run: a long prompt takes seconds.
        batch = self._tokens.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        return tuple(batch[0].ids)

    def count(self, text: str) -> int:
        """How many ids `text` has."""
        return len(self._tokens.encode_batch_fast([text], add_special_tokens=False)[0])

    @cached_property
    def num_ids(self) -> int:
        """One more than the largest id."""
        return max(self._tokens.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @cached_property
    def compiler(self) -> "Compiler":
        """What compiles grammars for this vocabulary; made when it is first asked for."""
        from helexa.text.constraint.compiler import Compiler

        return Compiler.of(self)

    def token(self, id: int) -> str:
        """As the vocabulary writes it; "" for an id beyond it."""
        return self._tokens.id_to_token(id) or ""

    def token_id(self, token: str) -> int | None:
        found: int | None = self._tokens.token_to_id(token)
        return found

    def token_bytes(self, id: int) -> bytes:
        """What a token stands for; part of a character, perhaps.  Nothing for an id beyond the vocabulary."""
        known = self._bytes.get(id)
        if known is None:
            token = self._tokens.id_to_token(id)
            known = self._bytes[id] = b"" if token is None else self.decoder.bytes_of(token)
        return known


def longest_token(decoder: Decoder, tokens: Iterable[str]) -> int:
    if not (isinstance(decoder, ByteLevel) or decoder.has_bytes):
        return 0
    longest = 0
    for token in sorted(tokens, key=len, reverse=True):
        if 4 * len(token) <= longest:  # no character has more bytes than 4
            break
        longest = max(longest, len(decoder.bytes_of(token)))
    return longest


def read_token_id(path: Path, token: str) -> int | None:
    """The id of `token` in a tokenizer.json, without making a tokenizer of it.  StoreError."""
    try:
        return next(
            (id for text, id in vocabulary(orjson.loads(read_file(path))) if text == token), None
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError(f"The tokenizer.json is malformed: {escape(str(error))[:200]}") from None


def vocabulary(spec: Json) -> Iterator[tuple[str, int]]:
    for added in spec.get("added_tokens") or ():
        yield added["content"], added["id"]
    tokens = spec["model"].get("vocab") or {}
    if isinstance(tokens, dict):
        yield from tokens.items()
    else:  # with the score of each
        yield from ((text, id) for id, (text, *_) in enumerate(tokens))


def read_file(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise StoreError(f"{path.name} has more than {MAX_FILE_BYTES >> 20} MiB.")
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"The tokenizer {path} cannot be read: {error.strerror}.") from None
