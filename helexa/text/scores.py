"""Log-probabilities of tokens, held until the text that they made is told."""

from collections import deque
from collections.abc import Iterator

from attrs import frozen

from helexa.conversation import TokenLogprob
from helexa.engine.orders import Top
from helexa.text.tokenizer import Tokenizer


def logprob_of(tokenizer: Tokenizer, token: int, logprob: float, top: Top = ()) -> TokenLogprob:
    octets = tokenizer.token_bytes(token)
    others = tuple(logprob_of(tokenizer, other, value) for other, value in top)
    return TokenLogprob(octets.decode("utf-8", "replace"), octets, logprob, others)


@frozen
class Scored:
    """A token's log-probability and the characters that it made, [begin, end)."""

    logprob: TokenLogprob
    begin: int
    end: int


class Scores:
    """A token comes with the last of its text; one that became no text for the client is left out.

    Of a token that is told in part, the rest being a marker or a stop string, all is told.
    """

    def __init__(self) -> None:
        self._waiting: deque[Scored] = deque()
        self._told = 0  # where the text that was told last ends

    def add(self, scored: Scored) -> None:
        self._waiting.append(scored)

    def told(self, begin: int, end: int) -> tuple[TokenLogprob, ...]:
        """The tokens that the text [begin, end) completes."""
        found = tuple(self._until(begin, end))
        self._told = end
        return found

    def _until(self, begin: int, end: int) -> Iterator[TokenLogprob]:
        while self._waiting and self._waiting[0].end <= end:
            scored = self._waiting.popleft()
            if scored.begin < self._told or scored.end > begin or scored.begin >= begin:
                yield scored.logprob

    def finish(self, end: int) -> tuple[TokenLogprob, ...]:
        """The tokens that were told in part, and those at the `end` of the text that made none of it."""
        waiting, told = self._waiting, self._told
        return tuple(
            scored.logprob for scored in waiting if scored.begin < told or scored.end <= told == end
        )
