"""From the tokens of one answer to its events: text, log-probabilities, stop strings, the end."""

from collections import deque
from collections.abc import Iterator

from attrs import frozen

from helexa.conversation import ChoiceFinished, FinishReason, TextDelta, TokenLogprob
from helexa.engine.orders import Piece
from helexa.text.detokenize import Detokenizer
from helexa.text.stops import StopMatcher
from helexa.text.tokenizer import Tokenizer

AnswerEvent = TextDelta | ChoiceFinished


@frozen
class Scored:
    """A token's log-probability and the characters of the answer that it made, [begin, end)."""

    logprob: TokenLogprob
    begin: int
    end: int


class AnswerReader:
    """Answer number `choice` of a request.

    A token's log-probability comes with the delta that brings the last of its text; tokens of the stop
    string that ends the answer are left out, as their text is.
    """

    def __init__(
        self,
        choice: int,
        tokenizer: Tokenizer,
        stops: tuple[str, ...] = (),
        *,
        continues: bool = False,
    ) -> None:
        self._choice = choice
        self._tokenizer = tokenizer
        self._detokenizer = Detokenizer(tokenizer, continues=continues)
        self._matcher = StopMatcher(stops) if stops else None
        self._waiting: deque[Scored] = deque()
        self._num_read = 0  # characters, those held back included
        self._num_told = 0
        self.completion_tokens = 0
        self.finished = False

    @property
    def stopped(self) -> bool:
        """Whether a stop string ended the answer, so that the sequence need not go on."""
        return self._matcher is not None and self._matcher.stopped is not None

    def push(self, piece: Piece) -> list[AnswerEvent]:
        """The events of one more token.  What comes after the end of the answer is ignored."""
        if self.finished:
            return []
        self.completion_tokens += 1
        text = self._read(piece)
        if piece.finish is None:
            return [*self._tell(text), *self._stop()]
        return self._finish(text + self._detokenizer.finish(), piece.finish)

    def _read(self, piece: Piece) -> str:
        """The text that the token completes; a stop id makes none."""
        if piece.finish == "stop":
            return ""
        text = self._detokenizer.push(piece.token)
        if piece.logprob is not None:
            scored = self._logprob(piece.token, piece.logprob, piece.top)
            self._waiting.append(Scored(scored, self._num_read, self._num_read + len(text)))
        return text

    def _tell(self, text: str) -> Iterator[TextDelta]:
        self._num_read += len(text)
        told = self._matcher.push(text)[0] if self._matcher else text
        yield from self._delta(told)

    def _stop(self) -> Iterator[ChoiceFinished]:
        if self._matcher and self._matcher.stopped is not None:
            self.finished = True
            yield ChoiceFinished(self._choice, "stop", self._matcher.stopped)

    def _finish(self, text: str, reason: FinishReason) -> list[AnswerEvent]:
        events: list[AnswerEvent] = [*self._tell(text), *self._stop()]
        if self.finished:
            return events
        self.finished = True
        held = self._matcher.finish() if self._matcher else ""
        return [*events, *self._delta(held), ChoiceFinished(self._choice, reason)]

    def _delta(self, text: str) -> Iterator[TextDelta]:
        self._num_told += len(text)
        logprobs = tuple(self._told())
        if text or logprobs:
            yield TextDelta(self._choice, text, logprobs)

    def _told(self) -> Iterator[TokenLogprob]:
        """The tokens whose text is out; after a stop string also the one that it cuts in two."""
        while self._waiting and self._is_told(self._waiting[0]):
            yield self._waiting.popleft().logprob

    def _is_told(self, scored: Scored) -> bool:
        return scored.end <= self._num_told or (self.stopped and scored.begin < self._num_told)

    def _logprob(
        self, token: int, logprob: float, top: tuple[tuple[int, float], ...] = ()
    ) -> TokenLogprob:
        octets = self._tokenizer.token_bytes(token)
        others = tuple(self._logprob(other, value) for other, value in top)
        return TokenLogprob(octets.decode("utf-8", "replace"), octets, logprob, others)
