"""What an answer repeats of the text that it goes on with, and the scores of both, side by side."""

import codecs
import math

from attrs import define, field, frozen

from helexa.conversation import Json, TokenLogprob
from helexa.wire.logprobs import LEAST_LOGPROB

Tokens = tuple[TokenLogprob, ...]


@frozen
class Echo:
    """`texts` to repeat, () for none; `n` answers go on with each; `scored`: scores are asked for."""

    texts: tuple[str | tuple[int, ...], ...]
    n: int
    scored: bool

    def text(self, choice: int, prompt: Tokens) -> str:
        """What answer number `choice` begins with; of a text given as ids its scored tokens tell."""
        if not self.texts:
            return ""
        text = self.texts[choice // self.n]
        return text if isinstance(text, str) else joined(prompt)


@define(eq=False)
class Scores:
    """Scores of one answer's tokens as completions list them, where each chunk goes on from the last.

    `text_offset` counts the characters of the answer's text before each token.
    """

    _offset: int = field(default=0, init=False)
    _decode: codecs.IncrementalDecoder = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace")

    def prompt(self, tokens: Tokens, num_characters: int) -> dict[str, list[Json]]:
        """Of a text of `num_characters`.  What its tokens have before it, such as one that marks the
        beginning, stands at 0."""
        self._offset = min(0, num_characters - len(joined(tokens)))
        scores = self.more(tokens)
        self._offset = num_characters
        self._decode.reset()
        return scores

    def more(self, tokens: Tokens) -> dict[str, list[Json]]:
        return {
            "tokens": [written(token) for token in tokens],
            "token_logprobs": [score(token) for token in tokens],
            "top_logprobs": [tops(token) for token in tokens],
            "text_offset": [self._advance(token) for token in tokens],
        }

    def _advance(self, token: TokenLogprob) -> int:
        offset = self._offset
        self._offset += len(self._decode.decode(token.bytes))
        return max(0, offset)


def joined(tokens: Tokens) -> str:
    return b"".join(token.bytes for token in tokens).decode("utf-8", "replace")


def written(token: TokenLogprob) -> str:
    """A token's text; its bytes where they are not whole characters, so that tokens stay apart."""
    try:
        return token.bytes.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.bytes)


def score(token: TokenLogprob) -> float | None:
    """None for the first token of a text, which has nothing before it."""
    return None if math.isnan(token.logprob) else max(token.logprob, LEAST_LOGPROB)


def tops(token: TokenLogprob) -> dict[str, float] | None:
    """The likeliest tokens and the token itself; of two with the same text the likelier one."""
    if math.isnan(token.logprob):
        return None
    found: dict[str, float] = {}
    for other in (*token.top, token):
        text = written(other)
        found[text] = max(found.get(text, LEAST_LOGPROB), other.logprob)
    return found
