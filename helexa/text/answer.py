"""From the tokens of one answer to its events: text, reasoning, tool calls, the end."""

import secrets
from collections.abc import Iterable

from helexa.conversation import (
    ChoiceFinished,
    Conversation,
    Delta,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)
from helexa.engine.orders import Piece
from helexa.text.detokenize import Detokenizer
from helexa.text.markup import (
    Arguments,
    Call,
    Ended,
    Markup,
    MarkupReader,
    Output,
    Say,
    Think,
    markers_of,
)
from helexa.text.prompt import Prompt
from helexa.text.scores import Scored, Scores, logprob_of
from helexa.text.stops import StopMatcher
from helexa.text.tokenizer import Tokenizer

AnswerEvent = Delta | ChoiceFinished


class AnswerReader:
    """Answer number `choice` of a conversation.

    A token's log-probability comes with the delta that brings the last of its text.  Left out are the
    tokens of the stop string that ends the answer, and those that became reasoning or tool calls.
    `reasoning_tokens` are a part of `completion_tokens`, whether the client sees them or not.
    `stopped` tells that the answer ended before its sequence did, which need not go on.
    """

    def __init__(
        self,
        choice: int,
        tokenizer: Tokenizer,
        conversation: Conversation,
        prompt: Prompt,
        markup: Markup,
    ) -> None:
        self._choice = choice
        self._tokenizer = tokenizer
        self._matcher = StopMatcher(stops) if (stops := conversation.sampling.stop) else None
        self._markup = reader_of(conversation, prompt, markup)
        kept = kept_ids(tokenizer, markup) if self._markup else frozenset[int]()
        self._detokenizer = Detokenizer(tokenizer, continues=prompt.continues, kept=kept)
        self._shows_thinking = conversation.thinking.shown
        self._parallel = conversation.tool_choice.parallel
        self._scores = Scores()
        self._num_read = 0  # characters, those held back included
        self._num_told = 0  # those that no stop string can be part of
        self._num_calls = 0
        self._thought = False  # at the last token
        self.completion_tokens = 0
        self.reasoning_tokens = 0
        self.finished = False
        self.stopped = False

    def push(self, piece: Piece) -> list[AnswerEvent]:
        """The events of one more token.  What comes after the end of the answer is ignored."""
        if self.finished:
            return []
        self.completion_tokens += 1
        text = self._read(piece)
        events = self._tell(self._matcher.push(text)[0] if self._matcher else text)
        if self._markup is not None:
            self._count_reasoning(self._markup.thinking)
        if self._matcher and self._matcher.stopped is not None:
            self.stopped = True
            return events + self._finish("stop", self._matcher.stopped)
        if piece.finish is not None:
            held = self._matcher.finish() if self._matcher else ""
            return events + self._tell(held) + self._finish(piece.finish)
        return events

    def _read(self, piece: Piece) -> str:
        """The text that the token completes.  A stop id makes none: it ends whatever is open."""
        if piece.finish == "stop":
            return self._detokenizer.finish()
        text = self._detokenizer.push(piece.token)
        if piece.logprob is not None:
            scored = logprob_of(self._tokenizer, piece.token, piece.logprob, piece.top)
            self._scores.add(Scored(scored, self._num_read, self._num_read + len(text)))
        self._num_read += len(text)
        return text if piece.finish is None else text + self._detokenizer.finish()

    def _count_reasoning(self, thinks: bool) -> None:
        """Counts a token that came while the model thought, the closing marker with them."""
        self.reasoning_tokens += thinks or self._thought
        self._thought = thinks

    # -- text to events ----------------------------------------------------------------------------

    def _tell(self, text: str) -> list[AnswerEvent]:
        """The events of text that no stop string can be part of."""
        begin = self._num_told
        self._num_told += len(text)
        if self._markup is None:
            return self._text(text, begin)
        return self._marked(self._markup.push(text)) if text else []

    def _text(self, text: str, begin: int) -> list[AnswerEvent]:
        logprobs = self._scores.told(begin, begin + len(text))
        return [TextDelta(self._choice, text, logprobs)] if text or logprobs else []

    def _marked(self, outputs: Iterable[Output]) -> list[AnswerEvent]:
        events: list[AnswerEvent] = []
        for output in outputs:
            if not self.finished:
                events += self._events(output)
        return events

    def _events(self, output: Output) -> list[AnswerEvent]:
        match output:
            case Say(text, begin):
                return self._text(text, begin)
            case Think(text):
                return [ReasoningDelta(self._choice, text)] if self._shows_thinking else []
            case Call(name):
                return self._call(name)
            case Arguments(text):
                return [ToolCallDelta(self._choice, self._num_calls - 1, text)]
            case Ended():
                return [] if self._parallel else self._stop_at_call()

    def _call(self, name: str) -> list[AnswerEvent]:
        if self._num_calls and not self._parallel:  # the first was never completed
            return self._stop_at_call()
        id = "call_" + secrets.token_hex(12)
        self._num_calls += 1
        return [ToolCallStarted(self._choice, self._num_calls - 1, id, name)]

    def _stop_at_call(self) -> list[AnswerEvent]:
        self.finished = self.stopped = True
        return [ChoiceFinished(self._choice, "tool_calls")]

    def _finish(self, reason: FinishReason, stop: str | None = None) -> list[AnswerEvent]:
        events = self._marked(self._markup.finish(cut=reason == "length") if self._markup else ())
        if self.finished:
            return events
        self.finished = True
        if logprobs := self._scores.finish(self._num_told):
            events.append(TextDelta(self._choice, "", logprobs))
        if reason == "stop" and self._num_calls:
            reason, stop = "tool_calls", None
        return [*events, ChoiceFinished(self._choice, reason, stop)]


def reader_of(conversation: Conversation, prompt: Prompt, markup: Markup) -> MarkupReader | None:
    """What reads the markup of an answer; None where there can be none."""
    tools = conversation.tools if conversation.tool_choice.mode != "none" else ()
    marked = tools or markup.think or markup.silent or markup.tools == "harmony"
    if conversation.texts or not marked:
        return None
    return MarkupReader(markup, tools, prompt.text, continues=prompt.continues)


def kept_ids(tokenizer: Tokenizer, markup: Markup) -> frozenset[int]:
    """The special tokens that are markers: they come out as their text."""
    ids = (tokenizer.token_id(marker) for marker in markers_of(markup))
    return frozenset(id for id in ids if id is not None)
