"""Answers as text completions: whole, and as a stream of chunks."""

import orjson
from attrs import define, field

from helexa.conversation import (
    ChoiceFinished,
    Event,
    Finished,
    FinishReason,
    Json,
    Passed,
    Progress,
    PromptScored,
    Started,
    TextDelta,
    TokenLogprob,
)
from helexa.errors import HelexaError
from helexa.wire.answer import Answer, Choice
from helexa.wire.exchange import Reply
from helexa.wire.openai_chat.choice import write_reason, write_usage
from helexa.wire.openai_chat.chunks import Chunks, write_head
from helexa.wire.openai_completions.echo import Echo, Scores

ID_PREFIX = "cmpl-"
KIND = "text_completion"


def write_answer(answer: Answer, reply: Reply, echo: Echo) -> bytes:
    completion = {
        **write_head(reply, ID_PREFIX, KIND),
        "choices": [write_choice(i, each, echo) for i, each in enumerate(answer.choices)],
        "usage": write_usage(answer.usage),
    }
    return orjson.dumps(completion)


def write_choice(index: int, choice: Choice, echo: Echo) -> Json:
    text = echo.text(index, choice.prompt_logprobs)
    return {
        "index": index,
        "text": text + choice.text,
        "logprobs": write_scores(text, choice, echo) if echo.scored else None,
        **write_end(choice.reason, choice.stop_sequence),
    }


def write_scores(text: str, choice: Choice, echo: Echo) -> Json:
    scores = Scores()
    prompt = scores.prompt(choice.prompt_logprobs if echo.texts else (), len(text))
    answer = scores.more(choice.logprobs)
    return {name: prompt[name] + answer[name] for name in prompt}


def write_end(reason: FinishReason, stop_sequence: str | None) -> dict[str, Json]:
    return write_reason("length" if reason == "length" else "stop", stop_sequence)


@define(eq=False)
class Line:
    """One answer of a stream.  `prompt` gathers until it begins; `around` is what then stands before
    and after its text in every chunk."""

    prompt: list[TokenLogprob] = field(factory=list)
    scores: Scores = field(factory=Scores)
    around: tuple[bytes, bytes] | None = None


@define(eq=False)
class StreamWriter:
    """Events to the bytes of one stream, up to and including `[DONE]`."""

    reply: Reply
    echo: Echo
    include_usage: bool = False
    _chunks: Chunks = field(init=False)
    _lines: dict[int, Line] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._chunks = Chunks(self.reply, ID_PREFIX, KIND, self.include_usage)

    def write(self, event: Event) -> bytes:
        if isinstance(event, TextDelta) and not self._chunks.held:  # first: it comes once per token
            return self._text(event)
        if isinstance(event, Finished):
            return self._chunks.end(event.usage)
        if isinstance(event, Passed):
            return event.data
        return self._chunks.release() + self._write(event)

    def error(self, error: HelexaError) -> bytes:
        return self._chunks.error(error)

    def _write(self, event: Event) -> bytes:
        match event:
            case TextDelta():
                return self._text(event)
            case PromptScored(choice, logprobs):
                self._line(choice).prompt += logprobs
                return b""
            case ChoiceFinished(choice, reason, stop_sequence):
                end = write_end(reason, stop_sequence)
                finish = {"index": choice, "text": "", "logprobs": None, **end}
                return self._begin(choice, self._line(choice)) + self._chunks.finish(finish)
            case Progress() | Started():
                return self._chunks.sign(event)
            case _:
                return b""  # a text is gone on with as it is: no reasoning, no tools

    def _line(self, choice: int) -> Line:
        if choice not in self._lines:
            self._lines[choice] = Line()
        return self._lines[choice]

    def _text(self, event: TextDelta) -> bytes:
        line = self._line(event.choice)
        if line.around is None:
            return self._begin(event.choice, line) + self._text(event)
        if event.logprobs and self.echo.scored:
            return self._chunk(event.choice, event.text, line.scores.more(event.logprobs))
        if not event.text:
            return b""
        before, after = line.around
        return before + orjson.dumps(event.text) + after

    def _begin(self, choice: int, line: Line) -> bytes:
        """The echo of an answer, the first time."""
        if line.around is not None:
            return b""
        chosen = b'{"index":%d,"text":' % choice
        line.around = self._chunks.around(chosen, b',"logprobs":null,"finish_reason":null}')
        if not self.echo.texts:
            return b""
        prompt = tuple(line.prompt)
        text = self.echo.text(choice, prompt)
        scores = line.scores.prompt(prompt, len(text)) if self.echo.scored else None
        return self._chunk(choice, text, scores)

    def _chunk(self, choice: int, text: str, scores: Json) -> bytes:
        return self._chunks.chunk(
            {"index": choice, "text": text, "logprobs": scores, "finish_reason": None}
        )
