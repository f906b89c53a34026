"""A whole answer, folded from the events of its generation: what a request without a stream gets."""

from attrs import define, field, frozen

from helexa.conversation import (
    ChoiceFinished,
    Event,
    Finished,
    FinishReason,
    TextDelta,
    TokenLogprob,
    Usage,
)


@frozen
class Choice:
    text: str
    reason: FinishReason
    stop_sequence: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


@frozen
class Answer:
    """`choices` in the order of their numbers."""

    choices: tuple[Choice, ...]
    usage: Usage


@define(eq=False)
class Collector:
    """Takes events; `answer` is None until the last one, Finished, has come."""

    answer: Answer | None = field(default=None, init=False)
    _texts: dict[int, list[str]] = field(factory=dict, init=False)
    _logprobs: dict[int, list[TokenLogprob]] = field(factory=dict, init=False)
    _choices: dict[int, Choice] = field(factory=dict, init=False)

    def add(self, event: Event) -> None:
        match event:
            case TextDelta(choice, text, logprobs):
                self._texts.setdefault(choice, []).append(text)
                self._logprobs.setdefault(choice, []).extend(logprobs)
            case ChoiceFinished(choice, reason, stop_sequence):
                text = "".join(self._texts.get(choice, ()))
                logprobs = tuple(self._logprobs.get(choice, ()))
                self._choices[choice] = Choice(text, reason, stop_sequence, logprobs)
            case Finished(usage):
                self.answer = Answer(tuple(self._choices[i] for i in sorted(self._choices)), usage)
