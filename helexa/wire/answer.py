"""A whole answer, folded from the events of its generation: what a request without a stream gets."""

from attrs import define, field, frozen

from helexa.conversation import (
    ChoiceFinished,
    Event,
    Finished,
    FinishReason,
    PromptScored,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)


@frozen
class Choice:
    """One answer: what the model thought, then what it said, then the tools that it calls.

    `logprobs` are those of the text's tokens, `prompt_logprobs` of the text that it goes on with.
    """

    text: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    reason: FinishReason = "stop"
    stop_sequence: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()


@frozen
class Answer:
    """`choices` in the order of their numbers."""

    choices: tuple[Choice, ...]
    usage: Usage


@define(eq=False)
class Call:
    """A tool call whose arguments still come."""

    id: str
    name: str
    arguments: list[str] = field(factory=list)


@define(eq=False)
class Draft:
    """A choice that is not yet complete."""

    text: list[str] = field(factory=list)
    reasoning: list[str] = field(factory=list)
    calls: dict[int, Call] = field(factory=dict)
    logprobs: list[TokenLogprob] = field(factory=list)
    prompt_logprobs: list[TokenLogprob] = field(factory=list)

    def finish(self, reason: FinishReason, stop_sequence: str | None) -> Choice:
        calls = [self.calls[index] for index in sorted(self.calls)]
        return Choice(
            text="".join(self.text),
            reasoning="".join(self.reasoning),
            calls=tuple(ToolCall(call.id, call.name, "".join(call.arguments)) for call in calls),
            reason=reason,
            stop_sequence=stop_sequence,
            logprobs=tuple(self.logprobs),
            prompt_logprobs=tuple(self.prompt_logprobs),
        )


@define(eq=False)
class Collector:
    """Takes events; `answer` is None until the last one, Finished, has come."""

    answer: Answer | None = field(default=None, init=False)
    _drafts: dict[int, Draft] = field(factory=dict, init=False)
    _choices: dict[int, Choice] = field(factory=dict, init=False)

    def add(self, event: Event) -> None:
        match event:
            case TextDelta(choice, text, logprobs):
                draft = self._draft(choice)
                draft.text.append(text)
                draft.logprobs.extend(logprobs)
            case ReasoningDelta(choice, text):
                self._draft(choice).reasoning.append(text)
            case ToolCallStarted(choice, index, call_id, name):
                self._draft(choice).calls[index] = Call(call_id, name)
            case ToolCallDelta(choice, index, arguments):
                self._draft(choice).calls[index].arguments.append(arguments)
            case PromptScored(choice, logprobs):
                self._draft(choice).prompt_logprobs.extend(logprobs)
            case ChoiceFinished(choice, reason, stop_sequence):
                self._choices[choice] = self._draft(choice).finish(reason, stop_sequence)
            case Finished(usage):
                self.answer = Answer(tuple(self._choices[i] for i in sorted(self._choices)), usage)

    def _draft(self, choice: int) -> Draft:
        if choice not in self._drafts:
            self._drafts[choice] = Draft()
        return self._drafts[choice]
