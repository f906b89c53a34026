"""Tokens to text as they come, never splitting a character."""

import codecs
from collections.abc import Iterable

from helexa.text.tokenizer import Tokenizer


class Detokenizer:
    """The text of one answer: all that `push` and `finish` return is the text of all ids pushed.

    `continues`: the answer goes on with a text, so that a space at its beginning is kept.  `kept` are
    special tokens that are text all the same.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        continues: bool = False,
        kept: frozenset[int] = frozenset(),
    ) -> None:
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_ids - kept if kept else tokenizer.special_ids
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._num_stripped = 0 if continues else tokenizer.decoder.num_stripped

    def push(self, id: int) -> str:
        """What `id` completes; "" while a character is incomplete, or for a special token."""
        if id in self._skipped:
            return ""
        octets = self._tokenizer.token_bytes(id)
        if self._num_stripped and octets:
            octets = self._stripped(octets)
        return self._utf8.decode(octets)

    def finish(self) -> str:
        """What is left: U+FFFD for a character that was never completed."""
        return self._utf8.decode(b"", final=True)

    def _stripped(self, octets: bytes) -> bytes:
        while self._num_stripped and octets.startswith(b" "):
            octets = octets[1:]
            self._num_stripped -= 1
        if octets:
            self._num_stripped = 0
        return octets


def decode(tokenizer: Tokenizer, ids: Iterable[int]) -> str:
    """The text of `ids` without special tokens; bytes that are not UTF-8 become U+FFFD."""
    detokenizer = Detokenizer(tokenizer)
    return "".join([*map(detokenizer.push, ids), detokenizer.finish()])
